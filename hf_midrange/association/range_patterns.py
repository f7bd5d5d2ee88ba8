"""What a finding looks like over the whole range: confounder, hardness, or core."""

from __future__ import annotations

import numpy as np
from scipy import special

from hf_midrange.association.screening import adjusted


def range_patterns(members: np.ndarray, strangers: np.ndarray, alpha: float) -> np.ndarray:
    """Return `confounder`, `hardness`, `core` or `none` for each pair of a unit and a concept, of shape `(t,)`.

    A claim about two sides is as significant as the weaker of its two one-sided tests (intersection-union; Berger
    1982); each kind of claim is adjusted over all pairs. The whole range is read, not the middle band alone, since a
    tie can be so strong that it carries strangers past the middle, into the top.

    Args:
        members: how far the concept raises the unit in its members, as a standard normal statistic; NaN if untestable.
        strangers: the same in strangers; NaN where they nearly never or nearly always have the concept.
        alpha: level.
    """
    raised, lowered, raised_strangers = special.ndtr(-members), special.ndtr(members), special.ndtr(-strangers)
    alone = np.isnan(strangers)
    claims = {
        "confounder": np.maximum(raised, raised_strangers),
        "hardness": np.maximum(lowered, raised_strangers),
        "core": np.where(alone, raised, np.nan),
    }
    shown = [adjusted(p) <= alpha for p in claims.values()]
    return np.select(shown, list(claims), "none")


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
