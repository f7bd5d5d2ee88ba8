"""Flags that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from hf_midrange.commands.configfile import read_config


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
Model = Annotated[str, typer.Option(help="the classifier: a local folder, a Hub id, or a timm name")]
Seed = Annotated[int, typer.Option(help="seed of every random choice")]
Sources = Annotated[
    list[str],
    typer.Option(
        help="annotations:COLUMN[,COLUMN], ngrams:COLUMN, text-style:COLUMN, image-properties[:COLUMN], "
        "thumbnail[:COLUMN], latent, predictions:MODEL, early-features:MODEL, captions:MODEL, zero-shot:LIST:MODEL "
        "(LIST: imagenet, colours, scenes, people or text), or the FILE.json of a fitted source; once per source"
    ),
]
Precision = Literal["float32", "bfloat16", "float16"]
OnError = Literal["raise", "skip"]
BatchSize = Annotated[int, typer.Option(min=1, help="rows in one forward pass")]
Config = Annotated[
    Path | None,
    typer.Option(
        help="a YAML file of flags, such as 'batch-size: 32'; flags typed here win",
        callback=read_config,
        is_eager=True,
        exists=True,
        dir_okay=False,
    ),
]
