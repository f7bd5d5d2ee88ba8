"""The command `hf-midrange publish`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

import hf_midrange as hm
from hf_midrange.commands.options import Config
from hf_midrange.io.datasets import read_dataset


def publish(
    repo_id: Annotated[str, typer.Argument(metavar="REPO_ID", help="name or namespace/name on the Hub")],
    dataset: Annotated[Path | None, typer.Option(help="the curated data set to publish, as `curate` wrote it")] = None,
    model: Annotated[Path | None, typer.Option(help="the model to publish: a folder with its processor")] = None,
    findings: Annotated[Path | None, typer.Option(help="what `associate` wrote")] = None,
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
    from hf_midrange.commands.models import named_classifier, processor_beside

    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no config.json; `hf-midrange retrain --merge` writes such a folder")
    classifier = named_classifier(str(folder))
    done = hm.publish_model(classifier, repo_id, processor=processor_beside(classifier, folder), **facts, **common)
    typer.echo(f"published {done.pr_url or done.commit_url}")
