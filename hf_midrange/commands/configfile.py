"""YAML files that hold the flags of a command."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer
import yaml


_NOT_IN_FILES = ("config", "help")


def read_config(ctx: typer.Context, file: Path | None) -> Path | None:
    """Make the values of `file` the defaults of the command that runs; flags typed by the user win over them.

    An eager callback of `--config`. Keys are the command's flags and arguments without dashes in front; `batch-size`
    and `batch_size` are the same.

    Raises:
        typer.BadParameter: if the file is not a YAML mapping, or a key is no flag of the command (the near ones are
            named).
    """
    if file is None or ctx.resilient_parsing:
        return file
    known = _flags(ctx)
    values = _mapping(file)
    for key in values:
        if _plain(key) not in known:
            raise typer.BadParameter(_unknown(file, str(key), list(known)))
    ctx.default_map = {**(ctx.default_map or {}), **{known[_plain(key)]: value for key, value in values.items()}}
    return file


def _flags(ctx: typer.Context) -> dict[str, str]:
    """Return plain flag name -> parameter name of the command."""
    named = {_plain(flag): parameter.name for parameter in ctx.command.params for flag in parameter.opts}
    return {flag: name for flag, name in named.items() if name is not None and flag not in _NOT_IN_FILES}


def _mapping(file: Path) -> dict[Any, Any]:
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, letters that are no text
        raise typer.BadParameter(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise typer.BadParameter(f"{file} must hold lines like 'batch-size: 32', but holds {type(values).__name__}")
    return values


def _unknown(file: Path, key: str, known: list[str]) -> str:
    near = [name.replace("_", "-") for name in get_close_matches(_plain(key), known)]
    names = ", ".join(sorted(name.replace("_", "-") for name in known))
    hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {names}"
    return f"{file} has the unknown key {key!r}; {hint}"


def _plain(name: object) -> str:
    return str(name).lstrip("-").replace("-", "_")
