"""The second pass: everything reported about the tests that were discovered."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from hf_midrange.association.profile import Profile, equal_bins, profile
from hf_midrange.association.ranks import label_ranks, stratified_shift
from hf_midrange.association.sides import Sides, orient, testable_sides
from hf_midrange.association.stratified import (
    Tables,
    cochran_mantel_haenszel,
    equal_odds,
    moments,
    pooled_odds_ratio,
)
from hf_midrange.association.testing import Options, Problem, p_values, power_at, tables_of


RANGE = ("auc", "auc_p", "profile", "profile_low", "profile_high", "shape", "trend_p", "hump_p")
"""What is said of either side's whole range."""


class Halves(NamedTuple):
    """The same problem on the rows of either half, and on all rows."""

    discovery: Problem
    confirmation: Problem
    whole: Problem


def unit_details(halves: Halves, values: np.ndarray, unit: int, tests: np.ndarray, options: Options) -> dict:
    """Return the columns of one unit's discovered tests.

    Args:
        halves: the rows.
        values: the unit's values, or anything that orders rows like them, over all rows, of shape `(n,)`.
        unit: which unit.
        tests: pairs (band, concept), of shape `(t, 2)`.
        options: as given to `associate`.
    """
    member, top = halves.whole.members[unit], halves.whole.number - 1
    first, second, whole = (tables_of(half, unit, tests) for half in halves)
    testable = testable_sides(first, member, options.least)
    oriented = [orient(tables.kept(testable.both()), member, tests[:, 0], top) for tables in (first, second)]
    found, again = (pooled_odds_ratio(tables) for tables in oriented)
    effects = {
        "odds_ratio": found.ratio,
        "ci_low": found.low,
        "ci_high": found.high,
        "odds_ratio_confirm": again.ratio,
        "p_confirm": p_values(oriented[1], options),
        "power": power_at(moments(oriented[1])[1], options.alpha),
    }
    return {
        **effects,
        **_side_effects(whole, testable_sides(whole, member, options.least), options),
        **_counts(whole, member),
        **range_columns(halves, values, unit, tests[:, 1], options),
    }


def range_columns(halves: Halves, values: np.ndarray, unit: int, concepts: np.ndarray, options: Options) -> dict:
    """Return what is said of either side's whole range, whichever band the finding is of."""
    member = halves.whole.members[unit]
    return {
        **_confirmed_shifts(halves.confirmation, values, member, concepts, options),
        **_whole_range(halves.whole, values, member, concepts),
    }


def _side_effects(whole: Tables, testable: Sides, options: Options) -> dict[str, Any]:
    """Return each side's own effect over all rows: presence of the concept in the band."""
    effects: dict[str, Any] = {}
    for name, side in (("member", testable.members), ("stranger", testable.strangers)):
        kept = whole.kept(side)
        ratio = pooled_odds_ratio(kept)
        effects |= {f"{name}_odds_ratio": ratio.ratio, f"{name}_ci_low": ratio.low, f"{name}_ci_high": ratio.high}
        effects[f"{name}_p"] = _two_sided(kept, options)
    return effects | {"homogeneity_p": equal_odds(whole.kept(testable.strangers))}


def _two_sided(tables: Tables, options: Options) -> np.ndarray:
    return p_values(tables, options) if tables.a.any() else cochran_mantel_haenszel(tables)


def _counts(whole: Tables, member: int | None) -> dict[str, np.ndarray]:
    own = np.zeros(whole.a.shape, dtype=bool)
    if member is not None:
        own[member] = True
    counts = {}
    for name, side in (("member", own), ("stranger", ~own)):
        kept = whole.kept(side)
        counts[f"{name}_rows_in_band"] = kept.in_band.sum(0).astype(np.int64)
        counts[f"{name}_rows_with_concept_in_band"] = kept.a.sum(0).astype(np.int64)
    counts["strata_dropped"] = (~whole.informative()).sum(0)
    return counts


def sides(problem: Problem, member: int | None) -> tuple[tuple[str, np.ndarray], ...]:
    """Return each side's labels, boolean of shape `(C,)`."""
    own = np.zeros(problem.classes, dtype=bool)
    if member is not None:
        own[member] = True
    return ("member", own), ("stranger", ~own)


def _confirmed_shifts(
    half: Problem, values: np.ndarray, member: int | None, concepts: np.ndarray, options: Options
) -> dict[str, np.ndarray]:
    """Return how each concept shifts either side over the whole range, on rows that took no part in discovery."""
    kept, where = np.unique(concepts, return_inverse=True)
    ranked, table = label_ranks(values[half.at], half.ids, half.classes), half.present[:, kept].tocsc()
    return {
        f"{name}_z_confirm": stratified_shift(ranked, half.ids, table, strata, options.least).z[where]
        for name, strata in sides(half, member)
    }


def _whole_range(whole: Problem, values: np.ndarray, member: int | None, concepts: np.ndarray) -> dict[str, list]:
    """Return profiles and rank tests over each side's whole range; None where the side is empty."""
    kept, where = np.unique(concepts, return_inverse=True)
    table, ranked = whole.present[:, kept].tocsc(), label_ranks(values, whole.ids, whole.classes)
    found: dict[str, list] = {}
    for name, strata in sides(whole, member):
        made: list[dict[str, Any]] = [dict.fromkeys(RANGE) for _ in kept]
        side = strata[whole.ids]
        if side.any():
            shift, bins = stratified_shift(ranked, whole.ids, table, strata), equal_bins(values[side])
            made = [
                _of_range(profile(bins, _column(table, j)[side]), shift.auc[j], shift.p[j]) for j in range(len(kept))
            ]
        found |= {f"{name}_{key}": [made[j][key] for j in where] for key in RANGE}
    return found


def _of_range(shape: Profile, auc: float, p: float) -> dict[str, Any]:
    return {
        "auc": auc,
        "auc_p": p,
        "profile": shape.prevalence,
        "profile_low": shape.low,
        "profile_high": shape.high,
        "shape": shape.shape,
        "trend_p": shape.trend_p,
        "hump_p": shape.hump_p,
    }


def _column(table: sparse.csc_matrix, j: int) -> np.ndarray:
    has = np.zeros(table.shape[0], dtype=bool)
    has[table.indices[table.indptr[j] : table.indptr[j + 1]]] = True
    return has
