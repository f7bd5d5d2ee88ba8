"""The second pass: everything reported about the tests that were discovered."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from hf_midrange.association.profile import equal_bins, profile
from hf_midrange.association.ranks import RankedRows, generalised_odds
from hf_midrange.association.screening import Level, Problem, p_values, power_at, tables_of
from hf_midrange.association.tables import (
    Tables,
    cochran_mantel_haenszel,
    moments,
    orient,
    pooled_odds_ratio,
    testable_sides,
)


PROFILE = ("auc", "profile", "profile_low", "profile_high", "shape")
"""What is said of either side's whole range."""


class Halves(NamedTuple):
    """The same problem on the rows of either half, and on all rows."""

    discovery: Problem
    confirmation: Problem
    whole: Problem


def unit_details(halves: Halves, values: np.ndarray, unit: int, tests: np.ndarray, level: Level) -> dict[str, Any]:
    """Return the columns of one unit's discovered tests in bands.

    Args:
        halves: the rows.
        values: the unit's values, or anything that orders rows like them, over all rows, of shape `(n,)`.
        unit: which unit.
        tests: pairs (band, concept), of shape `(t, 2)`.
        level: as given to `associate`.
    """
    member, top = halves.whole.members[unit], halves.whole.number - 1
    first, second, whole = (tables_of(half, unit, tests) for half in halves)
    tested = testable_sides(first, member).both()
    found, again = (orient(tables.kept(tested), member, tests[:, 0], top) for tables in (first, second))
    ratio = pooled_odds_ratio(found)
    columns = {
        "odds_ratio": ratio.ratio,
        "ci_low": ratio.low,
        "ci_high": ratio.high,
        "odds_ratio_confirm": pooled_odds_ratio(again).ratio,
        "p_confirm": p_values(again, level),
        "power": power_at(moments(again)[1], level.alpha),
    }
    sides = testable_sides(whole, member)
    for name, side in (("member", sides.members), ("stranger", sides.strangers)):
        columns |= _of_side(name, whole.kept(side), level)
    return columns | _whole_range(halves, values, member, tests[:, 1])


def range_details(halves: Halves, values: np.ndarray, unit: int, concepts: np.ndarray, level: Level) -> dict[str, Any]:
    """Return the columns of `unit_details` for findings over the whole range.

    Args:
        halves: the rows.
        values: the unit's values over all rows, of shape `(n,)`.
        unit: which unit.
        concepts: which concepts, of shape `(t,)`.
        level: as given to `associate`.
    """
    member = halves.whole.members[unit]
    parts = [half.of_concepts(concepts).rows(half.unit_bands(unit) >= 0) for half in halves]
    ranked = [RankedRows.of(part.ids, part.classes, part.present) for part in parts]
    placed = [values[part.at] for part in parts]
    found, again = (ranked[k].shift(placed[k]) for k in (0, 1))
    ratio = generalised_odds(found)
    columns: dict[str, Any] = {
        "odds_ratio": ratio.ratio,
        "ci_low": ratio.low,
        "ci_high": ratio.high,
        "odds_ratio_confirm": generalised_odds(again).ratio,
        "p_confirm": again.p,
        "power": power_at(1 / (4 * again.error) ** 2, level.alpha),
    }
    for name, strata in _labels_of_sides(halves.whole, member):
        shift = ranked[2].shift(placed[2], strata)
        ratio = generalised_odds(shift)
        columns |= {f"{name}_{key}": value for key, value in zip(_EFFECT, (*ratio, shift.p), strict=True)}
    return columns | _whole_range(halves, values, member, concepts)


_EFFECT = ("odds_ratio", "ci_low", "ci_high", "p")


def _of_side(name: str, kept: Tables, level: Level) -> dict[str, np.ndarray]:
    """Return one side's own effect over all rows: presence of the concept in the band."""
    p = p_values(kept, level) if kept.a.any() else cochran_mantel_haenszel(kept)
    return {f"{name}_{key}": value for key, value in zip(_EFFECT, (*pooled_odds_ratio(kept), p), strict=True)}


def _labels_of_sides(problem: Problem, member: int | None) -> tuple[tuple[str, np.ndarray], ...]:
    """Return each side's labels, boolean of shape `(C,)`."""
    own = np.zeros(problem.classes, dtype=bool)
    if member is not None:
        own[member] = True
    return ("member", own), ("stranger", ~own)


def _whole_range(halves: Halves, values: np.ndarray, member: int | None, concepts: np.ndarray) -> dict[str, Any]:
    """Return what is said of either side's whole range, whichever band the finding is of; None where it is empty.

    How far each concept shifts either side (`z_confirm`) is seen on rows that took no part in discovery.
    """
    kept, where = np.unique(concepts, return_inverse=True)
    half, whole = (part.of_concepts(kept) for part in (halves.confirmation, halves.whole))
    again, ranked = (RankedRows.of(part.ids, part.classes, part.present) for part in (half, whole))
    columns: dict[str, Any] = {}
    for name, strata in _labels_of_sides(whole, member):
        columns[f"{name}_z_confirm"] = again.shift(values[half.at], strata).z[where]
        made: list[dict[str, Any]] = [dict.fromkeys(PROFILE) for _ in kept]
        side = strata[whole.ids]
        if side.any():
            shift, bins = ranked.shift(values, strata, least=1), equal_bins(values[side])
            for j in range(len(kept)):
                found = profile(bins, _column(ranked.present, j)[side])
                told = (shift.auc[j], found.prevalence, found.low, found.high, found.shape)
                made[j] = dict(zip(PROFILE, told, strict=True))
        columns |= {f"{name}_{key}": [made[j][key] for j in where] for key in PROFILE}
    return columns


def _column(table: sparse.csc_matrix, j: int) -> np.ndarray:
    has = np.zeros(table.shape[0], dtype=bool)
    has[table.indices[table.indptr[j] : table.indptr[j + 1]]] = True
    return has
