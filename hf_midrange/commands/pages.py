"""The commands that show something: `report`, `explore` and `demo`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import hf_midrange as hm
from hf_midrange.commands.options import Config, Output, Overwrite, Seed, Source, Split
from hf_midrange.commands.outputs import new_output
from hf_midrange.io.datasets import one_split, read_dataset


if TYPE_CHECKING:
    from datasets import Dataset


def report(
    dataset: Source,
    output: Output,
    findings: Annotated[Path, typer.Option(help="what `associate` wrote")],
    split: Split = None,
    head: Annotated[str | None, typer.Option(help="the head that `retrain` wrote, or its Hub id")] = None,
    evaluation: Annotated[str | None, typer.Option(help="rows that no head was fitted to, to score on")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Write what was found and done as one page, OUTPUT/report.html, and as OUTPUT/report.json.

    DATASET is what `associate` or, better, `curate` was given or wrote: with bands, concepts, and images or texts.
    """
    from hf_midrange.association.findings import read_findings

    with new_output(output, dataset, overwrite) as new:
        made = hm.report(
            new.rows(dataset, split),
            read_findings(findings),
            None if head is None else hm.LinearHead.from_pretrained(head),
            evaluation=None if evaluation is None else new.rows(evaluation),
            seed=seed,
        )
        page = made.save(new.folder)
    typer.echo(str(made))
    typer.echo(f"wrote {output / page.name}")


def explore(
    dataset: Source,
    findings: Annotated[Path | None, typer.Option(help="what `associate` wrote, to jump to")] = None,
    output: Annotated[Path, typer.Option(help="the folder for edited rows, or for the Space")] = Path("explored"),
    split: Split = None,
    port: Annotated[int | None, typer.Option(help="of the page; by default the first free one from 7860")] = None,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="open the page in a browser")] = True,
    space: Annotated[str | None, typer.Option(help="do not open it: write the folder of this Space, me/name")] = None,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Look at rows along a unit's range in the browser, mark them, and write the edited data set to OUTPUT.

    DATASET is best what `curate` wrote. Needs the extra: pip install 'hf-midrange[explore]'.
    """
    from hf_midrange.association.findings import read_findings
    from hf_midrange.explorer.opening import require_gradio

    try:
        require_gradio()
    except ModuleNotFoundError as error:  # no bug, so no traceback
        raise ValueError(error) from error
    found = None if findings is None else read_findings(findings)
    if space is not None:
        _write_space(dataset, split, found, space, output, overwrite)
        return
    if not overwrite and output.is_dir() and any(output.iterdir()):
        raise ValueError(f"--output {output} is not empty; choose another folder or add --overwrite")
    ds = one_split(read_dataset(dataset, split), dataset)
    hm.explore(ds, found, output_dir=output, port=port, open_browser=browser)


def _write_space(
    dataset: str, split: str | None, findings: Dataset | None, space: str, output: Path, overwrite: bool
) -> None:
    from hf_midrange.explorer.space import write_space

    with new_output(output, dataset, overwrite) as new:
        write_space(new.rows(dataset, split), findings, space, new.folder)
    typer.echo(f"wrote {output}; put it on the Hub, where only you see it, with")
    typer.echo(f"  hf repos create {space} --type space --space-sdk gradio --private")
    typer.echo(f"  hf upload {space} {output} --type space")


def demo(
    seeds: Annotated[int, typer.Option(min=1, help="how many times, each with data of its own")] = 3,
    output: Annotated[Path, typer.Option(help="the folder to write")] = Path("outputs/demo"),
    quick: Annotated[bool, typer.Option("--quick", help="a reduced size, to see that it works")] = False,
    config: Config = None,
) -> None:
    """Show the whole way on real images and a pretrained network, with controls beside it."""
    from datasets import disable_progress_bars
    from transformers.utils.logging import disable_progress_bar

    from hf_midrange.demo import run_demo

    disable_progress_bars()  # of copying and saving; the passes of the network keep theirs
    disable_progress_bar()
    run_demo(seeds=seeds, output=output, quick=quick)
