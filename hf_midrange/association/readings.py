"""What a finding means: a cue, something that one side alone has, or what makes rows hard; and which say the same."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse, special
from scipy.sparse.csgraph import connected_components

from hf_midrange.association.screening import adjusted


CUE, ONE_SIDED, HARDNESS, NONE = "cue", "one-sided", "hardness", "none"
SHORTCUT, CORE = "shortcut", "core"
"""Readings that no association can give: a person's decision, or an intervention, makes a cue one of these."""

BY_ASSOCIATION, BY_TIE, BY_MEMBERS, NOT_CONFIRMED = (
    "association",
    "association and tie",
    "members alone",
    "nothing yet",
)
"""What a reading rests on."""

_Z = float(special.ndtri(0.975))


def range_patterns(members: np.ndarray, strangers: np.ndarray, absent: np.ndarray, alpha: float) -> np.ndarray:
    """Return `cue`, `hardness`, `one-sided` or `none` for each pair of a unit and a concept, of shape `(t,)`.

    A cue raises the unit in members and strangers alike, hardness lowers members and raises strangers; what raises
    members and is in nearly no stranger, as a watermark of one class, is one-sided: no row can tell whether it is a
    part of the class. A claim about two sides is as significant as the weaker of its two one-sided tests
    (intersection-union; Berger 1982); each kind of claim is adjusted over all pairs. The whole range is read, not the
    middle band alone, since a tie can be so strong that it carries strangers past the middle, into the top.

    Args:
        members: how far the concept raises the unit in its members, as a standard normal statistic; NaN if untestable.
        strangers: the same in strangers; NaN where they nearly never or nearly always have the concept.
        absent: whether strangers nearly never have it, boolean.
        alpha: level.
    """
    raised, lowered, raised_strangers = special.ndtr(-members), special.ndtr(members), special.ndtr(-strangers)
    claims = {
        CUE: np.maximum(raised, raised_strangers),
        HARDNESS: np.maximum(lowered, raised_strangers),
        ONE_SIDED: np.where(np.isnan(strangers) & absent, raised, np.nan),
    }
    shown = [adjusted(p) <= alpha for p in claims.values()]
    return np.select(shown, list(claims), NONE)


class Ties(NamedTuple):
    """How the data tie concepts to the classes of units, each of shape `(t,)`; NaN where a unit has no class."""

    ratio: np.ndarray
    """The odds ratio of being a member, with the concept against without; half a row is added to each count."""
    low: np.ndarray
    """Its lower 95 % limit."""
    broken_by: np.ndarray
    """Rows that break the tie: members without the concept and strangers with it."""


def ties(with_concept: np.ndarray, total: np.ndarray, member: np.ndarray, concept: np.ndarray) -> Ties:
    """Return the ties of some pairs of a unit's class and a concept.

    Args:
        with_concept: rows of each label with each concept, of shape `(C, m)`.
        total: rows of each label, of shape `(C,)`.
        member: the class of each pair's unit, of shape `(t,)`; -1 where it has none.
        concept: the concept of each pair.
    """
    a, c = with_concept[member, concept], with_concept[:, concept].sum(axis=0)
    c = c - a
    b, d = total[member] - a, total.sum() - total[member] - c
    log = np.log(a + 0.5) + np.log(d + 0.5) - np.log(b + 0.5) - np.log(c + 0.5)
    error = np.sqrt(sum(1 / (part + 0.5) for part in (a, b, c, d)))
    classless = member < 0
    return Ties(*(np.where(classless, np.nan, part) for part in (np.exp(log), np.exp(log - _Z * error), b + c)))


def one_row_a_pair(flagged: np.ndarray, middle: np.ndarray, pairs: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Return `flagged` thinned out: of each pair's rows those in a middle band, or else the most significant one.

    Args:
        flagged: boolean, of shape `(t,)`.
        middle: which rows are of a middle band.
        pairs: unit and concept of each row, of shape `(t, 2)`.
        p: p-values.
    """
    kept = flagged & middle
    covered = {tuple(pair) for pair in pairs[kept].tolist()}
    for i in np.argsort(p, kind="stable"):
        pair = tuple(pairs[i].tolist())
        if flagged[i] and pair not in covered:
            covered.add(pair)
            kept[i] = True
    return kept


def needless_ranges(whole_range: np.ndarray, holds: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return which rows over the whole range say nothing that a band's row of the same pair does not say.

    Needed are those of pairs that no band shows, and those that hold on the confirmation half where no band's does.

    Args:
        whole_range: which rows are over the whole range, boolean of shape `(t,)`.
        holds: which hold on the confirmation half.
        pairs: unit and concept of each row, of shape `(t, 2)`.
    """
    _, pair = np.unique(pairs, axis=0, return_inverse=True)
    pair = pair.reshape(-1)
    in_band, held = (np.bincount(pair, weights=some)[pair] > 0 for some in (~whole_range, ~whole_range & holds))
    return whole_range & in_band & (held | ~holds)


SAME = 0.8
"""Within-label correlation from which two concepts count as one."""

CONTAINED, SURE = 0.9, 5.0
"""Within-label homogeneity from which one concept is part of another, and how many deviations show it is not luck."""


def same_concepts(present: sparse.csr_matrix, ids: np.ndarray, classes: int) -> np.ndarray:
    """Return a group number per concept, of shape `(m,)`; concepts linked directly or through others share one.

    Two concepts are linked if they correlate at 0.8 or -0.8 within labels (a negation says the same with the opposite
    sign), or if one lies inside the other, as "there are" in "there": Loevinger's homogeneity (1948), the covariance
    over the largest that the prevalences allow, is then 0.9 or more, and the excess of joint rows is five standard
    deviations or more above what chance gives.

    Args:
        present: which row has which concept, of shape `(n, m)`; `(m, m)` must fit in memory.
        ids: class ids, of shape `(n,)`.
        classes: how many classes there are.
    """
    table = sparse.csr_matrix(present, dtype=np.float64)
    covariance, largest, chance = np.zeros((3, table.shape[1], table.shape[1]))
    order = np.argsort(ids, kind="stable")
    for own in np.split(order, np.searchsorted(ids[order], np.arange(1, classes))):
        rows = table[own]
        n, hits = max(rows.shape[0], 1), np.asarray(rows.sum(axis=0)).ravel()
        covariance += (rows.T @ rows).toarray() - np.outer(hits, hits) / n
        fewer, more = np.minimum.outer(hits, hits), np.maximum.outer(hits, hits)
        largest += fewer * (1 - more / n)
        chance += np.outer(hits * (1 - hits / n), hits * (1 - hits / n)) / n
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    with np.errstate(divide="ignore", invalid="ignore"):
        contained = (covariance / largest >= CONTAINED) & (covariance / np.sqrt(chance) >= SURE)
    linked = (np.abs(covariance / np.outer(deviation, deviation)) >= SAME) | contained
    return connected_components(sparse.csr_matrix(linked), directed=False)[1]
