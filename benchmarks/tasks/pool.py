"""A task as pools of rows with frozen features, and what is drawn from them for one tie and seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value, load_from_disk

from hf_midrange import LinearHead, columns
from hf_midrange.head.correction import fit_correction


SPLITS = ("train", "curation", "test")
SIZES = {"train": 1200, "curation": 800, "test": 600}
"""Rows drawn for a run of two classes, if the pool has so many; more classes take as many per class."""

RARER = 5
"""How much rarer the last class is in the training and curation rows of a run with a rare class."""


@dataclass(frozen=True)
class Task:
    """A task that can be built from data at hand."""

    name: str
    build: Callable[[Path | None], Mapping[str, Dataset]]
    """Given where the data lie, returns the pool of each split, with `label`, `group`, `embedding` and views; `group`
    is label times number of confounders plus confounder."""
    data: str | None = None
    """Name of the `--data` entry it needs; None: the data come with the demo's packages."""
    aside: bool = False
    """Whether the task took no part in the choice of any rule."""


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
    """Twice the label, plus 1 against the tie: the worst of these is the worst group."""


def draw(
    pool: Pool, contrary: float | None, seed: int, rows: int | None = None, wrong: float = 0.0, rare: bool = False
) -> Run:
    """Return a run: training and curation rows of which a share `contrary` of each class breaks the tie.

    Where the pool has too few rows of a group, as many are drawn of all groups as keep their shares.

    Args:
        pool: the task's rows.
        contrary: share of each class that does not have the confounder of its own number; `untied_share` is that at
            which nothing is tied. None: the rows as they are in the data, each class as often as it is there.
        seed: of the draw; pools are shared, so runs of two seeds have rows in common.
        rows: curation rows for two classes, instead of 800.
        wrong: share of the labels of training and curation rows that are changed to another class at random.
        rare: whether the last class is `RARER` times rarer in training and curation rows.
    """
    rng = np.random.default_rng(seed)
    classes = len(columns.class_label(pool.splits["train"].features).names)
    wanted = SIZES | ({"curation": rows} if rows else {})
    shares = np.where(rare & (np.arange(classes) == classes - 1), 1 / RARER, 1.0)
    sizes = {name: size / 2 * (np.ones(classes) if name == "test" else shares) for name, size in wanted.items()}
    train, curation = (_tied(pool.splits[name], contrary, sizes[name], rng) for name in ("train", "curation"))
    test = _tied(pool.splits["test"], untied_share(pool), sizes["test"], rng, all_there_are=True)
    if wrong:
        train, curation = (_mislabelled(part, wrong, classes, rng) for part in (train, curation))
    head = erm_head(columns.matrix(train, columns.EMBEDDING), columns.labels(train), classes)
    logits = head(columns.matrix(curation, columns.EMBEDDING)).numpy()
    curation = columns.with_columns(curation, {columns.LOGITS: (logits, columns.vector(classes))})
    labels, groups = columns.labels(test), columns.labels(test, columns.GROUP)
    parts = len(columns.class_label(test.features, columns.GROUP).names) // classes
    against = groups % parts != labels % parts
    return Run(head, curation, columns.matrix(test, columns.EMBEDDING), labels, 2 * labels + against)


def untied_share(pool: Pool) -> float:
    """Return the share of each class that has another confounder than its own where all are as common."""
    features = pool.splits["train"].features
    groups, classes = (len(columns.class_label(features, name).names) for name in (columns.GROUP, columns.LABEL))
    return 1 - classes / groups


def _tied(
    pool: Dataset, contrary: float | None, sizes: np.ndarray, rng: np.random.Generator, all_there_are: bool = False
) -> Dataset:
    """Return rows of a split, `sizes` `(C,)` of each class if there are so many.

    Rows against a tie have the other confounders as often as the pool has them; where nothing is tied, all as often.

    Args:
        pool: the split.
        contrary: as `draw` takes it.
        sizes: rows of each class.
        rng: draws them.
        all_there_are: a group with too few rows gives all of them, and the others do not shrink with it.
    """
    groups, classes = columns.labels(pool, columns.GROUP), len(sizes)
    if contrary is None:
        return pool.select(rng.permutation(len(groups))[: int(sizes.sum())]).flatten_indices()
    parts = len(columns.class_label(pool.features, columns.GROUP).names) // classes
    there = np.bincount(groups, minlength=classes * parts).reshape(classes, parts)
    own = np.arange(parts) == np.arange(classes)[:, None] % parts
    others = np.where(own, 0, 1 if contrary > 1 - 1 / parts - 1e-9 else there)
    shares = np.where(own, 1 - contrary, contrary * others / np.maximum(others.sum(axis=1, keepdims=True), 1))
    wanted = shares * sizes[:, None]
    scale = 1.0 if all_there_are else min(1.0, (there[wanted > 0] / wanted[wanted > 0]).min())
    counts = np.ceil(np.round(scale * wanted, 6)).astype(int).clip(max=there).ravel()
    chosen = [rng.choice(np.flatnonzero(groups == k), count, replace=False) for k, count in enumerate(counts)]
    return pool.select(rng.permutation(np.concatenate(chosen))).flatten_indices()


def _mislabelled(rows: Dataset, share: float, classes: int, rng: np.random.Generator) -> Dataset:
    """Return rows of which a share has another class; `group` still tells the truth."""
    labels = columns.labels(rows).copy()
    chosen = rng.choice(len(labels), round(share * len(labels)), replace=False)
    labels[chosen] = (labels[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return columns.with_columns(rows, {columns.LABEL: (labels, rows.features[columns.LABEL])})


def erm_head(embedding: np.ndarray, labels: np.ndarray, classes: int) -> LinearHead:
    """Return an L2 logistic regression (scikit-learn's C = .01) on standardised, clipped embeddings, as a raw head."""
    rows = len(labels)
    strength = 1 / (0.02 * rows) if classes > 2 else 1 / (0.01 * rows)  # scikit-learn has one row for two classes
    found = fit_correction(embedding, np.zeros((rows, classes)), labels, np.ones(rows), strength)
    return LinearHead.from_weights(found.weight, found.bias)


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
