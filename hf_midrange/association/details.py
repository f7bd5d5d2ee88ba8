"""The second pass: everything reported about the tests that were discovered.

All of it comes from the confirmation half, which had no part in choosing the tests: figures of the half that chose
them would be too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse, special

from hf_midrange.association.clusters import as_normal, clustered_log_error
from hf_midrange.association.doubts import Doubts
from hf_midrange.association.profile import fifths, profile
from hf_midrange.association.ranks import RankedRows, areas, column_of, generalised_odds, label_ranks
from hf_midrange.association.screening import (
    Level,
    Pooled,
    Problem,
    Scores,
    margins_of,
    p_values,
    power_at,
    unit_scores,
)
from hf_midrange.association.tables import (
    OddsRatios,
    Tables,
    cell_tables,
    orient,
    pooled_odds_ratio,
    signs,
)


PROFILE = ("auc", "profile", "profile_low", "profile_high", "shape")
"""What is said of either side's whole range."""

_EFFECT = ("odds_ratio", "ci_low", "ci_high")

COLUMNS = (
    *_EFFECT,
    *(
        "odds_ratio_discovery",
        "p_confirm",
        "power",
        "effective_rows",
        "p_beyond_top",
        "rows_set_aside",
        "strangers_with_it",
    ),
    *(f"{side}_{name}" for side in ("member", "stranger") for name in (*_EFFECT, "p", "z_confirm", *PROFILE)),
)
"""What `details_of` returns."""


class Halves(NamedTuple):
    """The same problem on the rows of either half, and on all rows."""

    discovery: Problem
    confirmation: Problem
    whole: Problem


class UnitRows(NamedTuple):
    """The rows of one half in which a unit has a band, with the concepts of its findings."""

    problem: Problem
    bands: np.ndarray
    present: sparse.csc_matrix
    scores: Scores
    member: int | None

    @classmethod
    def of(cls, half: Problem, unit: int, concepts: np.ndarray) -> UnitRows:
        """Return the rows of a half."""
        bands = half.unit_bands(unit)
        rows = half.of_concepts(concepts).rows(bands >= 0)
        bands = bands[bands >= 0]
        scores = unit_scores(bands, margins_of(rows), rows.number, half.members[unit])
        return cls(rows, bands, rows.present.tocsc(), scores, half.members[unit])

    @property
    def ids(self) -> np.ndarray:
        """The label of each row."""
        return self.problem.ids

    def tables(self, tests: np.ndarray) -> Tables:
        """Return the tables of some tests, pairs (band, concept), of shape `(C, t)`."""
        return cell_tables(self.bands, self.ids, self.problem.classes, self.present, tests)

    def strata(self, members: np.ndarray, strangers: np.ndarray) -> np.ndarray:
        """Return which labels take part in each test, `(C, t)`, given which sides do, `(t,)` each."""
        chosen = np.repeat(strangers[None], self.problem.classes, axis=0)
        if self.member is not None:
            chosen[self.member] = members
        return chosen

    def odds_ratios(self, tables: Tables, absence: np.ndarray, tests: np.ndarray) -> OddsRatios:
        """Return pooled odds ratios with intervals, by source where rows share them.

        Args:
            tables: the tables of `tests`, turned, strata that take no part emptied.
            absence: where the concept's absence is counted, boolean of shape `(C, t)`.
            tests: pairs (band, concept).
        """
        plain = pooled_odds_ratio(tables)
        if self.problem.sources is None:
            return plain
        errors, quantiles = np.empty((2, len(tests)))
        for j, (band, concept) in enumerate(tests):
            has = column_of(self.present, concept) ^ absence[self.ids, j]
            one = tables.pick(np.array([j]))
            errors[j], number = clustered_log_error(
                one, plain.ratio[j], self.bands == band, has, self.ids, self.problem.sources
            )
            quantiles[j] = special.stdtrit(max(number - 1, 1), 0.975)
        finite = np.isfinite(errors)
        with np.errstate(over="ignore", invalid="ignore"):
            low, high = (plain.ratio * np.exp(sign * quantiles * errors) for sign in (-1, 1))
        return OddsRatios(plain.ratio, np.where(finite, low, plain.low), np.where(finite, high, plain.high))

    def row_scores(self, band: int, concept: int, strata: np.ndarray) -> np.ndarray:
        """Return what each row adds to the oriented excess of one test over some labels, `(C,)` bool; `(n,)`."""
        own = np.arange(self.problem.classes) == (-1 if self.member is None else self.member)
        turned = np.where(own, *signs(np.array(band), self.problem.number - 1)) * strata
        parts = (_centred(values, self.ids) for values in (self.bands == band, column_of(self.present, concept)))
        return turned[self.ids] * np.prod(list(parts), axis=0)


