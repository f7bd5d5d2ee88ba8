"""The commands that show and share what was found: `report`, `explore`, `demo` and `publish`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hf_midrange as hm
from hf_midrange.commands.options import Config, Findings, Output, Overwrite, Seed, Source, Split
from hf_midrange.commands.outputs import new_output
from hf_midrange.commands.steps import classifier_named, saved_processor
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
    from hf_midrange.explorer.opening import write_space

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
    typer.echo("reading a pretrained network and handwritten digits")
    from transformers.utils.logging import disable_progress_bar

    from hf_midrange.demo import run_demo

    disable_progress_bar()
    run_demo(seeds=seeds, output=output, quick=quick)


def publish(
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="name or namespace/name on the Hub")],
    dataset: Annotated[Path | None, typer.Option(help="the curated data set to publish, as `curate` wrote it")] = None,
    model: Annotated[Path | None, typer.Option(help="the model to publish: a folder with its processor")] = None,
    findings: Findings = None,
    bands: Annotated[Path | None, typer.Option(help="the folder with bands.json")] = None,
    metrics: Annotated[Path | None, typer.Option(help="what `evaluate --json` printed of the model")] = None,
    metrics_of: Annotated[str | None, typer.Option(help="Hub id of the data set those metrics are of")] = None,
    source: Annotated[str | None, typer.Option(help="Hub id of the data set that the rows come from")] = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id of the model before repair")] = None,
    license: Annotated[str | None, typer.Option(help="as the Hub calls it, such as apache-2.0")] = None,
    public: Annotated[bool, typer.Option("--public", help="for everyone to see; by default private")] = False,
    revision: Annotated[str | None, typer.Option(help="the branch to publish to, made if need be")] = None,
    commit_message: Annotated[str | None, typer.Option(help="of the commit, or title of the pull request")] = None,
    create_pr: Annotated[
        bool, typer.Option("--create-pr", help="open a pull request on a repository that exists, and commit nothing")
    ] = False,
    config: Config = None,
) -> None:
    """Put a curated data set, a model, or both on the Hub, each with its card and in one commit.

    The token is the one of `hf auth login` or of the environment variable HF_TOKEN; it needs write access.
    """
    from hf_midrange.association.findings import read_findings

    if dataset is None and model is None:
        raise typer.BadParameter("give --dataset, --model, or both")
    common: dict[str, Any] = {
        "findings": None if findings is None else read_findings(findings),
        "license": license,
        "private": not public,
        "revision": revision,
        "commit_message": commit_message,
        "create_pr": create_pr,
    }
    curated_id = None
    if dataset is not None:
        curated_id = _publish_dataset(repo_id, dataset, bands, source, common)
    if model is not None:
        measured = None if metrics is None else json.loads(metrics.read_text(encoding="utf-8"))
        facts = {"metrics": measured, "dataset": metrics_of, "base_model": base_model, "curated_id": curated_id}
        _publish_model(repo_id, model, facts, common)


def _publish_dataset(
    repo_id: str, dataset: Path, bands: Path | None, source: str | None, common: dict[str, Any]
) -> str:
    fitted = None if bands is None else hm.LogitBands.from_pretrained(bands)
    done = hm.publish_dataset(read_dataset(str(dataset)), repo_id, bands=fitted, source=source, **common)
    typer.echo(f"published {done.pr_url or done.commit_url}")
    return str(done.repo_url.repo_id)


def _publish_model(repo_id: str, folder: Path, facts: dict[str, Any], common: dict[str, Any]) -> None:
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(
            f"{folder} holds no config.json; `hf-midrange run` and `retrain --merge` write such a folder, OUTPUT/model"
        )
    classifier = classifier_named(str(folder))
    done = hm.publish_model(classifier, repo_id, processor=saved_processor(classifier, folder), **facts, **common)
    typer.echo(f"published {done.pr_url or done.commit_url}")
