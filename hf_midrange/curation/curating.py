"""`curate`: from embeddings, logits and labels to pseudo-groups, weights and a balanced subset."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Value
from scipy import sparse

from hf_midrange import columns
from hf_midrange.columns import Splits
from hf_midrange.curation.evidence import Evidence, read
from hf_midrange.curation.report import LEFT_OUT, NOTHING, reason_feature
from hf_midrange.curation.selection import Selection
from hf_midrange.curation.strategies import STRATEGIES, named_presence
from hf_midrange.curation.trial import cell_table
from hf_midrange.curation.verdict import judge
from hf_midrange.curation.views import confirmed


SENTENCES = 10_000
"""Reasons that are Python strings at once."""


def curate(
    ds: Splits,
    findings: Dataset | None = None,
    strategy: str = "auto",
    model: Any | None = None,  # noqa: ANN401 - reserved for strategies that need the network
    seed: int = 0,
) -> Splits:
    """Return `ds` with `pseudo_group`, `keep`, `weight`, `confounders` and `reason`, and a report inside.

    Use rows the network was not fitted to: on its training rows it has memorised the exceptions. Of more than 2,500
    rows, a draw of that size is what scores and the report's cross-validation are fitted to, and of more than 100,000
    a draw of that size what clusters are; all rows are scored. Large columns are read in blocks, so that a row costs
    memory for its scores, some 50 bytes a class, and not for its embedding.

    Args:
        ds: a dataset with `embedding`, `logits` and `label`; `view_*` or `concepts_*` columns sharpen the default, and
            several of them may show several ties; a
            `source_id` column keeps rows of one source together. Each split of a `DatasetDict` is curated by itself.
        findings: what `associate` returned. Names confounders in the `confounders` column and narrows concept columns.
        strategy: one of `STRATEGIES`; `"auto"` is the default rule. All but `"group"` ignore the `group` column.
        model: unused by the strategies at hand, which read `embedding` and `logits`.
        seed: of random choices.

    Returns:
        The same kind of dataset. `weight` has mean 1; `keep` marks a random subset with balanced pseudo-groups, for a
        trainer without weights; with the verdict "nothing to repair" all rows are kept and weigh 1.
        `curation_report` reads the report.

    Raises:
        KeyError: a column is missing.
        ValueError: an unknown strategy, a class with fewer than five rows, NaN, or what the strategy lacks.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"unknown strategy {strategy!r}; choose one of {', '.join(map(repr, STRATEGIES))}")
    return columns.over_splits(ds, lambda split: _curate_split(split, findings, strategy, seed))


def _curate_split(ds: Dataset, findings: Dataset | None, strategy: str, seed: int) -> Dataset:
    evidence = read(ds, findings, seed)
    selection = STRATEGIES[strategy](evidence)
    report = _report(evidence, selection, strategy)
    cells, names = _with_left_out(selection)
    present, concepts = named_presence(evidence, confirmed(findings))
    # Where there is nothing to repair, any Trainer that honours these columns must train as if they were not there.
    leave = report["verdict"] == NOTHING
    keep = np.ones(len(ds), dtype=bool) if leave else selection.keep(seed)
    weight = np.ones(len(ds), dtype=np.float32) if leave else selection.weight()
    return columns.with_columns(
        ds,
        {
            columns.PSEUDO_GROUP: (cells, ClassLabel(names=names)),
            columns.KEEP: (keep, Value("bool")),
            columns.WEIGHT: (weight, Value("float32")),
            columns.CONFOUNDERS: (
                columns.concept_arrow(sparse.csr_matrix(present), concepts),
                columns.concept_list(concepts),
            ),
            columns.REASON: (_texts(selection.reasons), reason_feature(report)),
        },
    )


def _texts(sentences: Iterable[str]) -> pa.ChunkedArray:
    """Return sentences as an arrow column, with some of them at a time as Python objects."""
    rest = iter(sentences)
    parts = iter(lambda: pa.array(islice(rest, SENTENCES), pa.string()), pa.array([], pa.string()))
    return pa.chunked_array(parts, pa.string())


def _with_left_out(selection: Selection) -> tuple[np.ndarray, list[str]]:
    left_out = selection.cells < 0
    if not left_out.any():
        return selection.cells, selection.names
    return np.where(left_out, len(selection.names), selection.cells), [*selection.names, LEFT_OUT]


def _report(evidence: Evidence, selection: Selection, strategy: str) -> dict[str, Any]:
    cells = cell_table(evidence, selection)
    views = [
        {"name": view.name, "auc": view.auc, "skew": view.skew, "carriers": view.carriers(evidence.labels)}
        for view in (evidence.views if strategy in ("auto", "view") else [])
    ]
    report = {
        "strategy": strategy,
        "seed": evidence.seed,
        "rows": len(evidence.labels),
        "classes": evidence.classes,
        "views": views,
        **selection.facts,
        "cells": cells,
        "worst_before": min(cell["before"]["accuracy"] for cell in cells),
        "worst_after": min(cell["after"]["accuracy"] for cell in cells),
    }
    verdict, explanation = judge(report)
    return _plain({"verdict": verdict, "explanation": explanation, **report})


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
