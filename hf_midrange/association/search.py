"""`associate`: from bands and concepts to findings."""

from __future__ import annotations

import platform
from collections import Counter
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from hf_midrange.association.details import COLUMNS, Halves, details_of, without_doubts
from hf_midrange.association.doubts import Doubts, doubts_of
from hf_midrange.association.findings import findings_dataset
from hf_midrange.association.inputs import Inputs, read_inputs
from hf_midrange.association.mislabels import Suspects, suspects_in
from hf_midrange.association.ranks import rows_with
from hf_midrange.association.readings import (
    BY_ASSOCIATION,
    BY_MEMBERS,
    BY_TIE,
    CUE,
    NONE,
    NOT_CONFIRMED,
    ONE_SIDED,
    Ties,
    needless_ranges,
    one_row_a_pair,
    range_patterns,
    same_concepts,
    ties,
)
from hf_midrange.association.schema import RANGE
from hf_midrange.association.screening import Level, Problem, Tested, adjusted, p_by_source, range_p_values, test_all
from hf_midrange.association.sources import warn_of_lookalikes
from hf_midrange.association.tables import FEW_CONCEPT, FEW_SOURCES, MINIMUM_ROWS
from hf_midrange.io.blocks import discovery_half
from hf_midrange.processes import Share, share


