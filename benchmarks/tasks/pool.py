"""A task as pools of rows with frozen features, and what is drawn from them for one tie and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value, load_from_disk

from hf_midrange import LinearHead, columns


SPLITS = ("train", "curation", "test")
SIZES = {"train": 1200, "curation": 800, "test": 600}
"""Rows drawn for a run of two classes; more classes take as many per class."""


@dataclass(frozen=True)
class Task:
    """A task that can be built from data at hand."""

    name: str
    build: Callable[[Path | None], Mapping[str, Dataset]]
    """Given where the data lie, returns the pool of each split, with `label`, `group`, `embedding` and views; `group`
    is label times number of confounders plus confounder."""
    data: str | None = None
    """Name of the `--data` entry it needs; None: the data come with the demo's packages."""
    sizes: Mapping[str, int] = field(default_factory=lambda: SIZES)


class Pool(NamedTuple):
    """The rows of every split."""

    splits: Mapping[str, Dataset]

    @classmethod
    def of(cls, task: Task, data: Path | None, cache: Path) -> Pool:
        """Return the pool of a task, built if the cache does not hold it."""
        folder = cache / task.name.replace("/", "-").replace(" ", "-")
        if not folder.is_dir():
            for name, rows in task.build(data).items():
                rows.save_to_disk(folder.with_suffix(".part") / name)
            folder.with_suffix(".part").rename(folder)
        return cls({name: load_from_disk(folder / name) for name in SPLITS})


class Run(NamedTuple):
    """One tie and seed of a task."""

    head: LinearHead
    """Fitted to the tied training rows: ERM."""
    curation: Dataset
    embedding: np.ndarray
    """Of the untied test rows, `(n, d)`."""
    labels: np.ndarray
    groups: np.ndarray


def draw(
    pool: Pool,
    contrary: float | None,
    seed: int,
    sizes: Mapping[str, int],
    rows: int | None = None,
    wrong: float = 0.0,
) -> Run:
    """Return a run: training and curation rows of which a share `contrary` of each class breaks the tie.

    Args:
        pool: the task's rows.
        contrary: share of each class that does not have the confounder of its own number; `untied_share` is that at
            which nothing is tied. None: the rows as they are in the data, each class as often as it is there.
        seed: of the draw; pools are shared, so runs of two seeds have rows in common.
        sizes: rows of each split for two classes.
        rows: curation rows for two classes, instead of those of `sizes`.
        wrong: share of the labels of training and curation rows that are changed to another class at random.
    """
    rng = np.random.default_rng(seed)
    classes = len(columns.class_label(pool.splits["train"].features).names)
    wanted = {name: (rows if rows and name == "curation" else size) * classes // 2 for name, size in sizes.items()}
    train = _tied(pool.splits["train"], contrary, wanted["train"], classes, rng)
    curation = _tied(pool.splits["curation"], contrary, wanted["curation"], classes, rng)
    test = _tied(pool.splits["test"], untied_share(pool), wanted["test"], classes, rng)
    if wrong:
        train, curation = (_mislabelled(part, wrong, classes, rng) for part in (train, curation))
    head = erm_head(columns.matrix(train, columns.EMBEDDING), columns.labels(train), classes)
    logits = head(columns.matrix(curation, columns.EMBEDDING)).numpy()
    curation = columns.with_columns(curation, {columns.LOGITS: (logits, columns.vector(classes))})
    embedding = columns.matrix(test, columns.EMBEDDING)
    return Run(head, curation, embedding, columns.labels(test), columns.labels(test, columns.GROUP))


def untied_share(pool: Pool) -> float:
    """Return the share of each class that has another confounder than its own where all are as common."""
    features = pool.splits["train"].features
    groups, classes = (len(columns.class_label(features, name).names) for name in (columns.GROUP, columns.LABEL))
    return 1 - classes / groups


def _tied(pool: Dataset, contrary: float | None, rows: int, classes: int, rng: np.random.Generator) -> Dataset:
    groups = columns.labels(pool, columns.GROUP)
    parts = len(columns.class_label(pool.features, columns.GROUP).names) // classes
    if contrary is None:
        return pool.select(rng.permutation(len(groups))[:rows]).flatten_indices()
    chosen = []
    for k in range(classes):
        size, own = rows // classes, k % parts
        against = round(contrary * size)
        others = [k * parts + j for j in range(parts) if j != own]
        counts = np.bincount(rng.permutation(len(others))[np.arange(against) % len(others)], minlength=len(others))
        for group, count in [(k * parts + own, size - against), *zip(others, counts, strict=True)]:
            members = np.flatnonzero(groups == group)
            if count > len(members):
                raise ValueError(f"group {group} has {len(members)} rows in the pool, but {count} are wanted")
            chosen.append(rng.choice(members, count, replace=False))
    order = rng.permutation(np.concatenate(chosen))
    return pool.select(order).flatten_indices()


def _mislabelled(rows: Dataset, share: float, classes: int, rng: np.random.Generator) -> Dataset:
    """Return rows of which a share has another class; `group` still tells the truth."""
    labels = columns.labels(rows).copy()
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    labels[chosen] = (labels[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return columns.with_columns(rows, {columns.LABEL: (labels, rows.features[columns.LABEL])})


def erm_head(embedding: np.ndarray, labels: np.ndarray, classes: int) -> LinearHead:
    """Return an L2 logistic regression (C = .01) on standardised, clipped embeddings, as a head on raw ones."""
    from sklearn.linear_model import LogisticRegression

    values = embedding.astype(np.float64)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 1e-3 * np.median(scale), scale, np.inf)  # near-dead channels are noise at full size
    fitted = LogisticRegression(C=0.01, max_iter=1000).fit(np.clip((values - mean) / scale, -4, 4), labels)
    weight, bias = fitted.coef_ / scale, fitted.intercept_ - (fitted.coef_ / scale) @ mean
    if classes == 2:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return LinearHead.from_weights(weight, bias)


def pool_of(
    more: Mapping[str, tuple[object, object]], labels: np.ndarray, confounders: np.ndarray, classes: list[str],
    confounder_names: list[str],
) -> Dataset:  # fmt: skip
    """Return a split's pool with `label` and `group` from class and confounder ids, and the columns of `more`."""
    groups = [f"{name} with {other}" for name in classes for other in confounder_names]
    ids = labels * len(confounder_names) + confounders
    base = Dataset.from_dict(
        {columns.LABEL: labels, columns.GROUP: ids, columns.SOURCE_ID: np.arange(len(labels))},
        features=Features(
            {
                columns.LABEL: ClassLabel(names=classes),
                columns.GROUP: ClassLabel(names=groups),
                columns.SOURCE_ID: Value("int64"),
            }
        ),
    )
    return columns.with_columns(base, more)
