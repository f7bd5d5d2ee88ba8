"""Ties of classes: which findings and pseudo-groups speak of one, and which of these speak of the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from scipy import sparse
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

from hf_midrange import columns
from hf_midrange.curation.report import curation_report
from hf_midrange.io.blocks import blocks, finite_vectors
from hf_midrange.verdicts import NONE, SHOWN, SUSPECTED


# Set on coloured and striped digits, tinted photographs and reviews with a tied phrase; nothing was set aside.
TIED = 9.0
"""Least odds ratio of class and concept in the data: of two equal classes, at most a quarter of the rows break the
tie. Most parts of a class are tied to it less."""
SURE = 1.64
"""Least z-score of the score's difference, among members of the class and among strangers: one-sided 5 % each."""
SAME = 0.4
"""Least mean agreement of the rows that break ties if these are one: 0 is chance, 1 the same rows or some of them."""
MOST = 64
"""Ties that findings speak of, the most significant first."""

_NOTHING_SEEN = (NONE, "nothing to repair")  # the second is what 0.1.0 said


class Rows(NamedTuple):
    """What ties are judged by."""

    ds: Dataset
    ids: np.ndarray
    """Class of each row, `(n,)`."""
    classes: list[str]
    wrong: np.ndarray
    """Which rows the model is wrong on, `(n,)` bool."""

    @classmethod
    def of(cls, ds: Dataset) -> Rows:
        """Return labels, and which rows the model gets wrong."""
        ids = columns.labels(ds)
        predicted = [block.argmax(axis=1) for _, block in blocks(finite_vectors(ds, columns.LOGITS))]
        return cls(ds, ids, columns.class_label(ds.features).names, np.concatenate([ids[:0], *predicted]) != ids)

    def score(self, own: int) -> np.ndarray:
        """Return the score of a class, `(n,)`: its logit, and of two classes half the difference of the logits."""
        if len(self.classes) != 2:
            return columns.some_units(self.ds, columns.LOGITS, [own])[:, 0].astype(np.float64)
        both = columns.some_units(self.ds, columns.LOGITS, [own, 1 - own]).astype(np.float64)
        return (both[:, 0] - both[:, 1]) / 2

    def centred(self, values: np.ndarray) -> np.ndarray:
        """Return values `(n,)` minus their mean within the label, of length 1; zeros for what is constant there."""
        means = np.bincount(self.ids, values) / np.maximum(np.bincount(self.ids), 1)
        apart = values - means[self.ids]
        length = np.linalg.norm(apart)
        return apart / length if length > 1e-6 else np.zeros(len(apart))


class Tie(NamedTuple):
    """A class, and what is tied to it."""

    own: int
    """The class."""
    has: np.ndarray
    """Which rows have what is tied to it, `(n,)` bool."""
    source: str
    """Of the concept, or the view that the curation read."""
    concept: str | None = None
    """What a finding names; None: the pseudo-groups of the curation."""
    reading: str = SUSPECTED
    """`shown` or `suspected`."""
    findings: tuple[int, ...] = ()
    """Numbers of the findings that say so."""

    def contrary(self, ids: np.ndarray) -> np.ndarray:
        """Return the rows that break the tie, `(n,)` bool: members without it, and strangers with it."""
        return (ids == self.own) != self.has


def ties_of(rows: Rows, findings: Dataset) -> list[Tie]:
    """Return what the curation shows and the findings say is tied to a class; nothing where the curation saw nothing.

    A finding's concept must raise the class's score among members and among strangers; where the curation shows a tie,
    both together are enough. Words for what is
    meant (`Kinds`, `TextTopics`) may be the class itself: they speak of a tie only if something else does.
    """
    curated = columns.REASON in rows.ds.column_names and columns.facts(rows.ds.features, columns.REASON)
    told = curation_report(rows.ds) if curated else None
    if told and told["verdict"] in _NOTHING_SEEN:
        return []
    shown = _of_groups(rows, told) if told and told["verdict"] == SHOWN else ()
    return [tie for tie in (*shown, *_of_findings(rows, findings)) if _is_used(rows, tie)]


