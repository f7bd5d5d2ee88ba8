"""The command line: one command per step, each the package function of the same name with a dataset read and written.

Only light modules are imported here, so that `--help` answers at once; each command imports its step.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, TextIO

import typer

from hf_midrange import __version__
from hf_midrange.options import (
    BatchSize,
    Config,
    Model,
    OnError,
    Output,
    Overwrite,
    Precision,
    Seed,
    Source,
    Sources,
    Split,
)
from hf_midrange.publish_command import publish
from hf_midrange.report_command import report


app = typer.Typer(
    help="Find the shortcuts a classifier learnt in the middle of its logits, and repair its head.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.command()
def extract(
    dataset: Source,
    model: Model,
    output: Output,
    processor: Annotated[str | None, typer.Option(help="its preprocessing, where not stored with the model")] = None,
    split: Split = None,
    batch_size: BatchSize = 64,
    dtype: Annotated[Precision | None, typer.Option(help="of the backbone; by default the model's own")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; by default what there is")] = None,
    num_workers: Annotated[int, typer.Option(min=0, help="processes that decode images")] = 0,
    shard_size: Annotated[int, typer.Option(min=1, help="rows written at once; the same call resumes there")] = 4096,
    head: Annotated[str | None, typer.Option(help="name of the classifier's last linear layer")] = None,
    max_length: Annotated[int | None, typer.Option(min=1, help="most tokens of a text")] = None,
    on_error: Annotated[OnError, typer.Option(help="what an unreadable row does")] = "raise",
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Add embedding, logits and prediction of a model to every row."""
    from accelerate import PartialState

    import hf_midrange as hm
    from hf_midrange.datafiles import claim_output, read_dataset, write_dataset

    claim_output(output, dataset, overwrite)
    extracted = hm.extract(
        read_dataset(dataset, split),
        model,
        processor,
        batch_size=batch_size,
        output_dir=_shards_of(output),
        dtype=dtype,
        device=device,
        num_workers=num_workers,
        shard_size=shard_size,
        head=head,
        max_length=max_length,
        on_error=on_error,
        overwrite=overwrite,
    )
    if PartialState().is_main_process:
        write_dataset(extracted, output)
        typer.echo(f"wrote {output}; {_shards_of(output)} is only needed to resume and can be deleted")


@app.command()
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
    import hf_midrange as hm
    from hf_midrange.datafiles import claim_output, one_split, read_dataset, write_dataset

    claim_output(output, dataset, overwrite)
    ds = read_dataset(dataset)
    if bands is None:
        fit_on = read_dataset(dataset, fit_split) if fit_split else one_split(ds, dataset)
        fitted = hm.LogitBands(rule=rule, edges=edges, n_bands=n_bands, units=units).fit(fit_on, seed=seed)
    else:
        fitted = hm.LogitBands.from_pretrained(bands)
    write_dataset(fitted.transform(ds), output)
    fitted.save_pretrained(output / "bands")
    typer.echo(f"wrote {output}")