def without_doubts(
    halves: Halves, doubts: Doubts | None, concepts: np.ndarray
) -> list[tuple[Halves, np.ndarray, int]]:
    """Return the halves for each concept: without the rows that are set aside when it is tested.

    Args:
        halves: all rows.
        doubts: the rows whose label is suspected, if there are any.
        concepts: those of the findings.

    Returns:
        Halves of which some rows that confirm are set aside, the concepts that they are for, and how many those are.
    """
    if doubts is None:
        return [(halves, concepts, 0)]
    groups: dict[bytes, list[int]] = {}
    for concept in concepts:
        groups.setdefault(doubts.aside(concept).tobytes(), []).append(concept)
    found = []
    for rows, some in groups.items():
        kept = ~np.isin(halves.confirmation.at, np.frombuffer(rows, dtype=np.int64))
        left = halves._replace(confirmation=halves.confirmation.rows(kept)) if not kept.all() else halves
        found.append((left, np.array(some), int((~kept).sum())))
    return found


def details_of(
    kept: Sequence[tuple[Halves, np.ndarray, int]], values: np.ndarray, unit: int, tests: np.ndarray, level: Level
) -> dict[str, list]:
    """Return the columns of one unit's discovered tests.

    Args:
        kept: what `without_doubts` returned.
        values: the unit's values, or anything that orders rows like them, over all rows, of shape `(n,)`.
        unit: which unit.
        tests: pairs (band, concept), of shape `(t, 2)`; the band after the highest is the whole range.
        level: as given to `associate`.
    """
    at: list[int] = []
    columns: dict[str, list] = {name: [] for name in COLUMNS}
    for halves, concepts, number in kept:
        mine = np.isin(tests[:, 1], concepts)
        whole = tests[:, 0] == halves.whole.number
        for some, ranged in ((np.flatnonzero(mine & ~whole), False), (np.flatnonzero(mine & whole), True)):
            if not some.size:
                continue
            make = range_details if ranged else unit_details
            found = make(halves, values, unit, tests[some, 1] if ranged else tests[some], level)
            at += some.tolist()
            for name, column in (found | {"rows_set_aside": [number] * len(some)}).items():
                columns[name] += list(column)
    return {name: [column[i] for i in np.argsort(at)] for name, column in columns.items()}


def unit_details(halves: Halves, values: np.ndarray, unit: int, tests: np.ndarray, level: Level) -> dict[str, Any]:
    """Return the columns of one unit's discovered tests in bands.

    Args:
        halves: the rows.
        values: the unit's values, or anything that orders rows like them, over all rows, of shape `(n,)`.
        unit: which unit.
        tests: pairs (band, concept), of shape `(t, 2)`.
        level: as given to `associate`.
    """
    kept, column = np.unique(tests[:, 1], return_inverse=True)
    narrow = np.column_stack([tests[:, 0], column.reshape(-1)])
    at, top = tuple(narrow.T), halves.whole.number - 1
    first, again = (UnitRows.of(half, unit, kept) for half in halves[:2])
    tested = first.scores.members.tested, first.scores.strangers.tested
    strata = first.strata(*(side[at] for side in tested))
    members, strangers = signs(narrow[:, 0], top)
    absence = again.strata(members < 0, strangers < 0)
    found, seen = (orient(rows.tables(narrow).kept(strata), rows.member, narrow[:, 0], top) for rows in (first, again))
    pooled = again.scores.pooled(*tested)
    columns: dict[str, Any] = dict(zip(_EFFECT, again.odds_ratios(seen, absence, narrow), strict=True))
    columns |= {
        "odds_ratio_discovery": pooled_odds_ratio(found).ratio,
        "p_confirm": p_values(seen, level) if again.problem.sources is None else pooled.p[at],
        "power": pooled.power(level.alpha)[at],
        "effective_rows": _effective_rows(pooled)[at] * len(again.ids),
    }
    nothing = np.zeros(strata.shape, dtype=bool)
    own = again.scores.members.tested, again.scores.strangers.tested
    for name, sides in (("member", (own[0], own[1] & False)), ("stranger", (own[0] & False, own[1]))):
        kept_tables = again.tables(narrow).kept(again.strata(*(side[at] for side in sides)))
        ratio = again.odds_ratios(kept_tables, nothing, narrow)
        columns |= {f"{name}_{key}": value for key, value in zip(_EFFECT, ratio, strict=True)}
        alone = again.scores.pooled(*sides)
        columns[f"{name}_p"] = p_values(kept_tables, level) if again.problem.sources is None else alone.p[at]
    columns["p_beyond_top"] = [
        _beyond_top(first, again, tested, strata[:, j], (int(band), int(concept)))
        for j, (band, concept) in enumerate(narrow)
    ]
    return columns | _whole_range(halves, values, unit, tests[:, 1])


