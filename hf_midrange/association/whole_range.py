"""The whole range as one more place to look: concepts too rare to show in any single band.

A band holds a part of the rows, and a rare phrase a few of these; the rank of every row that has the phrase says more.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from scipy import sparse, special

from hf_midrange.association.details import Halves, range_columns, sides
from hf_midrange.association.ranks import Shift, label_ranks, rows_with, stratified_shift
from hf_midrange.association.stratified import OddsRatios
from hf_midrange.association.testing import Options, Problem, power_at


def range_p_values(problem: Problem, values: Iterable[tuple[int, np.ndarray]], options: Options) -> np.ndarray:
    """Return two-sided p-values of no shift within any label, of shape `(U, m)`; NaN where not tested.

    Args:
        problem: the rows to test on.
        values: units, each with its values over all rows of the data.
        options: as given to `associate`.
    """
    p = np.full((len(problem.members), problem.present.shape[1]), np.nan)
    everything = _Half(problem)
    for unit, whole in values:
        defined = problem.unit_bands(unit) >= 0
        half = everything if defined.all() else _Half(problem.rows(defined))
        p[unit] = half.shift(whole, np.ones(problem.classes, dtype=bool), options.least).p
    return p


class _Half:
    """Rows whose units are ranked in turn: what is the same for all units is made once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.present = sparse.csc_matrix(problem.present, dtype=np.float64)
        self.with_concept = rows_with(self.present, problem.ids, problem.classes)

    def shift(self, whole: np.ndarray, strata: np.ndarray, least: int) -> Shift:
        ids = self.problem.ids
        ranked = label_ranks(whole[self.problem.at], ids, self.problem.classes)
        return stratified_shift(ranked, ids, self.present, strata, least, self.with_concept)

    def informative(self) -> np.ndarray:
        """Return where some rows of a label have the concept and some lack it, boolean of shape `(C, m)`."""
        rows = np.bincount(self.problem.ids, minlength=self.problem.classes)[:, None]
        return (self.with_concept > 0) & (self.with_concept < rows)


def generalised_odds(shift: Shift, confidence: float = 0.95) -> OddsRatios:
    """Return the odds that a row with the concept stands above one of the same label without it.

    Agresti's (1980) generalised odds ratio `auc / (1 - auc)`, with the test-based interval of Miettinen (1976): its
    logarithm is divided by as many standard errors as the rank test saw. Where `auc` is 0 or 1 the interval is open
    at that end, and its other end is that of .001 or .999.
    """
    z = special.ndtri(0.5 + confidence / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = shift.auc / (1 - shift.auc)
        log = special.logit(np.clip(shift.auc, 0.001, 0.999))
        error = np.where(shift.auc == 0.5, 4 * shift.error, np.abs(log / shift.z))
        low, high = np.exp(log - z * error), np.exp(log + z * error)
    return OddsRatios(ratio, np.where(ratio == 0, 0.0, low), np.where(np.isinf(ratio), np.inf, high))


def range_details(halves: Halves, values: np.ndarray, unit: int, concepts: np.ndarray, options: Options) -> dict:
    """Return the columns of `details.unit_details` for findings over the whole range.

    Args:
        halves: the rows.
        values: the unit's values over all rows, of shape `(n,)`.
        unit: which unit.
        concepts: which concepts, of shape `(t,)`.
        options: as given to `associate`.
    """
    first, second, whole = (_Half(_with_band(half, unit, concepts)) for half in halves)
    everyone = np.ones(halves.whole.classes, dtype=bool)
    found, again = (half.shift(values, everyone, options.least) for half in (first, second))
    ratio = generalised_odds(found)
    columns: dict[str, Any] = {
        "odds_ratio": ratio.ratio,
        "ci_low": ratio.low,
        "ci_high": ratio.high,
        "odds_ratio_confirm": generalised_odds(again).ratio,
        "p_confirm": again.p,
        "power": power_at(1 / (4 * again.error) ** 2, options.alpha),
        "homogeneity_p": np.full(len(concepts), np.nan),
        "strata_dropped": (~whole.informative()).sum(0),
    }
    for name, strata in sides(halves.whole, halves.whole.members[unit]):
        shift = whole.shift(values, strata, options.least)
        ratio = generalised_odds(shift)
        rows = strata[whole.problem.ids].sum()
        columns |= {
            f"{name}_odds_ratio": ratio.ratio,
            f"{name}_ci_low": ratio.low,
            f"{name}_ci_high": ratio.high,
            f"{name}_p": shift.p,
            f"{name}_rows_in_band": np.full(len(concepts), rows),
            f"{name}_rows_with_concept_in_band": whole.with_concept[strata].sum(0).astype(np.int64),
        }
    return columns | range_columns(halves, values, unit, concepts, options)


def _with_band(problem: Problem, unit: int, concepts: np.ndarray) -> Problem:
    """Return the rows where the unit has a band, with some concepts alone."""
    narrow = problem._replace(present=problem.present[:, concepts])  # first the few concepts, then the many rows
    return narrow.rows(problem.unit_bands(unit) >= 0)