def _is_used(rows: Rows, tie: Tie) -> bool:
    score, member = rows.score(tie.own), rows.ids == tie.own
    sides = [member, ~member] if tie.concept else [np.ones(len(member), dtype=bool)]
    lifts = [lift(score[side], tie.has[side], rows.ids[side]) for side in sides]
    return all(difference > SURE * error for difference, error in lifts)


def _of_findings(rows: Rows, findings: Dataset) -> Iterator[Tie]:
    """Yield the classes and concepts of confirmed findings that the data tie strongly."""
    told: dict[tuple[int, str, str], list[int]] = {}
    flagged = set()
    for k, row in enumerate(findings.to_list()):
        key = row["unit"], row["source"], row["concept"]
        apart = not np.isfinite(row["odds_ratio"])  # a band has it in all members and in no stranger, or none is left
        holds = apart or (row["confirmed"] and row["odds_ratio"] > 1)
        if holds and not row["derived"] and (row["tie"] or 0) >= TIED and row["unit_name"] in rows.classes:
            told.setdefault(key, []).append(k)
            flagged |= {key} if row["confounder"] else set()
    for key in [*told][:MOST]:
        unit, source, concept = key
        reading = SHOWN if key in flagged else SUSPECTED
        yield Tie(unit, having(rows.ds, source, concept), source, concept, reading, tuple(told[key]))


def _of_groups(rows: Rows, report: dict[str, Any]) -> Iterator[Tie]:
    """Yield the tie of each class that contrary pseudo-groups of the curation speak of; of two classes it is one."""
    cells = columns.labels(rows.ds, columns.PSEUDO_GROUP)
    names = columns.class_label(rows.ds.features, columns.PSEUDO_GROUP).names
    sizes = np.bincount(cells, minlength=len(names))
    largest = np.zeros(len(rows.classes), dtype=np.int64)
    np.maximum.at(largest, rows.ids, sizes[cells])
    contrary = sizes[cells] < largest[rows.ids]
    source = str(report.get("view", "")).removeprefix(columns.VIEW_PREFIX).removeprefix(columns.CONCEPTS_PREFIX)
    for own, name in enumerate(rows.classes[: 1 if len(rows.classes) == 2 else None]):
        like = np.array([len(rows.classes) == 2 or cell.endswith(f", like {name}") for cell in names])
        broken = contrary & ((rows.ids == own) | like[cells])
        if (contrary & like[cells]).any():
            yield Tie(own, (rows.ids == own) != broken, source or "all views together", None, SHOWN)


def having(ds: Dataset, source: str, concept: str) -> np.ndarray:
    """Return which rows have a concept, `(n,)` bool."""
    column = f"{columns.CONCEPTS_PREFIX}{source}"
    number = columns.vocabulary(ds.features, column).index(concept)
    return columns.presence(ds, column).tocsc()[:, [number]].toarray()[:, 0]


def lift(score: np.ndarray, has: np.ndarray, ids: np.ndarray) -> tuple[float, float]:
    """Return how much higher rows with something score than rows of the same label without, and its standard error.

    Labels weigh `n1 n0 / (n1 + n0)`, for the least variance where all rows vary alike. NaN where no label has two
    rows of either kind.
    """
    cells, number = 2 * ids + has, 2 * int(ids.max(initial=0)) + 2
    counts = np.bincount(cells, minlength=number).astype(np.float64)
    sums, squares = (np.bincount(cells, score**power, number) for power in (1, 2))
    means = sums / np.maximum(counts, 1)
    error = ((squares - counts * means**2) / np.maximum(counts - 1, 1) / np.maximum(counts, 1)).reshape(-1, 2)
    sizes, lifts = counts.reshape(-1, 2), np.diff(means.reshape(-1, 2))[:, 0]
    weight = np.where(sizes.min(axis=1) >= 2, sizes.prod(axis=1) / np.maximum(sizes.sum(axis=1), 1), 0.0)
    if not weight.any():
        return np.nan, np.nan
    weight /= weight.sum()
    return float(weight @ lifts), float(np.sqrt(weight**2 @ np.maximum(error.sum(axis=1), 0)))


