"""Simulated embeddings whose truth is known, with none, one or two confounders and a view of each.

64 factors are mixed into 512 channels, as channels of real embeddings are correlated and none stands for one factor.
"""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset, Features

from hf_midrange import columns
from tasks.pool import Run, erm_head


FACTORS, WIDTH, VIEW = 64, 512, 14
CORE, TIED, SEEN = 3.0, 3.5, 3.5
"""Distance of a class's mean from the rest: by its core, by its confounder, and by its confounder in the view."""


def simulated(classes: int, confounders: int, contrary: float, seed: int, rows: int = 800) -> Run:
    """Return a run: `rows` curation rows per two classes, a share `contrary` against the tie of each confounder."""
    names = [f"class {k}" for k in range(classes)]
    values, labels, _, _ = _rows(750 * classes, classes, confounders, contrary, [seed, 1])
    head = erm_head(values, labels, classes)
    values, labels, tied, views = _rows(rows * classes // 2, classes, confounders, contrary, [seed, 2])
    base = Dataset.from_dict({columns.LABEL: labels}, features=Features({columns.LABEL: ClassLabel(names=names)}))
    more = {
        columns.GROUP: (_groups(labels, tied), ClassLabel(names=_group_names(names, confounders))),
        columns.EMBEDDING: (values, columns.vector(WIDTH)),
        columns.LOGITS: (head(values).numpy(), columns.vector(classes)),
    }
    more |= {f"view_{'ab'[j]}": (view, columns.vector(VIEW)) for j, view in enumerate(views)}
    new, new_labels, new_tied, _ = _rows(1000 * classes, classes, confounders, 1 - 1 / classes, [seed, 3])
    against = (new_tied != new_labels).any(axis=0)
    return Run(head, columns.with_columns(base, more), new, new_labels, 2 * new_labels + against)


def skewed_cue(skew: float, contrary: float, seed: int, rows: int = 800) -> Run:
    """Return a run of two classes with one cue that is the class itself, by degrees: bright days and dim ones.

    There is no confounder, and `contrary` is not read. Rows in the tail of the cue look like the other class.

    Args:
        skew: length of the tail.
        contrary: not read.
        seed: of the draw.
        rows: of the curation split.
    """
    rng, classes = np.random.default_rng(seed), ClassLabel(names=["night", "day"])

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        labels = np.arange(count) % 2
        side = 2 * labels - 1
        cue = side * (2 - 0.8 * skew * rng.exponential(size=count)) + 0.5 * rng.normal(size=count)
        values, view = rng.normal(size=(count, 64)), 0.6 * rng.normal(size=(count, 12))
        values[:, :6] += cue[:, None]
        values[:, 6:10] += 0.25 * side[:, None]
        view[:, :6] += cue[:, None]
        return values.astype(np.float32), labels, view.astype(np.float32)

    values, labels, _ = drawn(rows)
    head = erm_head(values, labels, 2)
    values, labels, view = drawn(rows)
    base = Dataset.from_dict(
        {columns.LABEL: labels, columns.GROUP: labels},
        features=Features({columns.LABEL: classes, columns.GROUP: classes}),
    )
    more = {
        columns.EMBEDDING: (values, columns.vector(64)),
        columns.LOGITS: (head(values).numpy(), columns.vector(2)),
        "view_brightness": (view, columns.vector(12)),
    }
    new, new_labels, _ = drawn(rows)
    return Run(head, columns.with_columns(base, more), new, new_labels, 2 * new_labels)


def _rows(count, classes, confounders, contrary, seed):
    """Return embeddings, labels, which class each confounder points to `(confounders, n)`, and the views.

    Without a confounder there still is a view, of noise.
    """
    rng = np.random.default_rng(seed)
    labels, every = np.arange(count) % classes, np.arange(count)
    embedding = rng.normal(size=(count, FACTORS))
    embedding[every, labels] += CORE
    tied, views = [], []
    for j in range(confounders):
        others = (labels + rng.integers(1, classes, count)) % classes
        pointed = np.where(rng.random(count) < contrary, others, labels)
        embedding[every, (1 + j) * classes + pointed] += TIED / np.sqrt(confounders)
        tied.append(pointed)
    for pointed in tied or [None]:
        view = rng.normal(size=(count, VIEW))
        if pointed is not None:
            view[every, pointed] += SEEN
        views.append(view.astype(np.float32))
    mixing = np.random.default_rng(0).normal(size=(FACTORS, WIDTH))
    embedding = embedding @ mixing + 2 * rng.normal(size=(count, WIDTH))
    return embedding.astype(np.float32), labels, np.array(tied, dtype=int).reshape(confounders, count), views


def _groups(labels: np.ndarray, tied: np.ndarray) -> np.ndarray:
    """Return label times number of patterns plus which confounders break the tie, as a number in binary."""
    broken = (tied != labels).astype(int)
    return labels * 2 ** len(broken) + (broken * 2 ** np.arange(len(broken))[:, None]).sum(axis=0)


def _group_names(names: list[str], confounders: int) -> list[str]:
    patterns = [" and ".join("ab"[j] for j in range(confounders) if p >> j & 1) for p in range(2**confounders)]
    return [f"{name}, against {pattern}" if pattern else name for name in names for pattern in patterns]
