"""Accuracy by group before and after the repair, with a control, on rows that the judged head has not seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.curation.cross_validation import cross_validated
from hf_midrange.io.blocks import blocks, finite_vectors
from hf_midrange.publishing.escaping import short_names
from hf_midrange.reporting.inputs import Material
from hf_midrange.scoring import group_metrics
from hf_midrange.verdicts import unchanged


if TYPE_CHECKING:
    from hf_midrange.head import LinearHead

BEFORE, CROSSED, RANDOM, AFTER = "before", "after, cross-validated", "control: random rows", "after"
OWN_ROWS = "after, own rows"


def groups_of(material: Material, head: LinearHead | None, evaluation: Dataset | None, seed: int) -> dict[str, Any]:
    """Return accuracy by `group`, or without such a column by pseudo-group, or by label.

    On rows of its own (`evaluation`) the head is scored as it is. On the curated rows themselves, to which the head
    was fitted, "after" comes from corrections fitted without the row's fold, and so does the control: the same weights
    on random rows of the same class. The head's own accuracy there stands beside them, called what it is.
    """
    rows = material.ds if evaluation is None else evaluation
    columns.require(rows, columns.LABEL, columns.LOGITS)
    same = evaluation is None and material.curation is not None and columns.EMBEDDING in rows.column_names
    by = columns.GROUP if columns.GROUP in rows.column_names else columns.PSEUDO_GROUP if same else columns.LABEL
    names, ids = short_names(columns.class_label(rows.features, by).names), columns.labels(rows, by)
    told = {BEFORE: ("the network as it was", columns.matrix(rows, columns.LOGITS).argmax(axis=1))}
    if same and not unchanged(material.curation or {}):
        told |= _crossed(rows, seed)
    if head is not None:
        note = "the given head, on rows that it was fitted to: too good" if same else "the given head"
        embedding = finite_vectors(rows, columns.EMBEDDING)
        predicted = np.concatenate([head(block).argmax(dim=1).numpy() for _, block in blocks(embedding)])
        told[OWN_ROWS if same else AFTER] = (note, predicted)
    truth = columns.labels(rows)
    scores: list[dict[str, Any]] = [
        {"name": name, "note": note, "metrics": group_metrics(predicted, truth, ids, group_names=names)}
        for name, (note, predicted) in told.items()
    ]
    found = scores[0]["metrics"]["groups"]
    return {"by": by, "names": sorted(found, key=lambda name: found[name]["accuracy"]), "scores": scores}


def shuffled_within(labels: np.ndarray, weights: np.ndarray, seed: int) -> np.ndarray:
    """Return the weights, of shape `(n,)`, given to random rows of the same label: "is it these rows, or any?"."""
    shuffled, rng = weights.copy(), np.random.default_rng(seed)
    for k in np.unique(labels):
        rows = np.flatnonzero(labels == k)
        shuffled[rows] = weights[rng.permutation(rows)]
    return shuffled


def _crossed(curated: Dataset, seed: int) -> dict[str, tuple[str, np.ndarray]]:
    """Return predictions by cross-validated corrections with the curated weights, and with the same ones shuffled."""
    weights = columns.numbers(curated, columns.WEIGHT)
    notes = {
        CROSSED: (weights, "the last layer corrected with the curated weights, without the row's fold"),
        RANDOM: (
            shuffled_within(columns.labels(curated), weights, seed),
            "the same weights on random rows of the same class, without the row's fold",
        ),
    }
    return {name: (note, cross_validated(curated, chosen, seed)) for name, (chosen, note) in notes.items()}
