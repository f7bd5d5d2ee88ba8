"""The commands of one step each: a dataset is read, the function of the same name called, its result written.

Only light modules are imported here, so that `--help` answers at once; each command imports its step.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hf_midrange as hm
from hf_midrange.columns import over_splits
from hf_midrange.commands.options import (
    ActOn,
    BatchSize,
    Config,
    Device,
    Findings,
    FitSplit,
    Head,
    Label,
    MaxLength,
    Model,
    OnError,
    Output,
    Overwrite,
    Precision,
    Processor,
    Rule,
    Seed,
    ShardSize,
    Source,
    Sources,
    Split,
    Strategy,
    Workers,
)
from hf_midrange.commands.outputs import new_output
from hf_midrange.io.datasets import one_split, pick_split, write_dataset
from hf_midrange.processes import is_main, is_one_of_several


if TYPE_CHECKING:
    from torch import nn


def extract(
    dataset: Source,
    model: Model,
    output: Output,
    processor: Processor = None,
    split: Split = None,
    label: Label = None,
    batch_size: BatchSize = 64,
    dtype: Precision = None,
    device: Device = None,
    num_workers: Workers = 0,
    shard_size: ShardSize = 4096,
    head: Head = None,
    max_length: MaxLength = None,
    on_error: OnError = "raise",
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Add embedding, logits and prediction of a model to every row."""
    from hf_midrange.training.debiasing import Debiasing

    shards = output.with_name(f"{output.name}.shards")
    with new_output(output, dataset, overwrite) as new:
        ds, classifier = new.read(dataset, split, encode=False), classifier_named(model)
        extracted = hm.extract(
            over_splits(ds, lambda rows: Debiasing(classifier).table(rows, label, labelled=False)),
            classifier,
            processor or model,
            batch_size=batch_size,
            output_dir=shards,
            dtype=dtype,
            device=device,
            num_workers=num_workers,
            shard_size=shard_size,
            head=head,
            max_length=max_length,
            on_error=on_error,
            overwrite=overwrite,
        )
        if is_main():
            write_dataset(extracted, new.folder)
    if is_main():
        typer.echo(f"wrote {output}; {shards} is only needed to resume and can be deleted")


def bands(
    dataset: Source,
    output: Output,
    rule: Rule = "class-relative",
    edges: Annotated[tuple[float, float] | None, typer.Option(help="lower and upper edge of the middle")] = None,
    n_bands: Annotated[
        int | None, typer.Option(help="so many bands instead of edges, such as 10 for profiles")
    ] = None,
    units: Annotated[str, typer.Option(help="the vector column to divide: logits, embedding or another")] = "logits",
    seed: Seed = 0,
    bands: Annotated[Path | None, typer.Option(help="apply the bands saved here instead of fitting")] = None,
    fit_split: FitSplit = None,
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
    fit_split: FitSplit = None,
    on_error: OnError = "raise",
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
    strategy: Strategy = "auto",
    findings: Findings = None,
    act_on: ActOn = "shown",
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
    from hf_midrange import columns
    from hf_midrange.head.proof import prove_repaired

    with new_output(output, curated, overwrite) as new:
        if not is_main():
            return
        classifier, rows = classifier_named(model), new.rows(curated, split)
        head = hm.retrain_head(rows, classifier, seed=seed)
        head.save_pretrained(new.folder / "head")
        if merge:
            layer = columns.facts(rows.features, columns.LOGITS).get("head")
            merged: Any = head.merge_into(classifier, layer)
            found = saved_processor(classifier, model)
            prove_repaired(merged, None if found is None else rows, found, layer)
            merged.save_pretrained(new.folder / "model")
            if found is not None:
                found.save_pretrained(new.folder / "model")
    typer.echo(f"wrote {output}")


def classifier_named(model: str) -> Any:  # noqa: ANN401 - transformers' or timm's
    """Return the classifier that a folder, a Hub id or a timm name stands for."""
    from transformers.utils.logging import disable_progress_bar

    from hf_midrange.classifier import load_classifier

    disable_progress_bar()  # of reading a file that is here
    return load_classifier(model)


def saved_processor(classifier: nn.Module, model: str | Path) -> Any:  # noqa: ANN401 - of several classes
    """Return the tokenizer or image processor that is stored with a model, or warn that there is none and return None.

    Such as with a timm wrapper built from a config. Code that comes with a model is not run.
    """
    from transformers import AutoImageProcessor, AutoTokenizer

    from hf_midrange.classifier import modality

    auto = AutoTokenizer if modality(classifier) == "text" else AutoImageProcessor
    try:
        return auto.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        warnings.warn(f"{model} has no preprocessing beside the model: {error}", stacklevel=2)
        return None
