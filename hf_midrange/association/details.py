"""The second pass: everything reported about the tests that were discovered.

All of it comes from the confirmation half, which had no part in choosing the tests: figures of the half that chose
them would be too large.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import special

from hf_midrange.association.doubts import Doubts
from hf_midrange.association.profile import fifths, profile
from hf_midrange.association.ranks import areas, column_of, generalised_odds, label_ranks
from hf_midrange.association.screening import Level, Problem, UnitRows, centred, power_at
from hf_midrange.association.sources import clustered_log_error
from hf_midrange.association.tables import OddsRatios, Tables, orient, pooled_odds_ratio, signs


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
    narrow, top = np.column_stack([tests[:, 0], column.reshape(-1)]), halves.whole.number - 1
    first, again = (UnitRows.of(half, unit, kept) for half in halves[:2])
    tables = first.tables(narrow), again.tables(narrow)
    tested, own = first.tested_sides(tables[0], narrow), again.tested_sides(tables[1], narrow)
    strata = first.strata(*tested)
    found, seen = (orient(some.kept(strata), first.member, narrow[:, 0], top) for some in tables)
    absence = again.strata(*(side < 0 for side in signs(narrow[:, 0], top)))
    ratio, pooled = _odds_ratios(again, seen, absence, narrow), again.score_test(seen, narrow, tested)
    columns: dict[str, Any] = _named("", ratio) | {
        "odds_ratio_discovery": pooled_odds_ratio(found).ratio,
        "p_confirm": np.maximum(pooled.p(level), ratio.p_beyond(level.smallest)),
        "power": pooled.power(level),
        "effective_rows": pooled.share * len(again.ids),
    }
    nobody = np.zeros(len(tests), dtype=bool)
    for name, sides in (("member_", (own[0], nobody)), ("stranger_", (nobody, own[1]))):
        alone = tables[1].kept(again.strata(*sides))
        columns |= _named(name, _odds_ratios(again, alone, strata & False, narrow))
        columns[f"{name}p"] = again.score_test(alone, narrow, sides).p(level)
    pairs = [
        [rows.row_scores(rows.residuals(band, strata[:, j]), concept) for rows in (first, again)]
        for j, (band, concept) in enumerate(narrow)
    ]
    columns["p_beyond_top"] = _beyond_top(first, again, narrow[:, 1], pairs)
    columns["p_beyond_top"] = np.where(narrow[:, 0] == top, None, columns["p_beyond_top"])
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
    everyone = np.ones(halves.whole.classes, dtype=bool)
    shifts = [rows.part.ranked().shift(values[rows.part.at]) for rows in (first, again)]
    independent = again.part._replace(sources=None).ranked().shift(values[again.part.at])
    ratio = _standing_above(again.part, values, everyone)
    columns: dict[str, Any] = _named("", ratio) | {
        "odds_ratio_discovery": np.exp(special.logit(shifts[0].auc)),
        "p_confirm": np.maximum(shifts[1].p, ratio.p_beyond(level.smallest)),
        "power": power_at(1 / (4 * shifts[1].error) ** 2, level.alpha, level.smallest),
        "effective_rows": len(again.ids) * (independent.error / shifts[1].error) ** 2,
    }
    for name, strata in zip(("member_", "stranger_"), again.labels_of_sides(), strict=True):
        columns |= _named(name, _standing_above(again.part, values, strata))
        columns[f"{name}p"] = again.part.ranked().shift(values[again.part.at], strata).p
    pairs = [[_rank_scores(rows, values, j) for rows in (first, again)] for j in range(len(concepts))]
    columns["p_beyond_top"] = _beyond_top(first, again, np.arange(len(concepts)), pairs)
    return columns | _whole_range(halves, values, unit, concepts)


def _named(side: str, ratio: OddsRatios) -> dict[str, np.ndarray]:
    """Return the columns of an odds ratio with its interval."""
    return {f"{side}odds_ratio": ratio.ratio, f"{side}ci_low": ratio.low, f"{side}ci_high": ratio.high}


def _odds_ratios(rows: UnitRows, tables: Tables, absence: np.ndarray, tests: np.ndarray) -> OddsRatios:
    """Return pooled odds ratios, with errors by source where rows share sources.

    Args:
        rows: those of the tables.
        tables: the tables of `tests`, turned, strata that take no part emptied.
        absence: where the concept's absence is counted, boolean of shape `(C, t)`.
        tests: pairs (band, concept).
    """
    plain = pooled_odds_ratio(tables)
    if rows.part.sources is None:
        return plain
    sources, (errors, freedom) = rows.part.sources.of_rows, np.empty((2, len(tests)))
    for j, (band, concept) in enumerate(tests):
        has = column_of(rows.present, concept) ^ absence[rows.ids, j]
        one = tables.pick(np.array([j]))
        errors[j], number = clustered_log_error(one, plain.ratio[j], rows.bands == band, has, rows.ids, sources)
        freedom[j] = max(number - 1, 1)
    error = np.where(np.isfinite(errors), np.maximum(errors, plain.error), plain.error)
    return plain._replace(error=error, freedom=freedom)


def _standing_above(half: Problem, values: np.ndarray, strata: np.ndarray) -> OddsRatios:
    """Return the odds of standing above over some labels; NaN where these are too few rows."""
    shift = half.ranked().shift(values[half.at], strata)
    sources = None if half.sources is None else half.sources.of_rows
    found = areas(values[half.at], half.ids, half.present.tocsc(), strata, sources)
    made = generalised_odds(found, shift.error)
    nothing = {name: np.where(np.isnan(shift.auc), np.nan, getattr(made, name)) for name in ("ratio", "log", "error")}
    return made._replace(**nothing)


FLIPS, BLOCKS = 1999, 1000
"""How many permutations, and of how many sources, rows or random sets of rows."""


def _beyond_top(
    first: UnitRows, again: UnitRows, concepts: np.ndarray, scores: Sequence[Sequence[np.ndarray]]
) -> list[float | None]:
    """Return one-sided p-values that findings are stronger than what the top band alone shows of their concept.

    Both statistics are sums of what each row of the confirmation half adds to them, in deviations of such sums where
    nothing is there. Which way the finding points is taken from the other half; the top is given the benefit of the
    direction that it has here. Where the finding is not stronger, what a row, or a source, adds to the one can change
    places with what it adds to the other: the difference is compared with those after such permutations at random,
    that is with the signs of the rows' (or sources') differences flipped (Hemerik, Goeman and Finos 2020). None where
    nothing differs.

    Args:
        first: the discovery half.
        again: the confirmation half.
        concepts: the concept of each finding, of shape `(t,)`.
        scores: what each row of either half adds to each finding's own statistic.
    """
    top = again.part.number - 1
    tests = np.column_stack([np.full(len(concepts), top), concepts])
    at_top = again.strata(*first.tested_sides(first.tables(tests), tests))
    sources = None if again.part.sources is None else again.part.sources.of_rows
    found: list[float | None] = []
    for j, own in enumerate(scores):
        beside = again.row_scores(again.residuals(top, at_top[:, j]), concepts[j])
        difference = np.sign(own[0].sum()) * own[1] - np.sign(beside.sum()) * beside
        found.append(_flipped_p(difference if sources is None else np.bincount(sources, difference)))
    return found


def _flipped_p(differences: np.ndarray) -> float | None:
    """Return the one-sided p-value of a sum under random signs, those of random sets together where there are many."""
    parts = differences[np.abs(differences) > 1e-12]
    if not len(parts):
        return None
    if len(parts) > BLOCKS:
        parts = np.bincount(np.random.default_rng(0).permutation(len(parts)) % BLOCKS, parts)
    flipped = _random_signs()[:, : len(parts)] @ parts
    return float((1 + np.count_nonzero(flipped >= parts.sum() - 1e-9)) / (FLIPS + 1))


@cache
def _random_signs() -> np.ndarray:
    return np.random.default_rng(1).choice(np.array([-1.0, 1.0]), (FLIPS, BLOCKS))


def _rank_scores(rows: UnitRows, values: np.ndarray, concept: int) -> np.ndarray:
    """Return what each row adds to van Elteren's statistic of a concept, `(n,)`."""
    ranked = label_ranks(values[rows.part.at], rows.ids, rows.part.classes)
    return rows.row_scores(centred(ranked.ranks, rows.ids) / (ranked.sizes + 1)[rows.ids], concept)


