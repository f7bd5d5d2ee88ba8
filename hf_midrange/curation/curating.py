"""`curate`: from embeddings, logits and labels to pseudo-groups, weights and a balanced subset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Value
from scipy import sparse

from hf_midrange import columns
from hf_midrange.columns import Splits
from hf_midrange.curation.inputs import read_inputs
from hf_midrange.curation.report import reason_feature, report_of
from hf_midrange.curation.selection import Selection
from hf_midrange.curation.strategies import STRATEGIES, Strategy, named_presence
from hf_midrange.curation.views import confirmed
from hf_midrange.verdicts import SHOWN, SUSPECTED


LEFT_OUT = "left out"
"""The pseudo-group of rows that a strategy leaves out; they weigh nothing."""

SENTENCES = 10_000
"""Reasons that are Python strings at once."""


def curate(
    ds: Splits,
    findings: Dataset | None = None,
    strategy: str | Strategy = "auto",
    seed: int = 0,
    act_on: str = SHOWN,
) -> Splits:
    """Return `ds` with `pseudo_group`, `keep`, `weight`, `confounders` and `reason`, and a report inside.

    Use rows the network was not fitted to: on its training rows it has memorised the exceptions. Of more than 1,500
    rows, a draw of that size is what scores and the report's cross-validation are fitted to, and of more than 100,000
    a draw of that size what clusters are; all rows are scored. Large columns are read in blocks, so that a row costs
    memory for its scores, some 50 bytes a class, and not for its embedding.

    Args:
        ds: a dataset with `embedding`, `logits` and `label`; `view_*` or `concepts_*` columns sharpen the default, and
            several of them may show several ties; a
            `source_id` column keeps rows of one source together. Each split of a `DatasetDict` is curated by itself.
        findings: what `associate` returned. Names confounders in the `confounders` column and narrows concept columns.
        strategy: one of `STRATEGIES`, or a function of your own (see `hf_midrange.curation.Strategy`); `"auto"` is the
            default rule. All named ones but `"group"` ignore the `group` column.
        seed: of random choices.
        act_on: `"shown"` repairs ties that are shown; `"suspected"` those too that are only suspected.

    Returns:
        The same kind of dataset. `weight` has mean 1; `keep` marks a random subset with balanced pseudo-groups, for a
        trainer without weights; where the head is left as it is, all rows are kept and weigh 1.
        `curation_report` reads the report.

    Raises:
        KeyError: a column is missing.
        ValueError: an unknown strategy, a class with fewer than five rows, NaN, or what the strategy lacks.

    Examples:
        ```python
        curated = hm.curate(ds, findings)
        hm.curation_report(curated)["verdict"]  # "shown"
        ```
    """
    if callable(strategy):
        name, rule = getattr(strategy, "__name__", type(strategy).__name__), strategy
    elif strategy in STRATEGIES:
        name, rule = strategy, STRATEGIES[strategy]
    else:
        raise ValueError(f"unknown strategy {strategy!r}; choose one of {', '.join(map(repr, STRATEGIES))}")
    if act_on not in (SHOWN, SUSPECTED):
        raise ValueError(f"`act_on` must be {SHOWN!r} or {SUSPECTED!r}, not {act_on!r}")
    return columns.over_splits(ds, lambda split: _curate_split(split, findings, name, rule, seed, act_on))


def _curate_split(ds: Dataset, findings: Dataset | None, name: str, rule: Strategy, seed: int, act_on: str) -> Dataset:
    inputs = read_inputs(ds, findings, seed)
    selection = rule(inputs)
    report = report_of(inputs, selection, name, act_on)
    cells, names = _with_left_out(selection)
    present, concepts = named_presence(inputs, confirmed(findings))
    # Where there is nothing to repair, any Trainer that honours these columns must train as if they were not there.
    leave = report["strength"] == 0
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
            columns.REASON: (_texts(_with_weights(selection.reasons, weight)), reason_feature(report)),
        },
    )


def _with_weights(reasons: Iterable[str], weight: np.ndarray) -> Iterator[str]:
    used = (f"weighs {each:.1f}" if each else "not used" for each in weight)
    return (f"{reason}; {how}" for reason, how in zip(reasons, used, strict=True))


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
