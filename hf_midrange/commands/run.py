"""The commands that go all the way and that score: `run` and `evaluate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.commands.options import (
    ActOn,
    BatchSize,
    Config,
    Device,
    Head,
    Label,
    MaxLength,
    Model,
    OnError,
    Output,
    Overwrite,
    Precision,
    Processor,
    Seed,
    ShardSize,
    Source,
    Sources,
    Split,
    Workers,
)
from hf_midrange.commands.outputs import new_output
from hf_midrange.commands.steps import classifier_named, saved_processor
from hf_midrange.input_columns import usual_columns
from hf_midrange.io.datasets import one_split, read_dataset
from hf_midrange.io.folders import AlreadyFinishedError


if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset

    from hf_midrange.training import DebiasReport

NOTHING_SHOWN = 3
"""Exit status of a `run` that left the model as it is."""


def run(
    dataset: Source,
    model: Model,
    output: Output,
    split: Split = None,
    test_split: Annotated[str | None, typer.Option(help="split of DATASET to score on, before and after")] = None,
    evaluation: Annotated[str | None, typer.Option(help="other rows to score on; as DATASET")] = None,
    label: Label = None,
    source: Sources = [],  # noqa: B006 - typer copies it
    act_on: ActOn = "shown",
    processor: Processor = None,
    batch_size: BatchSize = 64,
    dtype: Precision = None,
    device: Device = None,
    num_workers: Workers = 0,
    shard_size: ShardSize = 4096,
    head: Head = None,
    max_length: MaxLength = None,
    on_error: OnError = "raise",
    seed: Seed = 0,
    verbose: Annotated[bool, typer.Option("--verbose", help="print all findings, and the curation's figures")] = False,
    overwrite: Overwrite = False,
    config: Config = None,
) -> None:
    """Go all the way: extract, bands, annotate, associate, curate, retrain; without --source, those the columns allow.

    Use rows that the model was not trained on. OUTPUT gets the folders bands, findings, curated and head, the page
    report.html, and model if it was repaired. Exit status: 0 repaired, 3 nothing was shown and the model is left as it
    is.
    """
    from accelerate import PartialState

    from hf_midrange.concepts.usual import source_named
    from hf_midrange.pipeline import STAGES, told
    from hf_midrange.training.debiasing import Debiasing

    sources = [source_named(text) for text in source] or None
    try:
        with new_output(output, dataset, overwrite) as new:
            rows, test = new.rows(dataset, split, encode=False), None
            if evaluation is not None or test_split is not None:
                test = new.rows(evaluation or dataset, test_split, encode=False)
            classifier = classifier_named(model)
            reading = {"dtype": dtype, "device": device, "max_length": max_length, "shard_size": shard_size}
            work = Debiasing(
                classifier, processor or model, seed, new.work, batch_size, num_workers,
                head=head, on_error=on_error, act_on=act_on, reading=reading,
            )  # fmt: skip
            done = work.whole(rows, test, sources, label)
            PartialState().wait_for_everyone()  # before the main process clears away what others read
            if not PartialState().is_main_process:
                return
            told(f"[{STAGES}/{STAGES}] report")
            done.write(new.folder, saved_processor(classifier, processor or model) if done.is_better else None)
    except AlreadyFinishedError as finished:
        typer.echo(f"{finished}; --overwrite does it again")
        raise typer.Exit(0 if (output / "model").is_dir() else NOTHING_SHOWN) from finished
    _tell(done, output, verbose)
    if not done.is_better:
        raise typer.Exit(NOTHING_SHOWN)


def _tell(done: DebiasReport, output: Path, verbose: bool) -> None:
    """Say what was found, how much better the model is, what was written, and what to do next."""
    from hf_midrange.association import findings_table
    from hf_midrange.reporting.tables import print_facts, print_table

    if verbose:
        typer.echo(findings_table(done.findings) if done.findings is not None else "")
        print_facts("curation", done.curation)
    typer.echo(f"\n{done.sentence if done.findings is None else done.report}")
    print_table("accuracy", *done.compared())
    for line in done.told_shortcuts():
        typer.echo(line)
    written = sorted(path.name for path in output.glob("[!.]*"))
    typer.echo(
        f"wrote {output}: {', '.join(written)}" + ("" if done.is_better else "; no model, as it is left as it is")
    )
    typer.echo(f"look: {output / 'report.html'}")
    typer.echo(f"next: {_next(done, output)}")


def _next(done: DebiasReport, output: Path) -> str:
    if done.is_better and done.before is None:
        return f"hf-midrange evaluate TEST_ROWS --model MODEL --head {output / 'head'}"
    return f"hf-midrange explore {output / 'curated'} --findings {output / 'findings'}"


def evaluate(
    dataset: Source,
    split: Split = None,
    model: Annotated[str | None, typer.Option(help="the classifier, where rows are not extracted yet")] = None,
    head: Annotated[Path | None, typer.Option(help="score this head too, beside the model as it is")] = None,
    label: Label = None,
    processor: Processor = None,
    batch_size: BatchSize = 64,
    device: Device = None,
    as_json: Annotated[bool, typer.Option("--json", help="print JSON instead of a table")] = False,
    config: Config = None,
) -> None:
    """Print mean and worst-group accuracy, before and after; without a `group` column the classes are the groups.

    With --model, rows of images or texts go through it; without, they are what `extract` wrote. --head is what `run`
    or `retrain` wrote into OUTPUT/head.
    """
    ds = one_split(read_dataset(dataset, split, encode=model is None), dataset)
    if model is None and not {columns.EMBEDDING, columns.PREDICTION} & {*ds.column_names}:
        raise ValueError(f"{dataset} has not been through a model; give --model, or what `extract` or `run` wrote")
    if model is not None:
        from hf_midrange.training.debiasing import Debiasing

        work = Debiasing(classifier_named(model), processor or model, 0, None, batch_size, reading={"device": device})
        ds = work.extracted(work.table(ds, label))
    else:
        ds = usual_columns(ds, label=label)
    by = columns.GROUP if columns.GROUP in ds.column_names else columns.LABEL
    names = columns.class_label(ds.features, by).names
    predicted = {"before": columns.labels(ds, columns.PREDICTION)} if columns.PREDICTION in ds.column_names else {}
    if head is not None:
        predicted["after"] = _predictions(ds, head)
    scores = {
        name: hm.group_metrics(ids, columns.labels(ds), columns.labels(ds, by), group_names=names)
        for name, ids in predicted.items()
    }
    if as_json:
        before = {"before": scores["before"]} if len(scores) == 2 else {}
        typer.echo(json.dumps({**[*scores.values()][-1], **before}, indent=2))
    else:
        _print_scores(by, scores)


def _predictions(ds: Dataset, head: Path) -> np.ndarray:
    """Return the class ids that a head gives the embeddings, of shape `(n,)`."""
    import numpy as np

    from hf_midrange.io.blocks import blocks, finite_vectors

    columns.require(ds, columns.EMBEDDING)
    loaded = hm.LinearHead.from_pretrained(head)
    found = [loaded(rows).argmax(dim=1).numpy() for _, rows in blocks(finite_vectors(ds, columns.EMBEDDING))]
    return np.concatenate(found)


def _print_scores(by: str, scores: dict[str, dict[str, Any]]) -> None:
    """Print accuracies with their intervals: a row for each group, the worst one and all."""
    from hf_midrange.reporting.tables import print_table

    def shown(share: float, low: float, high: float) -> str:
        return f"{100 * share:.1f} % ({100 * low:.0f} to {100 * high:.0f})"

    first = next(iter(scores.values()))
    rows = [
        [name, str(group["n"]), *(shown(*list(score["groups"][name].values())[:3]) for score in scores.values())]
        for name, group in first["groups"].items()
    ]
    total = str(sum(group["n"] for group in first["groups"].values()))
    for name, key in ((f"worst {by}", "worst_group"), ("all rows", "mean")):
        rows.append([name, "" if key != "mean" else total, *(shown(s[key], *s[f"{key}_ci"]) for s in scores.values())])
    print_table("accuracy, with 95 % intervals", [by, "rows", *scores], rows)
