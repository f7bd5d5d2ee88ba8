"""The report of a curation, and how it travels inside the dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Value

from hf_midrange import columns
from hf_midrange.curation.cross_validation import cell_table
from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.selection import Selection
from hf_midrange.head.rows import NOTHING


REPAIRED = "repaired"
CANNOT = "features cannot carry it"

BARELY = 1.2
"""Features do not carry a class where even the upper bound of a repaired accuracy is below this many times chance."""

GAINED = 0.25
"""A pseudo-group that gains this much accuracy is carried by the features; its rows may be too few to learn from."""


def report_of(inputs: Inputs, selection: Selection, strategy: str) -> dict[str, Any]:
    """Return verdict and figures of a selection as JSON holds them: figures rounded, NaN as None."""
    cells = cell_table(inputs, selection)
    views = [
        {"name": view.name, "auc": view.auc, "skew": view.skew, "carriers": view.carriers(inputs.labels)}
        for view in vars(inputs).get("views", [])  # those that the strategy read
    ]
    verdict, explanation = _judge(selection.doubt, cells, len(inputs.classes))
    return _plain(
        {
            "verdict": verdict,
            "explanation": explanation,
            "strategy": strategy,
            "seed": inputs.seed,
            "rows": len(inputs.labels),
            "classes": inputs.classes,
            "views": views,
            **selection.facts,
            "cells": cells,
            "worst_before": _worst(cells, "before"),
            "worst_after": _worst(cells, "after"),
        }
    )


def _worst(cells: list[dict[str, Any]], when: str) -> float:
    return min(cell[when]["accuracy"] for cell in cells)


def _judge(doubt: str, cells: list[dict[str, Any]], classes: int) -> tuple[str, str]:
    """Return the verdict, and a sentence that explains it."""
    if doubt:
        return NOTHING, f"{doubt}: no sign of a confounder, head left as it is"
    worst = min(cells, key=lambda cell: cell["after"]["high"])
    gain = worst["after"]["accuracy"] - worst["before"]["accuracy"]
    if worst["after"]["high"] < BARELY / classes and gain < GAINED:
        return CANNOT, (
            f"balanced weights reach {worst['after']['accuracy']:.2f} in *{worst['name']}* (cross-validated, at most "
            f"{worst['after']['high']:.2f}): the features do not carry the class there"
        )
    before, after = _worst(cells, "before"), _worst(cells, "after")
    return REPAIRED, f"worst pseudo-group {before:.2f} before, {after:.2f} after, cross-validated"


def curation_report(curated: Dataset | DatasetDict) -> dict[str, Any]:
    """Return verdict and figures of a curated dataset; they travel with it through save, push and load.

    Args:
        curated: what `curate` returned, or the same after `select`, `filter`, `shuffle`, saving and loading. Of a
            `DatasetDict`, a report per split comes back.

    Returns:
        A plain dictionary: `verdict` (`"repaired"`, `"nothing to repair"` or `"features cannot carry it"`),
        `explanation` (one sentence), `strategy`, the `views` it read, `contrary_share` (of each class), `m` (its
        mean), `q` (the share of a class's weight that contrary rows get), what else the strategy found, and `cells`
        with rows, weight and cross-validated accuracy before and after, each with its 95 % interval.

    Raises:
        ValueError: if the dataset was not curated, lost its report, or holds something else in its place.
    """
    if isinstance(curated, DatasetDict):
        return {name: curation_report(split) for name, split in curated.items()}
    columns.require(curated, columns.REASON)
    report = columns.facts(curated.features, columns.REASON)
    # Splits that share one set of features, as on the Hub, share one column description too.
    splits = report.get("splits")
    if isinstance(splits, dict):
        if str(curated.split) not in splits:
            raise ValueError(f"there are reports of the splits {', '.join(splits)}, not of {curated.split!r}")
        report = splits[str(curated.split)]
    if not isinstance(report, dict) or not isinstance(report.get("verdict"), str):
        raise ValueError("the `reason` column holds no report of a curation; `curate(ds)` writes one")
    return report


def reason_feature(report: dict[str, Any]) -> Value:
    """Return the feature of the `reason` column, with the report among its facts."""
    return columns.with_facts(Value("string"), **report)


def shared_reason_feature(reports: Mapping[str, dict[str, Any]]) -> Value:
    """Return the feature of a `reason` column that several splits share, with the report of each by its name."""
    return columns.with_facts(Value("string"), splits=dict(reports))


def _plain(report: dict[str, Any]) -> dict[str, Any]:
    """Return the report as JSON holds it: figures rounded, NaN as None."""

    def tidy(value: Any) -> Any:  # noqa: ANN401
        if isinstance(value, dict):
            return {key: tidy(part) for key, part in value.items()}
        if isinstance(value, list | tuple):
            return [tidy(part) for part in value]
        if isinstance(value, float | np.floating):
            return round(float(value), 4) if np.isfinite(value) else None
        return value

    return json.loads(json.dumps(tidy(report)))