def _whole_range(halves: Halves, values: np.ndarray, unit: int, concepts: np.ndarray) -> dict[str, Any]:
    """Return what is said of either side's whole range, whichever band the finding is of; None where it is empty.

    `z_confirm` is how far each concept shifts either side.
    """
    kept, where = np.unique(concepts, return_inverse=True)
    half = halves.confirmation.of_concepts(kept)
    ranked, placed, table = half.ranked(), values[half.at], half.present.tocsc()
    bins = fifths(label_ranks(placed, half.ids, half.classes), half.ids)
    columns: dict[str, Any] = {}
    own = np.arange(half.classes) == (-1 if half.members[unit] is None else half.members[unit])
    for name, strata in (("member", own), ("stranger", ~own)):
        columns[f"{name}_z_confirm"] = ranked.shift(placed, strata).z[where]
        columns["strangers_with_it"] = ranked.with_concept[strata].sum(axis=0)[where]  # those of the last side
        made: list[dict[str, Any]] = [dict.fromkeys(PROFILE) for _ in kept]
        side = strata[half.ids]
        if side.any():
            auc = ranked.shift(placed, strata, least=1).auc
            sources = None if half.sources is None else half.sources.of_rows[side]
            for j in range(len(kept)):
                found = profile(bins[side], half.ids[side], column_of(table, j)[side], sources)
                told = (auc[j], found.prevalence, found.low, found.high, found.shape)
                made[j] = dict(zip(PROFILE, told, strict=True))
        columns |= {f"{name}_{key}": [made[j][key] for j in where] for key in PROFILE}
    return columns
