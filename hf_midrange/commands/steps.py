"""The commands of one step each: a dataset is read, the function of the same name called, its result written.

Only light modules are imported here, so that `--help` answers at once; each command imports its step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.commands.options import (
    Config,
    Model,
    OnError,
    Output,
    Overwrite,
    Seed,
    Source,
    Sources,
    Split,
)
from hf_midrange.commands.outputs import new_output
from hf_midrange.io.datasets import one_split, pick_split, read_dataset, write_dataset
from hf_midrange.processes import is_main, is_one_of_several


def bands(
    dataset: Source,
    output: Output,
    rule: Annotated[str, typer.Option(help="what low, mid and high mean: see LogitBands")] = "class-relative",
    edges: Annotated[tuple[float, float] | None, typer.Option(help="lower and upper edge of the middle")] = None,
    n_bands: Annotated[
        int | None, typer.Option(help="so many bands instead of edges, such as 10 for profiles")
    ] = None,
    units: Annotated[str, typer.Option(help="the vector column to divide: logits, embedding or another")] = "logits",
    seed: Seed = 0,
    bands: Annotated[Path | None, typer.Option(help="apply the bands saved here instead of fitting")] = None,
    fit_split: Annotated[str | None, typer.Option(help="the split to fit on, where there are several")] = None,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Add quantile, position and band of every unit; the fitted bands are saved in OUTPUT/bands."""
    with new_output(output, dataset, overwrite) as new:
        ds = new.read(dataset)
        if bands is None:
            fit_on = pick_split(ds, fit_split, dataset) if fit_split else one_split(ds, dataset)
            fitted = hm.LogitBands(rule=rule, edges=edges, n_bands=n_bands, units=units).fit(fit_on, seed=seed)
        else:
            fitted = hm.LogitBands.from_pretrained(bands)
        write_dataset(fitted.transform(ds), new.folder)
        fitted.save_pretrained(new.folder / "bands")
    typer.echo(f"wrote {output}")


def annotate(
    dataset: Source,
    output: Output,
    source: Sources,
    fit_split: Annotated[str | None, typer.Option(help="the split to fit on, where there are several")] = None,
    on_error: Annotated[OnError, typer.Option(help="what an unreadable row does")] = "raise",
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Add the concepts of every row, one column per source; the fitted sources are saved in OUTPUT/sources."""
    from hf_midrange.concepts.usual import source_named

    with new_output(output, dataset, overwrite) as new:
        sources = [source_named(text) for text in source]
        if not is_main() and not any(one.costly for one in sources):
            return  # only models are worth sharing
        ds = new.read(dataset)
        annotated = hm.annotate(ds, sources, fit_split=fit_split, output_dir=new.work, on_error=on_error)
        if is_main():
            write_dataset(annotated, new.folder)
            (new.folder / "sources").mkdir()
            for fitted in new.work.glob("*.json"):
                fitted.replace(new.folder / "sources" / fitted.name)
    if is_main():
        typer.echo(f"wrote {output}")


def associate(
    dataset: Source,
    output: Output,
    split: Split = None,
    alpha: Annotated[float, typer.Option(min=0.0, max=1.0, help="false discovery rate")] = 0.05,
    seed: Seed = 0,
    rows: Annotated[int, typer.Option(min=1, help="findings to print; all are written")] = 20,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Find which concepts fill which band of which logit; the findings are written and printed."""
    from hf_midrange.association import findings_table

    with new_output(output, dataset, overwrite) as new:
        ds = new.rows(dataset, split)
        findings = hm.associate(ds, alpha=alpha, seed=seed, distributed=is_one_of_several())
        write_dataset(findings, new.folder)
    if is_main():
        typer.echo(findings_table(findings, rows))
        typer.echo(f"wrote {output}")


def curate(
    dataset: Source,
    output: Output,
    split: Split = None,
    strategy: Annotated[str, typer.Option(help="how rows are chosen and weighted")] = "auto",
    findings: Annotated[Path | None, typer.Option(help="what `associate` wrote")] = None,
    act_on: Annotated[str, typer.Option(help="repair what is 'shown', or also what is only 'suspected'")] = "shown",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Choose and weight the rows to retrain on, each with its reason; the report is printed."""
    from hf_midrange.association.findings import read_findings
    from hf_midrange.reporting.tables import print_facts

    with new_output(output, dataset, overwrite) as new:
        ds = new.rows(dataset, split)
        found = None if findings is None else read_findings(findings)
        curated = hm.curate(ds, found, strategy=strategy, seed=seed, act_on=act_on)
        write_dataset(curated, new.folder)
    print_facts("curation", hm.curation_report(curated))
    typer.echo(f"wrote {output}")


def retrain(
    curated: Source,
    model: Model,
    output: Output,
    split: Split = None,
    merge: Annotated[bool, typer.Option("--merge", help="also write the repaired model and its processor")] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Correct the last linear layer of MODEL on curated rows; OUTPUT/head holds it, OUTPUT/model the merged model."""
    from hf_midrange.commands.models import named_classifier, save_repaired

    with new_output(output, curated, overwrite) as new:
        if not is_main():
            return
        classifier = named_classifier(model)
        head = hm.retrain_head(new.rows(curated, split), classifier, seed=seed)
        head.save_pretrained(new.folder / "head")
        if merge:
            save_repaired(head, classifier, model, new.folder / "model")
    typer.echo(f"wrote {output}")


def evaluate(
    dataset: Source,
    split: Split = None,
    head: Annotated[Path | None, typer.Option(help="score this head on the embeddings, not `prediction`")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    config: Config = None,
) -> None:
    """Print mean and worst-group accuracy; without a `group` column the classes are the groups."""
    from hf_midrange.commands.models import predictions_of
    from hf_midrange.reporting.tables import print_facts

    ds = one_split(read_dataset(dataset, split), dataset)
    by = columns.GROUP if columns.GROUP in ds.column_names else columns.LABEL
    loaded = None if head is None else hm.LinearHead.from_pretrained(head)
    names = columns.class_label(ds.features, by).names
    metrics = hm.group_metrics(
        predictions_of(ds, loaded), columns.labels(ds), columns.labels(ds, by), group_names=names
    )
    if as_json:
        typer.echo(json.dumps(metrics, indent=2))
    else:
        print_facts(f"accuracy by {by}", metrics)