@app.command()
def annotate(
    dataset: Source,
    output: Output,
    source: Sources,
    fit_split: Annotated[str | None, typer.Option(help="the split to fit on, where there are several")] = None,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Add the concepts of every row, one column per source; the fitted sources are saved in OUTPUT/sources."""
    import hf_midrange as hm
    from hf_midrange.arguments import concept_source
    from hf_midrange.datafiles import claim_output, read_dataset, write_dataset

    claim_output(output, dataset, overwrite)
    sources = [concept_source(text) for text in source]
    annotated = hm.annotate(read_dataset(dataset), sources, fit_split=fit_split, output_dir=output / "sources")
    write_dataset(annotated, output)
    typer.echo(f"wrote {output}")


@app.command()
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
    from hf_midrange import association
    from hf_midrange.datafiles import claim_output, one_split, read_dataset, write_dataset
    from hf_midrange.tables import print_findings

    claim_output(output, dataset, overwrite)
    findings = association.associate(one_split(read_dataset(dataset, split), dataset), alpha=alpha, seed=seed)
    write_dataset(findings, output)
    print_findings(findings, rows)
    typer.echo(f"wrote {output}")


@app.command()
def curate(
    dataset: Source,
    output: Output,
    split: Split = None,
    strategy: Annotated[str, typer.Option(help="how rows are chosen and weighted")] = "auto",
    findings: Annotated[Path | None, typer.Option(help="what `associate` wrote")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Choose and weight the rows to retrain on, each with its reason; the report is printed."""
    from hf_midrange import curation
    from hf_midrange.datafiles import claim_output, one_split, read_dataset, write_dataset
    from hf_midrange.tables import print_facts

    claim_output(output, dataset, overwrite)
    ds = one_split(read_dataset(dataset, split), dataset)
    found = None if findings is None else one_split(read_dataset(str(findings)), str(findings))
    curated = curation.curate(ds, found, strategy=strategy, seed=seed)
    write_dataset(curated, output)
    print_facts("curation", curation.curation_report(curated))
    typer.echo(f"wrote {output}")


@app.command()
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
    import hf_midrange as hm
    from hf_midrange.arguments import named_classifier, save_repaired
    from hf_midrange.datafiles import claim_output, one_split, read_dataset

    claim_output(output, curated, overwrite)
    classifier = named_classifier(model)
    head = hm.retrain_head(one_split(read_dataset(curated, split), curated), classifier, seed=seed)
    head.save_pretrained(output / "head")
    if merge:
        save_repaired(head, classifier, model, output / "model")
    typer.echo(f"wrote {output}")


@app.command()
def evaluate(
    dataset: Source,
    split: Split = None,
    head: Annotated[Path | None, typer.Option(help="score this head on the embeddings, not `prediction`")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    config: Config = None,
) -> None:
    """Print mean and worst-group accuracy; without a `group` column the classes are the groups."""
    import hf_midrange as hm
    from hf_midrange import columns
    from hf_midrange.arguments import predictions_of
    from hf_midrange.datafiles import one_split, read_dataset
    from hf_midrange.tables import print_facts

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


@app.command()
def run(
    dataset: Source,
    model: Model,
    output: Output,
    split: Split = None,
    source: Sources = [],  # noqa: B006 - typer copies it
    batch_size: BatchSize = 64,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Go all the way: extract, bands, annotate, associate, curate, retrain; without --source, those the columns allow.

    OUTPUT gets the folders bands, findings, curated, head and model. Use rows that the model was not trained on.
    """
    from accelerate import PartialState

    import hf_midrange as hm
    from hf_midrange.arguments import concept_source, repair, usual_sources
    from hf_midrange.datafiles import claim_output, one_split, read_dataset

    claim_output(output, dataset, overwrite)
    ds = one_split(read_dataset(dataset, split), dataset)
    sources = [concept_source(text) for text in source or usual_sources(ds)]
    extracted = hm.extract(ds, model, batch_size=batch_size, output_dir=_shards_of(output), overwrite=overwrite)
    if PartialState().is_main_process:
        repair(extracted, model, sources, output, seed)
        typer.echo(f"wrote {output}; {_shards_of(output)} is only needed to resume and can be deleted")


@app.command()
def demo(
    task: Annotated[str, typer.Option(help="dominoes or sprites")] = "dominoes",
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
    run_demo(task=task, seeds=seeds, output=output, quick=quick)


app.command()(publish)
app.command()(report)


def _shards_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.shards")


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="print the version and exit")] = False) -> None:
    if version:
        typer.echo(f"hf-midrange {__version__}")
        raise typer.Exit


def main(argv: list[str] | None = None) -> None:
    """Run the command line `argv` (by default that of the process) and exit.

    Bad usage exits 2. What the package refuses (`ValueError`, `KeyError`, `TypeError`, `FileNotFoundError`) is one
    line on standard error and exit 1; any other exception is a bug and keeps its traceback.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning  # the context puts the old one back
            app(args=argv, prog_name="hf-midrange")
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        _say("error", message, "red")
        sys.exit(1)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    _say("warning", message, "yellow")


def _say(kind: str, message: object, colour: str) -> None:
    typer.secho(f"{kind}: {' '.join(str(message).split())}", fg=colour, err=True)


if __name__ == "__main__":
    main()
