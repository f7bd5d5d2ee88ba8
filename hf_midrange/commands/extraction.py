"""The commands `hf-midrange extract` and `hf-midrange run`, which take a model over all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import hf_midrange as hm
from hf_midrange.commands.options import (
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
from hf_midrange.commands.outputs import new_output
from hf_midrange.io.datasets import write_dataset


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

    with new_output(output, dataset, overwrite) as new:
        extracted = hm.extract(
            new.read(dataset, split),
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
            write_dataset(extracted, new.folder)
    if PartialState().is_main_process:
        typer.echo(f"wrote {output}; {_shards_of(output)} is only needed to resume and can be deleted")


def run(
    dataset: Source,
    model: Model,
    output: Output,
    split: Split = None,
    source: Sources = [],  # noqa: B006 - typer copies it
    batch_size: BatchSize = 64,
    on_error: Annotated[OnError, typer.Option(help="what an unreadable row does")] = "raise",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Go all the way: extract, bands, annotate, associate, curate, retrain; without --source, those the columns allow.

    OUTPUT gets the folders bands, findings, curated, head and model, and report.html. Use rows that the model was not
    trained on.
    """
    from accelerate import PartialState

    from hf_midrange.association import findings_table
    from hf_midrange.commands.models import named_classifier, save_repaired
    from hf_midrange.concepts.usual import source_named
    from hf_midrange.reporting.tables import print_facts
    from hf_midrange.training.debiasing import Debiasing

    with new_output(output, dataset, overwrite) as new:
        classifier = named_classifier(model)
        steps = Debiasing(classifier, model, seed, new.work, batch_size, on_error=on_error)
        rows = steps.table(new.rows(dataset, split))
        done = steps.run(rows, None, [source_named(text) for text in source] or None)
        PartialState().wait_for_everyone()  # before the main process clears away what others read
        if not PartialState().is_main_process:
            return
        done.write(new.folder)
        save_repaired(done.head, classifier, model, new.folder / "model")
    if done.findings is not None:
        typer.echo(findings_table(done.findings))
    print_facts("curation", done.curation)
    typer.echo(f"wrote {output}")


def _shards_of(output: Path) -> Path:
    return output.with_name(f"{output.name}.shards")
