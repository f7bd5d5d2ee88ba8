"""A fine-tuned network repaired on the validation split and scored on the test, beside what others published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from torch import nn
from wilds_published import FIGURES
from wilds_scores import overlapping_group_metrics

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.classifier import load_classifier
from hf_midrange.concepts.usual import usual_sources
from hf_midrange.pipeline import curated_from


ERM, OURS, BALANCED, ORACLE = "ERM", "hf_midrange", "class-balanced, same head", "true groups, same head"
GROUPS_USED = {ERM: "none", OURS: "none", BALANCED: "none", ORACLE: "validation, to fit"}
"""Which group labels a row of ours needs; the test's are for scoring alone."""


def compared(
    data: DatasetDict,
    model: nn.Module | str | Path,
    processor: Any = None,  # noqa: ANN401 - as `extract` takes
    *,
    sources: Sequence[Any] | None = None,
    batch_size: int = 64,
    seed: int = 0,
    output_dir: Path | None = None,
) -> dict[str, Any]:
    """Return the test scores of a trained network before and after its repair on the validation split.

    Args:
        data: what one of the readers returned, or the same saved and loaded again.
        model: the network trained on its `train` split, or the folder it is in.
        processor: its preprocessing; None takes what is stored with the model.
        sources: concepts to look for; None takes the usual ones of images or texts.
        batch_size: rows a forward pass.
        seed: of the halves and the subset.
        output_dir: where extraction keeps its shards, so that it can go on; None: nowhere.

    Returns:
        `{"methods": {name: scores}, "groups_used": {name: words}, "curation": report, "rows": {split: rows}}`; scores
        are those of `group_metrics`, or `overlapping_group_metrics` where identities overlap. `true groups` is there
        only where the validation split has `group`.
    """
    network = load_classifier(model) if isinstance(model, str | Path) else model
    inputs = processor if processor is not None or isinstance(model, nn.Module) else model

    def extracted(split: str) -> Dataset:
        place = None if output_dir is None else output_dir / split
        return hm.extract(data[split], network, inputs, batch_size=batch_size, output_dir=place)

    validation, test = extracted("validation"), extracted("test")
    found = usual_sources(validation, network, inputs) if sources is None else sources
    curated = curated_from(validation, found, seed).curated
    heads = {ERM: hm.LinearHead.from_model(network), OURS: hm.retrain_head(curated, network, seed=seed)}
    controls = {BALANCED: "class-balanced"} | ({ORACLE: "group"} if columns.GROUP in validation.column_names else {})
    for name, strategy in controls.items():
        rows = hm.curate(validation, strategy=strategy, seed=seed)
        heads[name] = hm.retrain_head(rows, network, seed=seed, force=True)
    embedding = columns.matrix(test, columns.EMBEDDING)
    scores = {name: scored(head(embedding).argmax(dim=1).numpy(), test, data["train"]) for name, head in heads.items()}
    return {
        "methods": scores,
        "groups_used": {name: GROUPS_USED[name] for name in scores},
        "curation": hm.curation_report(curated),
        "rows": {name: len(part) for name, part in data.items()},
    }


def scored(predictions: np.ndarray, test: Dataset, train: Dataset) -> dict[str, Any]:
    """Return scores by `group`, with the mean by training shares too, or by overlapping identities without one."""
    if columns.GROUP not in test.column_names:
        return overlapping_group_metrics(predictions, test)
    names = columns.class_label(test.features, columns.GROUP).names
    shares = np.bincount(columns.labels(train, columns.GROUP), minlength=len(names)) / len(train)
    groups = columns.labels(test, columns.GROUP)
    return hm.group_metrics(
        predictions, columns.labels(test), groups, group_names=names, train_group_shares=shares.tolist()
    )


def markdown(facts: dict[str, Any], benchmark: str) -> str:
    """Return two tables: what `compared` found, and what others published of the same benchmark.

    Raises:
        KeyError: if no such benchmark is known.
    """
    ours = [
        "| head | group labels used | worst group % | mean % | mean by training shares % |",
        "|---|---|---|---|---|",
    ]
    for name, row in facts["methods"].items():
        low, high = (_percent(bound) for bound in row["worst_group_ci"])
        cells = [name, facts["groups_used"][name], f"{_percent(row['worst_group'])} [{low}, {high}]"]
        ours.append(f"| {' | '.join([*cells, _percent(row['mean']), _percent(row.get('mean_reweighted'))])} |")
    theirs = ["| published | group labels used | worst group % | mean % | source |", "|---|---|---|---|---|"]
    for figure in FIGURES[benchmark]:
        cells = [figure.method, figure.groups, _number(figure.worst), _number(figure.mean), figure.source]
        theirs.append(f"| {' | '.join(cells)} |")
    if not FIGURES[benchmark]:
        theirs = ["Nothing published is listed here for this kind of groups: other kinds cannot be compared."]
    verdict = facts["curation"]["verdict"]
    return "\n".join([f"Verdict: {verdict}. Worst group with its 95 % interval.", "", *ours, "", *theirs]) + "\n"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