def associate(
    ds: Dataset,
    *,
    alpha: float = 0.05,
    seed: int = 0,
    distributed: bool = False,
) -> Dataset:
    """Return which concepts go with which band of which unit, most significant first.

    Every concept is tested in every band *within each true label*: the stratum of the unit's own class is the member
    effect, the other labels' strata, pooled by Cochran-Mantel-Haenszel, the stranger effect. Before both are pooled
    they are turned so that `odds_ratio > 1` means "confounded with the class" in every band: presence of the concept
    at the top, absence at the bottom, and in the middle absence in members and presence in strangers. A concept too
    rare to show in any one band is also sought over the whole range, by the ranks of the rows that have it within
    their label. Rows are split in two: `p_value` and `q_value` (over all tests) come from the discovery half,
    `q_confirm` (over what was discovered) from the other.

    Args:
        ds: one split with `label`, `band` (or `logits`, on which default bands are then fitted) and at least one
            `concepts_<source>` column. Rows sharing a `source_id` stay in one half.
        alpha: level of the false-discovery rate and of every side test.
        seed: of the split into halves.
        distributed: divide the units among the processes that a launcher started. Each must call this with the same
            rows, and each gets all findings, the same as those of one process.

    Returns:
        One row per unit, band and concept with `q_value <= alpha`; columns in `findings_schema()`. Of two
        units that are mirror images (two classes) each finding is reported once, for the unit with an odds ratio above
        1: the other says the same, inverted. Both are tested, which leaves `q_value` as it would be with one. Where
        the whole range shows a concept and no band does, `band` is "range" and `odds_ratio` the odds that a row with
        the concept stands above one of the same label without it (Agresti's generalised odds ratio).
        `confirmed`: `q_confirm <= alpha` with the odds ratio on the same side of 1; `q_confirm` is that of an odds
        ratio no further from 1 than 1.25, so that many rows do not confirm what is too small to matter. `reading` says
        what the whole range shows on the confirmation half: `cue` if the concept raises the
        unit in its members and in strangers alike (so that in the middle it is absent in the former and present in the
        latter), `hardness` if it lowers members and raises strangers, `one-sided` if it raises members and hardly any
        stranger has it. A cue can be a shortcut or a part of the class, which no association tells apart: `shortcut`
        and `core` are said by a person or an intervention. `rests_on` says what the reading rests on so far.
        `confounder`: a confirmed cue with an odds ratio above 1, in the middle, or in another band if a tie is so
        strong that the middle shows nothing. `derived` concepts (computed from the embedding) are adjusted in a family
        of their own and never confirmed. What was not tested, and why, is in `provenance(findings)`;
        `findings_schema()` explains every column.

    Raises:
        KeyError, TypeError, ValueError: if columns are missing or unfit, no unit has bands, or an option is wrong.

    Examples:
        >>> findings = associate(bands.transform(annotated), alpha=0.05)      # doctest: +SKIP
        >>> print(findings_table(findings))                                   # doctest: +SKIP
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, but is {alpha}")
    level = Level(alpha)
    inputs = read_inputs(ds)
    problem, shared = inputs.problem, share(distributed)
    _check_same_rows(inputs, shared)
    warn_of_lookalikes(ds, problem.ids, seed)
    half = discovery_half(problem.ids, inputs.source_ids, seed)
    halves = Halves(problem.rows(half), problem.rows(~half), problem)
    units, left_out = _units(inputs)
    tested = _test_together(inputs, halves.discovery, units, level, shared)
    derived = inputs.derived
    q = _q_values(tested.p, derived)
    found = Discovered(np.argwhere(q <= alpha), tested.p, q)
    suspects = suspects_in(inputs.ds, problem.ids)
    doubts = doubts_of(suspects, problem.ids, problem.present, problem.classes)
    details, cuts = _details(inputs, halves, doubts, found.tests, level, shared)
    columns = details | _describe(inputs, found, level)
    columns |= _verdicts(columns, derived[found.tests[:, 2]], level)
    twice = inputs.mirrored()
    order = _order(columns, only_above_one=twice)
    order = order[columns["told"][order]]
    ordered = {name: [values[i] for i in order] for name, values in columns.items()}
    facts = _facts(ds, inputs, halves, suspects, tested, level, seed) | _tests_made(tested, units)
    facts |= {
        "observed_cuts": cuts,
        "units_left_out": left_out,
        "mirrored_findings_dropped": twice,
    }
    return findings_dataset(ordered, facts)


class Discovered(NamedTuple):
    """What the discovery half shows."""

    tests: np.ndarray
    """Unit, band and concept of each discovered test, of shape `(t, 3)`; band `B` is the whole range."""
    p: np.ndarray
    """P-values of everything tested, of shape `(U, B + 1, m)`."""
    q: np.ndarray
    """The same, adjusted."""


def _units(inputs: Inputs) -> tuple[list[int], dict[str, str]]:
    """Return the units to test, and why others are not."""
    left_out = {name: "it has no bands" for name, cut in zip(inputs.unit_names, inputs.cut, strict=True) if not cut}
    if not inputs.cut.any():
        raise ValueError(f"no unit has bands on these rows: {left_out}; fit bands where units know their classes")
    return np.flatnonzero(inputs.cut).tolist(), left_out


def _q_values(p: np.ndarray, derived: np.ndarray) -> np.ndarray:
    """Return adjusted p-values, the last axis being concepts; derived concepts are a family of their own."""
    q = np.full(p.shape, np.nan)
    for family in (derived, ~derived):
        q[..., family] = adjusted(p[..., family])
    return q


def _check_same_rows(inputs: Inputs, shared: Share) -> None:
    seen = shared.gathered((len(inputs.problem.ids), len(inputs.unit_names), len(inputs.names)))
    if len(set(seen)) > 1:
        raise ValueError(f"each process must be given the same rows, but they have (rows, units, concepts) {seen}")


def _test_together(inputs: Inputs, problem: Problem, units: list[int], level: Level, shared: Share) -> Tested:
    """Return the tests of every unit, each process making those of its own; the last band is the whole range."""
    mine = shared.part(units)
    tested = test_all(problem, mine, level)
    ranked = range_p_values(problem, inputs.unit_values(np.array(mine, dtype=np.int64)))
    p, power = np.concatenate([tested.p, ranked[:, None]], axis=1), tested.power
    missed: Counter[str] = Counter()
    for own, *figures, reasons in shared.gathered((mine, p[mine], power[mine], tested.not_tested)):
        p[own], power[own] = figures
        missed += Counter(reasons)
    if problem.sources is not None:
        missed[FEW_SOURCES] = _take_by_source(inputs, problem, p, level, shared)
    return Tested(p, power, dict(missed))


def _take_by_source(inputs: Inputs, problem: Problem, p: np.ndarray, level: Level, shared: Share) -> int:
    """Replace the p-values that are discovered if rows are independent by those by source; return how many have none.

    P-values by source are not smaller, so that nothing else can be discovered by them. The top of each such concept
    goes along, since findings tell what it shows.
    """
    chosen = _q_values(p, inputs.derived) <= level.alpha
    chosen[:, problem.number - 1] |= chosen.any(axis=1)
    chosen &= ~np.isnan(p)
    mine = np.array(shared.part(np.flatnonzero(chosen.any(axis=(1, 2)))), dtype=np.int64)
    made = []
    for unit, values in inputs.unit_values(mine):
        tests = np.argwhere(chosen[unit])
        made.append((unit, tests, p_by_source(problem, unit, tests, values, level)))
    for part in shared.gathered(made):
        for unit, tests, by_source in part:
            p[unit][tuple(tests.T)] = by_source
    return int(np.isnan(p[chosen]).sum())


def _details(
    inputs: Inputs, halves: Halves, doubts: Doubts | None, tests: np.ndarray, level: Level, shared: Share
) -> tuple[dict[str, list], dict[str, list]]:
    """Return the columns that need the rows again, and the cuts of the units concerned."""
    made = shared.gathered(_own_details(inputs, halves, doubts, tests, level, shared.part(np.unique(tests[:, 0]))))
    parts = [part for own, _ in made for part in own]
    columns = {name: [value for part in parts for value in part[name]] for name in COLUMNS}
    return columns, {name: cut for _, cuts in made for name, cut in cuts.items()}


def _own_details(
    inputs: Inputs, halves: Halves, doubts: Doubts | None, tests: np.ndarray, level: Level, units: list[int]
) -> tuple[list[dict], dict[str, list]]:
    """Return the columns of each of some units, and their cuts."""
    parts, cuts = [], {}
    kept = without_doubts(halves, doubts, np.unique(tests[:, 2]))
    for unit, values in inputs.unit_values(np.array(units, dtype=np.int64)):
        parts.append(details_of(kept, values, unit, tests[tests[:, 0] == unit, 1:], level))
        cuts[inputs.unit_names[unit]] = inputs.observed_cuts(unit, values)
    return parts, cuts


def _describe(inputs: Inputs, found: Discovered, level: Level) -> dict[str, Any]:
    units, bands, concepts = found.tests.T
    top = len(inputs.band_names) - 1
    tied = _ties(inputs, units, concepts)
    names = (*inputs.band_names, RANGE)
    p = found.p[units, bands, concepts]
    return {
        "unit": units,
        "unit_name": [inputs.unit_names[k] for k in units],
        "band": [names[b] for b in bands],
        "source": [inputs.sources[c] for c in concepts],
        "concept": [inputs.names[c] for c in concepts],
        "p_value": p,
        "q_value": found.q[units, bands, concepts],
        "tie": tied.ratio,
        "tie_low": tied.low,
        "broken_by": [None if np.isnan(rows) else int(rows) for rows in tied.broken_by],
        "number": concepts,
        "middle": (bands > 0) & (bands < top),
        "whole_range": bands > top,
        "p_at_top": found.p[units, top, concepts],
        "group": _groups(inputs, concepts, p),
    }


def _ties(inputs: Inputs, units: np.ndarray, concepts: np.ndarray) -> Ties:
    problem = inputs.problem
    kept, where = np.unique(concepts, return_inverse=True)
    total = np.bincount(problem.ids, minlength=problem.classes).astype(np.float64)
    with_concept = rows_with(problem.present[:, kept].tocsc(), problem.ids, problem.classes)
    member = np.array([-1 if one is None else one for one in problem.members], dtype=np.int64)[units]
    return ties(with_concept, total, member, where.reshape(-1))


def _groups(inputs: Inputs, concepts: np.ndarray, p: np.ndarray) -> list[str]:
    """Return each finding's group, named by its most significant concept as `source: concept`."""
    kept = np.unique(concepts)
    if not kept.size:
        return []
    problem = inputs.problem
    number = dict(zip(kept, same_concepts(problem.present[:, kept], problem.ids, problem.classes), strict=True))
    names: dict[int, str] = {}
    for i in np.argsort(p, kind="stable"):
        names.setdefault(number[concepts[i]], f"{inputs.sources[concepts[i]]}: {inputs.names[concepts[i]]}")
    return [names[number[concept]] for concept in concepts]


