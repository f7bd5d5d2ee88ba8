"""What a strategy decides about every row, and how decisions become weights and a balanced subset."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np


MINIMUM = 5
"""Fewest rows a pseudo-group may have to be weighted on its own."""


@dataclass(frozen=True)
class Reasons:
    """A sentence for each row, made when it is read: millions of them take more room than all figures of the rows."""

    rows: int
    sentence: Callable[[int], str]

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[str]:
        return map(self.sentence, range(self.rows))


@dataclass(frozen=True)
class Selection:
    """The pseudo-groups a strategy found, with their weights."""

    cells: np.ndarray
    """Pseudo-group of each row, `(n,)`, an index into `names`; -1 for rows the strategy leaves out."""
    names: list[str]
    """Readable name of each pseudo-group."""
    owners: np.ndarray
    """Class of each pseudo-group, `(len(names),)`."""
    shares: np.ndarray
    """Share of the total weight that each pseudo-group gets, `(len(names),)`, sum 1."""
    reasons: list[str] | Reasons
    """Why each row stands where it does, for people."""
    weights: np.ndarray | None = None
    """Weights of rows from a strategy that has no cells; None: each cell's share is spread over its rows."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Figures for the report."""
    verdict: str = ""
    """What the strategy thinks of the rows; empty: nothing, it was asked to weight them."""
    why: str = ""
    """Why it thinks so, for people."""
    strength: float = 1.0
    """How much of the correction is applied to the head."""
    held_out: np.ndarray | None = None
    """Predictions after the repair by fits without the row's fold, `(n,)`, if the strategy had to make them."""

    def weight(self) -> np.ndarray:
        """Return the weight of each row, `(n,)` float32 of mean 1; 0 only for rows that are left out."""
        if self.weights is not None:
            return (self.weights / self.weights.mean()).astype(np.float32)
        counts = np.bincount(self.cells[self.cells >= 0], minlength=len(self.names))
        each = np.divide(self.shares, counts, out=np.zeros(len(self.names)), where=counts > 0)
        raw = np.where(self.cells >= 0, each[self.cells], 0.0)
        return (raw / raw.mean()).astype(np.float32)

    def keep(self, seed: int) -> np.ndarray:
        """Return a random subset, `(n,)` bool, in which classes are equal, and pseudo-groups within a class."""
        rng = np.random.default_rng(seed)
        if self.weights is not None:
            return _weighted_subset(self.weights, rng)
        counts = np.bincount(self.cells[self.cells >= 0], minlength=len(self.names))
        occupied = [np.flatnonzero((self.owners == owner) & (counts > 0)) for owner in np.unique(self.owners)]
        quota = min(len(cells) * int(counts[cells].min()) for cells in occupied if len(cells))
        keep = np.zeros(len(self.cells), dtype=bool)
        for cells in occupied:
            for cell in cells:
                rows = np.flatnonzero(self.cells == cell)
                size = min(len(rows), max(1, quota // len(cells)))
                keep[rng.choice(rows, size, replace=False)] = True
        return keep


def _weighted_subset(weights: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Keep each row with a chance proportional to its weight, half of the effective number of rows in expectation."""
    effective = weights.sum() ** 2 / np.square(weights).sum()
    return rng.random(len(weights)) < np.minimum(1.0, weights / weights.sum() * effective / 2)


def contrary_share(minority: float, rows: float) -> float:
    """Return the share of a class's weight that its contrary rows get.

    The odds are `((1 - m) / m) ** p` for a contrary share of `m` at most .5, with `p = .5`, less where there are more
    than 40 contrary `rows`: `p = max(.5 (40 / rows) ** .4, .15)`.

    >>> round(contrary_share(0.05, 20), 3)
    0.813
    """
    minority = min(minority, 0.5)
    if minority <= 0:
        return 0.0
    power = float(np.clip(0.5 * (40 / max(rows, 1.0)) ** 0.4, 0.15, 0.5))
    odds = ((1 - minority) / minority) ** power
    return float(odds / (1 + odds))


def lowest(positions: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """Return rows whose position lies below `threshold`, `(n,)` bool, and at least the five lowest of each class."""
    found = positions < threshold
    for k in np.unique(labels):
        rows = np.flatnonzero(labels == k)
        if found[rows].sum() < MINIMUM:
            found[rows[np.argsort(positions[rows], kind="stable")[:MINIMUM]]] = True
    return found


def split_by_contrary(
    labels: np.ndarray, contrary: np.ndarray, towards: np.ndarray, classes: list[str], reasons: list[str] | Reasons
) -> Selection:
    """Return pseudo-groups label x (typical, or contrary by the class pointed to), weighted as `contrary_share` says.

    Classes weigh the same, and so do the contrary pseudo-groups of a class. One with fewer than five rows joins the
    others of its label.

    Args:
        labels: class ids, `(n,)`.
        contrary: rows that lack what is tied to their class, `(n,)` bool.
        towards: class that each row looks like, `(n,)`; read where `contrary`.
        classes: class names.
        reasons: one sentence per row.
    """
    names: list[str] = []
    owners: list[int] = []
    shares: list[float] = []
    shares_of: list[float] = []
    cells = np.full(len(labels), -1)
    minority = [float(contrary[labels == k].mean()) for k in range(len(classes))]
    mean_share, mean_rows = float(np.mean(minority)), float(contrary.sum() / len(classes))
    for k, own in enumerate(classes):
        total = contrary_share(mean_share, mean_rows) if minority[k] > 0 else 0.0
        parts = parts_by_look(np.flatnonzero((labels == k) & contrary), towards)
        members = [(f"{own}, typical", np.flatnonzero((labels == k) & ~contrary), 1 - total)]
        for rows in parts:
            like = " or ".join(classes[other] for other in np.unique(towards[rows]))
            members.append((f"{own}, like {like}", rows, total / len(parts)))
        for name, rows, share in members:
            cells[rows] = len(names)
            names.append(name)
            owners.append(k)
            shares.append(share / len(classes))
        shares_of.append(total)
    facts = {"contrary_share": dict(zip(classes, minority, strict=True)), "m": min(mean_share, 0.5)}
    facts["q"] = dict(zip(classes, shares_of, strict=True))
    return Selection(cells, names, np.array(owners), _filled(cells, owners, shares), reasons, facts=facts)


def parts_by_look(rows: np.ndarray, towards: np.ndarray) -> list[np.ndarray]:
    """Return rows by the class that they look like; parts of fewer than five are one."""
    parts = [rows[towards[rows] == k] for k in np.unique(towards[rows])]
    small = [part for part in parts if len(part) < MINIMUM]
    return [part for part in parts if len(part) >= MINIMUM] + ([np.concatenate(small)] if small else [])


def _filled(cells: np.ndarray, owners: list[int], shares: list[float]) -> np.ndarray:
    """Give the share of an empty pseudo-group to the others of its class."""
    counts = np.bincount(cells[cells >= 0], minlength=len(owners))
    kept = np.where(counts > 0, shares, 0.0)
    for owner in set(owners):
        mine = np.array(owners) == owner
        if kept[mine].sum() > 0:
            kept[mine] *= np.sum(np.array(shares)[mine]) / kept[mine].sum()
    return kept / kept.sum()


def balanced(cells: np.ndarray, names: list[str], owners: np.ndarray, reasons: list[str]) -> Selection:
    """Return equal weight for every class, and for every pseudo-group within a class."""
    counts = np.bincount(cells[cells >= 0], minlength=len(names))
    shares = np.zeros(len(names))
    for owner in np.unique(owners):
        mine = (owners == owner) & (counts > 0)
        shares[mine] = 1 / max(1, mine.sum())
    return Selection(cells, names, owners, shares / shares.sum(), reasons)


def by_label_and_part(
    labels: np.ndarray, parts: np.ndarray, classes: list[str], names: list[str], reasons: list[str]
) -> Selection:
    """Return label x part, equal shares within a label; cells of fewer than five rows join their label's largest.

    Args:
        labels: class ids, `(n,)`.
        parts: ids of parts that cut across classes, `(n,)`.
        classes: class names.
        names: names of the parts.
        reasons: one sentence per row.
    """
    count = len(names)
    raw = labels * count + parts
    sizes = np.bincount(raw, minlength=len(classes) * count)
    for k in range(len(classes)):
        block = sizes[k * count : (k + 1) * count]
        small = np.isin(raw, k * count + np.flatnonzero((block > 0) & (block < MINIMUM)))
        raw[small] = k * count + int(block.argmax())
    occupied, cells = np.unique(raw, return_inverse=True)
    cell_names = [f"{classes[cell // count]}, {names[cell % count]}" for cell in occupied]
    return balanced(cells, cell_names, occupied // count, reasons)
