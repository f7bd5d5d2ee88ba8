"""The report of a curation, and how it travels inside the dataset."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, Value, concatenate_datasets
from markupsafe import Markup

from hf_midrange import columns
from hf_midrange.curation.cross_validation import cell_table
from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.selection import Selection
from hf_midrange.verdicts import SHOWN, SUSPECTED


WHEN = ("before", "after")
SHOWN_OF_CELLS = ("pseudo-group", "rows", "weight", "before", "after, cross-validated")


def report_of(inputs: Inputs, selection: Selection, strategy: str, act_on: str = SHOWN) -> dict[str, Any]:
    """Return verdict and figures of a selection as JSON holds them: figures rounded, NaN as None.

    A rule that comes to no verdict was asked to weight the rows, and acts.
    """
    cells, form = cell_table(inputs, selection)
    views = [
        {"name": view.name, "auc": view.auc, "skew": view.skew, "carriers": view.carriers(inputs.labels)}
        for view in vars(inputs).get("views", [])  # those that the strategy read
    ]
    before, after = _worst(cells, "before"), _worst(cells, "after")
    gain = f"worst pseudo-group {before:.2f} before, {after:.2f} after, cross-validated"
    verdict = selection.verdict or SHOWN
    acts = verdict == SHOWN or (verdict == SUSPECTED and act_on == SUSPECTED)
    left = "head left as it is"
    done = gain if acts else f"{left} ({gain} if it were repaired)" if verdict == SUSPECTED else left
    explanation = f"{selection.why}; {done}" if selection.why else done
    return _plain(
        {
            "verdict": verdict,
            "explanation": explanation,
            "why": selection.why,
            "strategy": strategy,
            "seed": inputs.seed,
            "rows": len(inputs.labels),
            "classes": inputs.classes,
            "views": views,
            **form,
            **selection.facts,
            "strength": selection.strength if acts else 0.0,
            "cells": cells,
            "worst_before": before,
            "worst_after": after,
        }
    )


def _worst(cells: list[dict[str, Any]], when: str) -> float:
    return min(cell[when]["accuracy"] for cell in cells)


class CurationReport(dict[str, Any]):
    """A report, which a notebook shows as a table of the pseudo-groups under its verdict."""

    def _repr_html_(self) -> str:
        row = Markup("<tr><th>{}</th><td>{}</td><td>{:.1%}</td><td>{:.1%}</td><td>{:.1%}</td></tr>")
        rows = [
            row.format(cell["name"], cell["rows"], cell["weight"], *(cell[when]["accuracy"] for when in WHEN))
            for cell in self.get("cells", ())
        ]
        header = Markup("").join(Markup("<th>{}</th>").format(name) for name in SHOWN_OF_CELLS)
        said = Markup("<p><b>{}</b>: {}</p>").format(self["verdict"], self.get("explanation", ""))
        return said + Markup("<table><tr>{}</tr>{}</table>").format(header, Markup("").join(rows))


def curation_report(curated: Dataset | DatasetDict) -> dict[str, Any]:
    """Return verdict and figures of a curated dataset; they travel with it through save, push and load.

    Args:
        curated: what `curate` returned, or the same after `select`, `filter`, `shuffle`, saving and loading. Of a
            `DatasetDict`, a report per split comes back.

    Returns:
        A dictionary, which a notebook shows as a table: `verdict` (`"shown"`, `"suspected"`, `"none seen"` or
        `"cannot be carried"`), `explanation` (one sentence), `strength` (how much of the correction is applied;
        0: the head is left as it is), `strategy`,
        the `views` it read, `ties` (the evidence of each), `contrary_share` (of each class), `prior` (what becomes of
        the shares of classes), what else the strategy found, and `cells` with rows, weight and cross-validated
        accuracy before and after, each with its 95 % interval. Where rows were left out since, `rows_here` counts
        those that are left; all else speaks of the rows that were curated.

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
    here = {} if report.get("rows") == len(curated) else {"rows_here": len(curated)}
    return CurationReport(report | here)


def joined(curations: Sequence[Dataset]) -> Dataset:
    """Return curations one after the other, which `concatenate_datasets` cannot, since their reports differ.

    The report is that of the most cautious, which has the least strength, with the rows and cells of all; `parts`
    holds the report of each.

    Raises:
        ValueError: if a column was made by other bands, sources or models than in the first.
    """
    reports = [curation_report(part) for part in curations]
    first = curations[0].features
    for part in curations:
        names = [name for name in {**first, **part.features} if name != columns.REASON]
        other = [name for name in names if part.features.get(name) != first.get(name)]
        if other:
            raise ValueError(
                f"column {other[0]!r} is not the same in all curations; put the rows together first, and curate them"
            )
    least = min(reports, key=lambda report: report["strength"])
    cells = [cell for report in reports for cell in report["cells"]]
    whole = {**least, "rows": sum(map(len, curations)), "cells": cells, "parts": reports}
    features = Features({**first, columns.REASON: reason_feature(whole)})
    return concatenate_datasets([part.cast(features) for part in curations])


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
