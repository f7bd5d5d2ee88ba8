"""Flags that several commands share, and the YAML files that hold flags."""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
import yaml


def read_flags(file: Path, known: Collection[str]) -> dict[str, Any]:
    """Return what a YAML file says: flag, with underscores and without dashes in front -> value.

    Raises:
        ValueError: if the file is not a YAML mapping, or a key is none of the `known` flags (near ones are named).
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date that is none, letters that are no text
        raise ValueError(f"{file} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold lines like 'batch-size: 32', but holds {type(values).__name__}")
    shown = {_plain(name): name for name in known}
    for key in values:
        if _plain(key) not in shown:
            near = [shown[name] for name in get_close_matches(_plain(key), shown)]
            hint = f"did you mean {' or '.join(near)}?" if near else f"known keys: {', '.join(sorted(known))}"
            raise ValueError(f"{file} has the unknown key {str(key)!r}; {hint}")
    return {_plain(key): value for key, value in values.items()}


def _plain(name: object) -> str:
    return str(name).lstrip("-").replace("-", "_")


def _read_config(ctx: typer.Context, file: Path | None) -> Path | None:
    """Make the values of `file` the defaults of the command that runs; flags typed by the user win over them."""
    if file is None or ctx.resilient_parsing:
        return file
    known = _flags(ctx)
    try:
        values = read_flags(file, [flag.replace("_", "-") for flag in known])
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    ctx.default_map = {**(ctx.default_map or {}), **{known[flag]: value for flag, value in values.items()}}
    return file


def _flags(ctx: typer.Context) -> dict[str, str]:
    """Return plain flag name -> parameter name of the command."""
    named = {_plain(flag): parameter.name for parameter in ctx.command.params for flag in parameter.opts}
    return {flag: name for flag, name in named.items() if name is not None and flag not in ("config", "help")}


Source = Annotated[
    str,
    typer.Argument(
        metavar="DATASET",
        help="a saved dataset, an image folder, a csv, json, jsonl or parquet file, or a Hub id",
    ),
]
Output = Annotated[Path, typer.Option(help="the folder to write")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="write into a folder that is not empty")]
Split = Annotated[str | None, typer.Option(help="the split to use")]
Label = Annotated[str | None, typer.Option(help="the column of the classes, where it is not found by its name")]
Findings = Annotated[Path | None, typer.Option(help="what `associate` wrote")]
FitSplit = Annotated[str | None, typer.Option(help="the split to fit on, where there are several")]
Seed = Annotated[int, typer.Option(help="seed of every random choice")]
Sources = Annotated[
    list[str],
    typer.Option(
        help="annotations:COLUMN[,COLUMN], ngrams:COLUMN, text-style:COLUMN, text-topics:COLUMN, "
        "image-properties[:COLUMN], thumbnail[:COLUMN], kinds[:MODEL], latent, predictions:MODEL, "
        "early-features:MODEL, captions:MODEL, zero-shot:LIST:MODEL (LIST: imagenet, colours, scenes, people or "
        "text), or the FILE.json of a fitted source; once per source"
    ),
]
ActOn = Annotated[
    Literal["shown", "suspected"], typer.Option(help="repair what is shown, or also what is only suspected")
]
Strategy = Annotated[
    Literal["auto", "view", "concepts", "mid-minority", "confounder-head", "class-balanced", "group"],
    typer.Option(help="how rows are chosen and weighted"),
]
Rule = Annotated[
    Literal["class-relative", "quantile", "range", "std", "edges"],
    typer.Option(help="what low, mid and high mean: see LogitBands"),
]

# How a model takes rows.
Model = Annotated[str, typer.Option(help="the classifier: a local folder, a Hub id, or a timm name")]
Processor = Annotated[str | None, typer.Option(help="its preprocessing, where not stored with the model")]
BatchSize = Annotated[int, typer.Option(min=1, help="rows in one forward pass")]
Precision = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    typer.Option(help="of the backbone; by default the model's own"),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default what there is")]
Workers = Annotated[int, typer.Option(min=0, help="processes that decode images")]
ShardSize = Annotated[int, typer.Option(min=1, help="rows written at once; the same call resumes there")]
Head = Annotated[str | None, typer.Option(help="name of the classifier's last linear layer")]
MaxLength = Annotated[int | None, typer.Option(min=1, help="most tokens of a text")]
OnError = Annotated[Literal["raise", "skip"], typer.Option(help="what an unreadable row does")]
Config = Annotated[
    Path | None,
    typer.Option(
        help="a YAML file of flags, such as 'batch-size: 32'; flags typed here win",
        callback=_read_config,
        is_eager=True,
        exists=True,
        dir_okay=False,
    ),
]
