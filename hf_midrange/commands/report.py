"""The command `hf-midrange report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hf_midrange.commands.options import Config, Output, Overwrite, Seed, Source, Split


def report(
    dataset: Source,
    output: Output,
    findings: Annotated[Path, typer.Option(help="what `associate` wrote")],
    split: Split = None,
    curated: Annotated[Path | None, typer.Option(help="what `curate` wrote, if not DATASET itself")] = None,
    head: Annotated[str | None, typer.Option(help="the head that `retrain` wrote, or its Hub id")] = None,
    evaluation: Annotated[str | None, typer.Option(help="rows that no head was fitted to, to score on")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Write what was found and done as one page, OUTPUT/report.html, and as OUTPUT/report.json.

    DATASET is what `associate` or, better, `curate` was given or wrote: with bands, concepts, and images or texts.
    """
    import hf_midrange as hm
    from hf_midrange.association.findings import read_findings
    from hf_midrange.commands.outputs import new_output
    from hf_midrange.io.datasets import one_split

    with new_output(output, dataset, overwrite) as new:
        made = hm.report(
            one_split(new.read(dataset, split), dataset),
            read_findings(findings),
            None if curated is None else one_split(new.read(str(curated), split), str(curated)),
            None if head is None else hm.LinearHead.from_pretrained(head),
            evaluation=None if evaluation is None else one_split(new.read(evaluation), evaluation),
            seed=seed,
        )
        page = made.save(new.folder)
    typer.echo(str(made))
    typer.echo(f"wrote {output / page.name}")
