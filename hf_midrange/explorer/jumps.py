"""From a finding to the place that shows it."""

from __future__ import annotations

from typing import NamedTuple

from datasets import Dataset

from hf_midrange.association.findings import RANGE
from hf_midrange.explorer.index import Choice, Index
from hf_midrange.publishing.escaping import visible
from hf_midrange.reporting.rendering import figure


MOST = 200
"""Findings listed; the surest come first."""


class Jump(NamedTuple):
    """A finding in one line, and what to look at for it."""

    title: str
    choice: Choice


def jumps(index: Index, findings: Dataset | None) -> list[Jump]:
    """Return the findings, shortcuts first, then what else was confirmed, then the rest.

    Raises:
        ValueError: if a finding speaks of a unit, a band or a concept that the rows do not have.
    """
    rows = [] if findings is None else findings.to_list()
    rows.sort(key=lambda row: (not row["confounder"], not row["confirmed"]))
    return [_jump(index, row) for row in rows[:MOST]]


def _jump(index: Index, row: dict) -> Jump:
    concept, unit = f"{row['source']}: {row['concept']}", row["unit"]
    if not 0 <= unit < len(index.units) or index.units[unit] != row["unit_name"]:
        raise ValueError(
            f"the findings speak of unit {unit} ({row['unit_name']!r}), but the rows have {index.units}; give the "
            "rows that `associate` was given"
        )
    if concept not in index.concepts or row["band"] not in (*index.bands, RANGE):
        raise ValueError(
            f"the findings speak of {concept!r} in band {row['band']!r}, which the rows do not have; give the rows "
            "that `associate` was given"
        )
    kind = "shortcut" if row["confounder"] else "confirmed" if row["confirmed"] else "not confirmed"
    where = "whole range" if row["band"] == RANGE else f"{row['band']} band"
    odds = f"odds ratio {figure(row['odds_ratio'])} ({figure(row['ci_low'])} to {figure(row['ci_high'])})"
    band = None if row["band"] == RANGE else index.bands.index(row["band"])
    return Jump(
        visible(f"{row['concept']} — {row['unit_name']}, {where}: {kind}, {odds}"),
        Choice(
            unit=unit,
            level=index.middle_of(unit, band),
            concept=index.concepts.index(concept),
            having="tie" if row["confounder"] else "either",
        ),
    )
