"""Results as short tables for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Dataset
from rich.console import Console
from rich.table import Table


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a header."""
    table = Table(*header, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def print_findings(findings: Dataset, limit: int) -> None:
    """Print the first `limit` findings, which are the most significant ones."""
    confirmed = sum(findings["confirmed"])
    title = f"{len(findings)} findings, {confirmed} confirmed on the other half"
    rows = [_finding(row) for row in findings.select(range(min(limit, len(findings))))]
    print_table(title, ["unit", "band", "concept", "odds ratio", "95 % interval", "q", "q confirm", "is"], rows)


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print a mapping as lines `name  value`; nested values are written on one line."""
    print_table(title, ["", ""], [[name.replace("_", " "), _text(value)] for name, value in facts.items()])


def _finding(row: Mapping[str, Any]) -> list[str]:
    kinds = [kind for kind in ("confirmed", "confounder", "derived") if row[kind]]
    return [
        str(row["unit_name"]),
        str(row["band"]),
        f"{row['source']}: {row['concept']}",
        _text(row["odds_ratio"]),
        f"{_text(row['ci_low'])} to {_text(row['ci_high'])}",
        _text(row["q_value"]),
        _text(row["q_confirm"]),
        ", ".join(kinds),
    ]


def _text(value: Any) -> str:  # noqa: ANN401 - a cell may hold anything
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "; ".join(_text(inner) for inner in value)
    return str(value)
