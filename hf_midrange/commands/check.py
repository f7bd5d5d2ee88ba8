"""`check`: a gate for builds and releases."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hf_midrange as hm
from hf_midrange.commands.options import Config, Seed, Split
from hf_midrange.io.datasets import one_split, read_dataset
from hf_midrange.io.files import write_atomically


def check(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="the classifier: a local folder, a Hub id or a timm name")
    ],
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="rows that it was not trained on, as in `run`")],
    baseline: Annotated[
        str | None, typer.Option(help="what a good model measured: a file, a folder or a Hub id; or the other model")
    ] = None,
    floor: Annotated[float | None, typer.Option(help="accuracy that no group may lie below, such as 0.8")] = None,
    alpha: Annotated[float, typer.Option(min=0, max=1, help="level of each of the three tests")] = 0.01,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="fall of accuracy that is let pass")] = 0.02,
    split: Split = None,
    save_baseline: Annotated[Path | None, typer.Option(help="keep what this model measures in this folder")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of sentences")] = False,
    junit: Annotated[Path | None, typer.Option(help="also write JUnit's XML into this file")] = None,
    markdown: Annotated[Path | None, typer.Option(help="also write a summary in Markdown into this file")] = None,
    seed: Seed = 0,
    config: Config = None,
) -> None:
    """Say whether MODEL is as good as a floor or a baseline, without new shortcuts and without drift.

    Exits 0 pass, 1 fail, 2 bad usage, 3 cannot tell: too few rows, logits that are not finite.
    """
    try:
        rows = one_split(read_dataset(dataset, split), dataset)
        made = hm.check(model, rows, baseline=baseline, floor=floor, alpha=alpha, tolerance=tolerance, seed=seed)
        for file, text in ((junit, made.to_junit()), (markdown, made.to_markdown())):
            if file is not None:
                write_atomically(file, text)
        if save_baseline is not None and made.baseline is not None:
            made.baseline.save_pretrained(save_baseline)
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise typer.BadParameter(str(error.args[0] if isinstance(error, KeyError) else error)) from error
    typer.echo(made.to_json() if as_json else str(made))
    raise typer.Exit(made.exit_status)