def _verdicts(columns: dict[str, Any], derived: np.ndarray, level: Level) -> dict[str, Any]:
    """Return what the confirmation half says of what the other half discovered."""
    q_confirm = _q_values(np.asarray(columns["p_confirm"], dtype=np.float64), derived)
    above, again = (np.asarray(columns[name]) > 1 for name in ("odds_ratio_discovery", "odds_ratio"))
    holds = (q_confirm <= level.alpha) & (above == again)
    reading = np.full(len(derived), NONE, dtype=object)
    pairs = np.column_stack([columns["unit"], columns["number"]])
    for family in (derived, ~derived):
        _, first, where = np.unique(pairs[family], axis=0, return_index=True, return_inverse=True)
        z = [np.asarray(columns[f"{side}_z_confirm"])[family][first] for side in ("member", "stranger")]
        absent = np.asarray(columns["strangers_with_it"])[family][first] < MINIMUM_ROWS
        reading[family] = range_patterns(z[0], z[1], absent, level.alpha)[where.reshape(-1)]
    told = ~needless_ranges(columns["whole_range"], holds, pairs)
    flagged = told & holds & ~derived & above & (reading == CUE)
    tied = np.asarray(columns["tie_low"], dtype=np.float64) > level.smallest
    claims = [~holds | derived | (reading == NONE), reading == ONE_SIDED, (reading == CUE) & tied]
    return {
        "told": told,
        "q_confirm": q_confirm,
        "confirmed": holds & ~derived,
        "confounder": one_row_a_pair(flagged, columns["middle"], pairs, columns["p_value"]),
        "derived": derived,
        "reading": reading.tolist(),
        "rests_on": np.select(claims, [NOT_CONFIRMED, BY_MEMBERS, BY_TIE], BY_ASSOCIATION).tolist(),
    }