def clustered(ties: Sequence[Tie], rows: Rows) -> list[list[Tie]]:
    """Return ties in lists of those that are one: the rows that break them agree (average linkage)."""
    if len(ties) < 2:
        groups = [list(ties)] if ties else []
    else:
        broken = sparse.csr_matrix(np.column_stack([tie.contrary(rows.ids) for tie in ties]), dtype=np.float32)
        distance = squareform(1 - agreement(broken, rows.ids), checks=False)
        number = fcluster(linkage(distance, "average"), 1 - SAME, "distance")
        groups = [[tie for tie, own in zip(ties, number, strict=True) if own == k] for k in np.unique(number)]
    return [group for group in groups if any(not is_meaning(rows.ds, tie.source) for tie in group)]


def is_meaning(ds: Dataset, source: str) -> bool:
    """Return whether a source names what is meant, which may be the class itself."""
    view = f"{columns.VIEW_PREFIX}{source}"
    return view in ds.features and bool(columns.facts(ds.features, view).get("vocabulary"))


def is_part(one: Tie, other: Tie, rows: Rows) -> bool:
    """Return whether one of two ties matters less than half as much where the other holds as everywhere.

    Then both are words for the same, read with noise. What matters is how far a tie moves the score, and which errors
    it explains.
    """
    for tie, given in ((one, other), (other, one)):
        score, broken, rest = rows.score(tie.own), tie.contrary(rows.ids), ~given.contrary(rows.ids)
        whole, left = lift(score, tie.has, rows.ids)[0], lift(score[rest], tie.has[rest], rows.ids[rest])[0]
        if not left >= whole / 2:  # also where no row is left to tell
            return True
        if explained(rows, broken, rest) < explained(rows, broken) / 2:
            return True
    return False


def explained(rows: Rows, broken: np.ndarray, among: np.ndarray | None = None) -> float:
    """Return the share of errors that contrary rows make beyond the rate of the other rows of their label, 0..1.

    The population attributable fraction (Levin 1953), summed over labels as strata.

    Args:
        rows: the rows.
        broken: those that break a tie, `(n,)` bool.
        among: rows whose errors are explained, `(n,)` bool; None: all.
    """
    kept = np.ones(len(rows.ids), dtype=bool) if among is None else among
    cells = (2 * rows.ids + broken)[kept]
    counts, errors = (
        np.bincount(cells, weights, 2 * len(rows.classes)).reshape(-1, 2) for weights in (None, rows.wrong[kept])
    )
    usual = errors[:, 0] / np.maximum(counts[:, 0], 1)
    return max(0.0, float((errors[:, 1] - counts[:, 1] * usual).sum()) / max(int(rows.wrong.sum()), 1))


def agreement(broken: sparse.csr_matrix, ids: np.ndarray) -> np.ndarray:
    """Return how far sets of rows agree within labels, `(t, t)`: 1 where one holds the other, 0 as by chance or less.

    The covariance over the largest that the sizes allow (Loevinger 1948), summed over labels. A concept that is read
    with noise has contrary rows of its own beside those of the tie, and still holds these.

    Args:
        broken: whether each row is in each set, `(n, t)`.
        ids: class of each row, `(n,)`.
    """
    joint = largest = np.zeros((broken.shape[1], broken.shape[1]))
    for k in np.unique(ids):
        part = broken[ids == k]
        share = np.asarray(part.mean(axis=0), dtype=np.float64).ravel()
        by_chance = np.outer(share, share)
        joint = joint + (part.T @ part).toarray() - part.shape[0] * by_chance
        largest = largest + part.shape[0] * (np.minimum.outer(share, share) - by_chance)
    found = np.clip(joint / np.maximum(largest, 1e-9), 0, 1)
    np.fill_diagonal(found, 1)
    return found