def range_details(halves: Halves, values: np.ndarray, unit: int, concepts: np.ndarray, level: Level) -> dict[str, Any]:
    """Return the columns of `unit_details` for findings over the whole range.

    Args:
        halves: the rows.
        values: the unit's values over all rows, of shape `(n,)`.
        unit: which unit.
        concepts: which concepts, of shape `(t,)`.
        level: as given to `associate`.
    """
    first, again = (UnitRows.of(half, unit, concepts) for half in halves[:2])
    shifts = [_ranked(rows.problem).shift(values[rows.problem.at]) for rows in (first, again)]
    everyone = np.ones(halves.whole.classes, dtype=bool)
    columns: dict[str, Any] = dict(zip(_EFFECT, _standing_above(again.problem, values, everyone), strict=True))
    design = np.ones(len(concepts))
    if again.problem.sources is not None:
        plain = _ranked(again.problem._replace(sources=None)).shift(values[again.problem.at])
        design = (shifts[1].error / plain.error) ** 2
    columns |= {
        "odds_ratio_discovery": np.exp(special.logit(shifts[0].auc)),
        "p_confirm": shifts[1].p,
        "power": power_at(1 / (4 * shifts[1].error) ** 2, level.alpha),
        "effective_rows": len(again.ids) / design,
    }
    for name, strata in _labels_of_sides(halves.whole, unit):
        ratio = _standing_above(again.problem, values, strata)
        columns |= {f"{name}_{key}": value for key, value in zip(_EFFECT, ratio, strict=True)}
        columns[f"{name}_p"] = _ranked(again.problem).shift(values[again.problem.at], strata).p
    columns["p_beyond_top"] = [
        _beyond_top(first, again, (first.scores.members.tested, first.scores.strangers.tested), everyone, j, values)
        for j in range(len(concepts))
    ]
    return columns | _whole_range(halves, values, unit, concepts)


def _standing_above(half: Problem, values: np.ndarray, strata: np.ndarray) -> OddsRatios:
    """Return the odds of standing above, with intervals, over some labels; NaN where these are too few rows."""
    shift = _ranked(half).shift(values[half.at], strata)
    found = areas(values[half.at], half.ids, half.present.tocsc(), strata, _numbered(half.sources))
    untested = np.isnan(shift.auc)
    return OddsRatios(*(np.where(untested, np.nan, part) for part in generalised_odds(found, shift.error)))


