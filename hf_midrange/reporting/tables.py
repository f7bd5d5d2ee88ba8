"""Results as short tables in a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table


WIDTH_IN_FILES = 160
"""Characters in a line where the output is no terminal."""


def print_table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of text under a header; what is too long goes on in the next line, nothing is cut off."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_header=any(header), padding=(0, 1, 0, 0))
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    width = None if sys.stdout.isatty() else WIDTH_IN_FILES
    Console(width=width, markup=False, highlight=False).print(table)


def print_facts(title: str, facts: Mapping[str, Any]) -> None:
    """Print a mapping: plain values as lines, and each mapping or list of mappings as a table of its own."""
    tables = {name: rows for name, value in facts.items() if (rows := _records(value))}
    lines = [[_words(name), _text(value)] for name, value in facts.items() if name not in tables]
    print_table(title, ["", ""], lines)
    for name, rows in tables.items():
        header = list(dict.fromkeys(key for row in rows for key in row))
        body = [[_text(row.get(key)) for key in header] for row in rows]
        print_table(_words(name), [_words(key) for key in header], body)


def _records(value: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 - a fact may be anything
    """Return the rows of a table that `value` holds: a list of mappings, or mappings by name; else nothing."""
    if isinstance(value, Mapping) and value and all(isinstance(inner, Mapping) for inner in value.values()):
        return [{"name": name, **inner} for name, inner in value.items()]
    if isinstance(value, list) and value and all(isinstance(inner, Mapping) for inner in value):
        return value
    return []


def _words(name: object) -> str:
    return str(name).replace("_", " ")


def _text(value: Any) -> str:  # noqa: ANN401 - a cell may hold anything
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{_words(name)} {_text(inner)}" for name, inner in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_text(inner) for inner in value)
    return str(value)
