"""The second pass: everything reported about the tests that were discovered."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy import special

from hf_midrange.association.counting import occurrences
from hf_midrange.association.profile import profile
from hf_midrange.association.sides import Sides, orient, signatures, testable_sides
from hf_midrange.association.stratified import (
    Tables,
    cochran_mantel_haenszel,
    equal_odds,
    moments,
    pooled_odds_ratio,
)
from hf_midrange.association.testing import Options, Problem, p_values, unit_counts


class Halves(NamedTuple):
    """The same problem on the rows of either half, and on all rows."""

    discovery: Problem
    confirmation: Problem
    whole: Problem


def unit_details(halves: Halves, ranks: np.ndarray | None, unit: int, tests: np.ndarray, options: Options) -> dict:
    """Return the columns of one unit's discovered tests.

    Args:
        halves: the rows.
        ranks: the unit's values or ranks over all rows, of shape `(n,)`, or None: then there are no profiles.
        unit: which unit.
        tests: pairs (band, concept), of shape `(t, 2)`.
        options: as given to `associate`.
    """
    member, top = halves.whole.members[unit], halves.whole.number - 1
    first, second, whole = (_tables(half, unit, tests) for half in halves)
    sides = testable_sides(first, member, options.least)
    oriented = [orient(tables.kept(sides.both()), member, tests[:, 0], top) for tables in (first, second)]
    found, again = (pooled_odds_ratio(tables) for tables in oriented)
    effects = {
        "odds_ratio": found.ratio,
        "ci_low": found.low,
        "ci_high": found.high,
        "odds_ratio_confirm": again.ratio,
        "p_confirm": p_values(oriented[1], options),
        "power": power_at(oriented[1], options.alpha),
    }
    middle = (tests[:, 0] > 0) & (tests[:, 0] < top)
    return {
        **effects,
        **_side_effects(whole, testable_sides(whole, member, options.least), middle, options),
        **_counts(whole, member),
        **_profiles(halves.whole, ranks, member, tests[:, 1]),
    }


def power_at(tables: Tables, alpha: float, odds_ratio: float = 3.0) -> np.ndarray:
    """Return the chance that these rows show a true odds ratio of 3 at level alpha, in the normal approximation."""
    return special.ndtr(np.log(odds_ratio) * np.sqrt(moments(tables)[1]) - special.ndtri(1 - alpha / 2))


def _tables(problem: Problem, unit: int, tests: np.ndarray) -> Tables:
    """Return tables of shape `(C, t)`, one test after another."""
    wanted, column = np.unique(tests[:, 1], return_inverse=True)
    narrow = problem._replace(present=problem.present[:, wanted])
    counts, found = unit_counts(narrow, unit, occurrences(narrow.present, narrow.ids, narrow.classes))
    per_band = [counts.tables(band, found) for band in range(problem.number)]
    return Tables(*(np.stack(parts)[tests[:, 0], :, column].T for parts in zip(*per_band, strict=True)))


def _side_effects(whole: Tables, sides: Sides, middle: np.ndarray, options: Options) -> dict[str, Any]:
    """Return each side's own effect (presence of the concept in the band), and the signature the two make."""
    effects: dict[str, Any] = {}
    signs = []
    for name, side in (("member", sides.members), ("stranger", sides.strangers)):
        kept = whole.kept(side)
        ratio, p = pooled_odds_ratio(kept), _two_sided(kept, options)
        effects |= {f"{name}_odds_ratio": ratio.ratio, f"{name}_ci_low": ratio.low, f"{name}_ci_high": ratio.high}
        effects[f"{name}_p"] = p
        signs.append(np.where(p <= options.alpha, np.sign(moments(kept)[0]), 0))
    effects["homogeneity_p"] = equal_odds(whole.kept(sides.strangers))
    untested = np.asarray(~sides.strangers.any(axis=0))
    effects["signature"] = signatures(middle, signs[0], signs[1], untested)
    return effects


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


def _profiles(whole: Problem, ranks: np.ndarray | None, member: int | None, concepts: np.ndarray) -> dict[str, list]:
    """Return prevalence profiles, one list of bins per test; None where the side is empty or there are no ranks."""
    columns: dict[str, list] = {}
    made: dict[tuple[str, int], Any] = {}
    member_rows = whole.ids == member if member is not None else np.zeros(len(whole.ids), dtype=bool)
    table = whole.present.tocsc()
    for name, side in (("member", member_rows), ("stranger", ~member_rows)):
        for concept in np.unique(concepts):
            if ranks is not None and side.any():
                has = np.zeros(len(side), dtype=bool)
                has[table.indices[table.indptr[concept] : table.indptr[concept + 1]]] = True
                made[name, concept] = profile(ranks[side], has[side])
        chosen = [made.get((name, concept)) for concept in concepts]
        columns[f"{name}_profile"] = [None if one is None else one.prevalence for one in chosen]
        columns[f"{name}_profile_low"] = [None if one is None else one.low for one in chosen]
        columns[f"{name}_profile_high"] = [None if one is None else one.high for one in chosen]
        columns[f"{name}_shape"] = [None if one is None else one.shape for one in chosen]
    return columns