def _beyond_top(
    first: UnitRows,
    again: UnitRows,
    tested: tuple[np.ndarray, np.ndarray],
    strata: np.ndarray,
    test: tuple[int, int] | int,
    values: np.ndarray | None = None,
) -> float | None:
    """Return the one-sided p-value that the finding is stronger than what the top band alone shows of its concept.

    Both statistics are standardised sums over the same rows of the confirmation half; their difference is tested by
    the spread of what each row, or source, adds to it. Which way each of them points is taken from the other half.
    None for findings of the top band.

    Args:
        first: the discovery half.
        again: the confirmation half.
        tested: which sides the discovery half could test, `(B, m)` each.
        strata: which labels take part in the finding's test, boolean of shape `(C,)`.
        test: band and concept, or the concept of a finding over the whole range.
        values: the unit's values over all rows, for the whole range.
    """
    top = again.problem.number - 1
    band, concept = (None, test) if isinstance(test, int) else test
    if band == top:
        return None
    at_top = again.strata(*(side[top, [concept]] for side in tested))[:, 0]
    parts = []
    for rows in (first, again):
        at = rows.row_scores(top, concept, at_top)
        if band is None:
            assert values is not None
            own = _rank_scores(rows, values, concept, strata)
        else:
            own = rows.row_scores(band, concept, strata)
        parts.append([own, at])
    difference = np.zeros(len(again.ids))
    for sign, before, now in ((1, parts[0][0], parts[1][0]), (-1, parts[0][1], parts[1][1])):
        spread = np.sqrt((_by_source(now, again.problem.sources) ** 2).sum())
        difference += sign * np.sign(before.sum()) * now / max(spread, 1e-12)
    sums = _by_source(difference, again.problem.sources)
    error = np.sqrt(np.sum((sums - sums.mean()) ** 2))
    number = np.count_nonzero(np.abs(sums) > 1e-12)
    if not error > 0:
        return None
    return float(special.ndtr(-as_normal(np.array(sums.sum() / error), np.array(number))))


def _rank_scores(rows: UnitRows, values: np.ndarray, concept: int, strata: np.ndarray) -> np.ndarray:
    """Return what each row adds to van Elteren's statistic of a concept over some labels, `(n,)`."""
    ranked = label_ranks(values[rows.problem.at], rows.ids, rows.problem.classes)
    weight = strata / (ranked.sizes + 1)
    return (weight[rows.ids] * _centred(ranked.ranks, rows.ids)) * _centred(column_of(rows.present, concept), rows.ids)


def _by_source(parts: np.ndarray, sources: np.ndarray | None) -> np.ndarray:
    return parts if sources is None else np.bincount(_numbered(sources), weights=parts)  # type: ignore[arg-type]


def _numbered(sources: np.ndarray | None) -> np.ndarray | None:
    """Return sources numbered from 0."""
    return None if sources is None else np.unique(sources, return_inverse=True)[1]


def _centred(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return values less their mean within each label."""
    exact = values.astype(np.float64)
    return exact - (np.bincount(ids, weights=exact) / np.maximum(np.bincount(ids), 1))[ids]


def _effective_rows(pooled: Pooled) -> np.ndarray:
    """Return how many independent rows say as much as one of these does; NaN where nothing is tested."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(pooled.robust > 0, pooled.variance / pooled.robust, np.nan)


def _ranked(part: Problem) -> RankedRows:
    return RankedRows.of(part.ids, part.classes, part.present, part.sources)


def _labels_of_sides(problem: Problem, unit: int) -> tuple[tuple[str, np.ndarray], ...]:
    """Return each side's labels, boolean of shape `(C,)`."""
    own, member = np.zeros(problem.classes, dtype=bool), problem.members[unit]
    if member is not None:
        own[member] = True
    return ("member", own), ("stranger", ~own)


def _whole_range(halves: Halves, values: np.ndarray, unit: int, concepts: np.ndarray) -> dict[str, Any]:
    """Return what is said of either side's whole range, whichever band the finding is of; None where it is empty.

    `z_confirm` is how far each concept shifts either side.
    """
    kept, where = np.unique(concepts, return_inverse=True)
    half = halves.confirmation.of_concepts(kept)
    ranked, placed, table = _ranked(half), values[half.at], half.present.tocsc()
    bins = fifths(label_ranks(placed, half.ids, half.classes), half.ids)
    columns: dict[str, Any] = {}
    for name, strata in _labels_of_sides(halves.whole, unit):
        columns[f"{name}_z_confirm"] = ranked.shift(placed, strata).z[where]
        columns["strangers_with_it"] = ranked.with_concept[strata].sum(axis=0)[where]  # those of the last side
        made: list[dict[str, Any]] = [dict.fromkeys(PROFILE) for _ in kept]
        side = strata[half.ids]
        if side.any():
            auc = ranked.shift(placed, strata, least=1).auc
            sources = None if half.sources is None else _numbered(half.sources[side])
            for j in range(len(kept)):
                found = profile(bins[side], half.ids[side], column_of(table, j)[side], sources)
                told = (auc[j], found.prevalence, found.low, found.high, found.shape)
                made[j] = dict(zip(PROFILE, told, strict=True))
        columns |= {f"{name}_{key}": [made[j][key] for j in where] for key in PROFILE}
    return columns