def _order(columns: dict[str, Any], only_above_one: bool) -> np.ndarray:
    """Return the findings to report, most significant first, and among equals the strongest first."""
    ratios = np.asarray(columns["odds_ratio_discovery"], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.abs(np.nan_to_num(np.log(ratios), nan=0.0))
    order = np.lexsort((-strength, columns["p_value"]))
    return order[ratios[order] > 1] if only_above_one else order


def _facts(
    ds: Dataset, inputs: Inputs, halves: Halves, suspects: Suspects | None, tested: Tested, level: Level, seed: int
) -> dict[str, Any]:
    return {
        "dataset_fingerprint": ds._fingerprint,
        "dataset_description": ds.info.description,
        "rows": len(halves.whole.ids),
        "discovery_rows": len(halves.discovery.ids),
        "confirmation_rows": len(halves.confirmation.ids),
        "halves_by": "source_id" if inputs.source_ids is not None else "row",
        "suspected_rows": None if suspects is None else int(suspects.suspected.sum()),
        "sources": None if inputs.source_ids is None else len(np.unique(inputs.source_ids)),
        "bands": inputs.bands,
        "concepts": len(inputs.names),
        "power": _power(tested.power),
        "options": {"alpha": level.alpha, "seed": seed},
        "versions": {name: version(name) for name in ("hf-midrange", "numpy", "scipy", "datasets")}
        | {"python": platform.python_version()},
    }


def _tests_made(tested: Tested, units: list[int]) -> dict[str, Any]:
    missed = Counter(tested.not_tested)
    missed[FEW_CONCEPT] += int(np.isnan(tested.p[units, -1]).sum())
    return {"tested": int((~np.isnan(tested.p)).sum()), "not_tested": dict(+missed)}


def _power(power: np.ndarray) -> dict[str, Any]:
    """Return what the discovery half could see at all: its power for an odds ratio of 3, before adjustment."""
    known = power[~np.isnan(power)]
    return {
        "odds_ratio": 3.0,
        "median": float(np.median(known)) if known.size else None,
        "tests_below_0.8": int((known < 0.8).sum()),
    }
