"""`associate`: from bands and concepts to findings."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from datasets import Dataset

from hf_midrange.association.details import Halves, unit_details
from hf_midrange.association.findings import findings_dataset
from hf_midrange.association.grouping import same_concepts
from hf_midrange.association.halves import discovery_half
from hf_midrange.association.reading import DERIVED_COLUMNS, Inputs, mirrored, read_inputs
from hf_midrange.association.testing import Options, Tested, adjusted, test_all
from hf_midrange.columns import CONCEPTS_PREFIX


def associate(
    ds: Dataset,
    *,
    alpha: float = 0.05,
    seed: int = 0,
    method: Literal["bh", "by"] = "bh",
    minimum_rows: int = 5,
    exact_below: float = 25.0,
    mirrored_units: bool = False,
) -> Dataset:
    """Return which concepts go with which band of which unit, most significant first.

    Every concept is tested in every band *within each true label*: the stratum of the unit's own class is the member
    effect, the other labels' strata, pooled by Cochran-Mantel-Haenszel, the stranger effect. Before both are pooled
    they are turned so that `odds_ratio > 1` means "confounded with the class" in every band: presence of the concept
    at the top, absence at the bottom, and in the middle absence in members and presence in strangers. Rows are split
    in two: `p_value` and `q_value` (over all tests) come from the discovery half, `q_confirm` (over what was
    discovered) from the other.

    Args:
        ds: one split with `label`, `band` (or `logits`, on which default bands are then fitted) and at least one
            `concepts_<source>` column. Rows sharing a `source_id` stay in one half.
        alpha: level of the false-discovery rate and of every side test.
        seed: of the split into halves.
        method: `bh` (Benjamini-Hochberg) or `by` (Benjamini-Yekutieli, for any dependence between tests).
        minimum_rows: a side is tested with this many rows in and out of the band, with and without the concept.
        exact_below: under this null variance of the count, p-values at or below alpha are exact mid-p values.
        mirrored_units: of two units that are mirror images (two classes), report every finding for both. Otherwise
            each is reported once, for the unit with an odds ratio above 1: the other says the same, inverted. Both are
            tested either way, which leaves `q_value` as it would be with one.

    Returns:
        One row per unit, band and concept with `q_value <= alpha`; columns in `association.findings.FEATURES`.
        `confirmed`: `q_confirm <= alpha` with the odds ratio on the same side of 1. `confounder`: confirmed, in a
        middle band, and over all rows significantly absent in its members and present in its strangers. `signature`
        also tells `hardness` (the same direction on both sides) and `core` (absent in members, untestable in
        strangers). `derived` concepts (`concepts_latent`) are adjusted in a family of their own and never confirmed.
        What was not tested, and why, is in `provenance(findings)`.

    Raises:
        KeyError, TypeError, ValueError: if columns are missing or unfit, no unit has bands, or an option is wrong.

    Example:
        >>> findings = associate(bands.transform(annotated), alpha=0.05)      # doctest: +SKIP
        >>> print(findings_table(findings))                                   # doctest: +SKIP
    """
    options = Options(alpha, method, minimum_rows, exact_below)
    _check(options)
    inputs = read_inputs(ds)
    problem = inputs.problem
    half = discovery_half(problem.ids, inputs.source_ids, seed)
    halves = Halves(problem.rows(half), problem.rows(~half), problem)
    units, left_out = _units(inputs)
    tested = test_all(halves.discovery, units, options)
    derived = np.array([CONCEPTS_PREFIX + source in DERIVED_COLUMNS for source in inputs.sources], dtype=bool)
    q = _q_values(tested, derived, method)
    found = np.argwhere(q <= alpha)
    columns = _describe(inputs, halves, tested, q, found, options)
    columns |= _verdicts(columns, derived[found[:, 2]], options)
    facts = _facts(ds, inputs, halves, tested, options, seed)
    twice = not mirrored_units and mirrored(inputs.ranks, len(inputs.unit_names))
    order = _order(columns, only_above_one=twice)
    ordered = {name: [values[i] for i in order] for name, values in columns.items()}
    return findings_dataset(ordered, facts | {"units_left_out": left_out, "mirrored_findings_dropped": twice})


def _check(options: Options) -> None:
    if not 0 < options.alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, but is {options.alpha}")
    if options.method not in ("bh", "by"):
        raise ValueError(f"method must be 'bh' or 'by', but is {options.method!r}")
    if options.least < 1:
        raise ValueError(f"minimum_rows must be at least 1, but is {options.least}")


def _units(inputs: Inputs) -> tuple[list[int], dict[str, str]]:
    """Return the units to test, and why others are not."""
    left_out = {}
    units = []
    for unit, name in enumerate(inputs.unit_names):
        if (inputs.problem.bands[:, unit] < 0).all():
            left_out[name] = "it has no bands"
        else:
            units.append(unit)
    if not units:
        raise ValueError(f"no unit has bands on these rows: {left_out}; fit bands where units know their classes")
    return units, left_out


def _q_values(tested: Tested, derived: np.ndarray, method: Literal["bh", "by"]) -> np.ndarray:
    """Return adjusted p-values; derived concepts are a family of their own."""
    q = np.full(tested.p.shape, np.nan)
    for family in (derived, ~derived):
        q[:, :, family] = adjusted(tested.p[:, :, family], method)
    return q


def _describe(
    inputs: Inputs, halves: Halves, tested: Tested, q: np.ndarray, found: np.ndarray, options: Options
) -> dict[str, Any]:
    parts = []
    for unit in np.unique(found[:, 0]):
        ranks = None if inputs.ranks is None else inputs.ranks[:, unit]
        parts.append(unit_details(halves, ranks, int(unit), found[found[:, 0] == unit, 1:], options))
    if not parts:
        parts = [unit_details(halves, None, 0, np.empty((0, 2), dtype=np.int64), options)]
    details = {name: [value for part in parts for value in part[name]] for name in parts[0]}
    units, bands, concepts = found.T
    top = q[units, len(inputs.band_names) - 1, concepts]
    return details | {
        "unit": units,
        "unit_name": [inputs.unit_names[k] for k in units],
        "band": [inputs.band_names[b] for b in bands],
        "source": [inputs.sources[c] for c in concepts],
        "concept": [inputs.names[c] for c in concepts],
        "p_value": tested.p[units, bands, concepts],
        "q_value": q[units, bands, concepts],
        "found_at_top": top <= options.alpha,
        "group": _groups(inputs, concepts, tested.p[units, bands, concepts]),
    }


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


def _verdicts(columns: dict[str, Any], derived: np.ndarray, options: Options) -> dict[str, Any]:
    p = np.asarray(columns["p_confirm"], dtype=np.float64)
    q_confirm = np.full(p.shape, np.nan)
    for family in (derived, ~derived):
        q_confirm[family] = adjusted(p[family], options.method)
    same_side = (np.asarray(columns["odds_ratio"]) > 1) == (np.asarray(columns["odds_ratio_confirm"]) > 1)
    confirmed = (q_confirm <= options.alpha) & same_side & ~derived
    confounder = confirmed & (np.asarray(columns["signature"]) == "confounder")
    return {"q_confirm": q_confirm, "confirmed": confirmed, "confounder": confounder, "derived": derived}


def _order(columns: dict[str, Any], only_above_one: bool) -> np.ndarray:
    """Return the findings to report, most significant first, and among equals the strongest first."""
    ratios = np.asarray(columns["odds_ratio"], dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        strength = np.abs(np.nan_to_num(np.log(ratios), nan=0.0))
    order = np.lexsort((-strength, columns["p_value"]))
    return order[ratios[order] > 1] if only_above_one else order


def _facts(ds: Dataset, inputs: Inputs, halves: Halves, tested: Tested, options: Options, seed: int) -> dict[str, Any]:
    return {
        "dataset_fingerprint": ds._fingerprint,
        "rows": len(halves.whole.ids),
        "discovery_rows": len(halves.discovery.ids),
        "confirmation_rows": len(halves.confirmation.ids),
        "halves_by": "source_id" if inputs.source_ids is not None else "row",
        "bands": inputs.bands_from,
        "concepts": len(inputs.names),
        "tested": int((~np.isnan(tested.p)).sum()),
        "not_tested": tested.not_tested,
        "options": options._asdict() | {"seed": seed},
        "versions": {name: version(name) for name in ("hf-midrange", "numpy", "scipy", "datasets")}
        | {"python": platform.python_version()},
    }
