"""From a curated dataset to a repaired head."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
import torch
from datasets import Dataset, DatasetDict

from hf_midrange import columns
from hf_midrange.curation.report import LEFT_OUT, NOTHING, curation_report
from hf_midrange.head.convex import Penalty
from hf_midrange.head.correction import fit_head
from hf_midrange.head.linear_head import LinearHead


def retrain_head(
    curated: Dataset,
    model: torch.nn.Module | LinearHead | None = None,
    *,
    prior: Literal["erm", "none"] = "erm",
    penalty: Penalty = "l2",
    strength: float | None = None,
    subsamples: int = 0,
    force: bool = False,
    seed: int = 0,
) -> LinearHead:
    """Return a head retrained on the weighted embeddings of a curated dataset.

    With a `model` and `prior="erm"`, the model's own head is corrected: only the difference to it is penalised.
    Otherwise a new head is fitted. The problem is convex and solved in double precision, so the result depends on no
    seed unless `subsamples` are drawn. A CUDA device is used if there is one.

    Args:
        curated: a split that `curate` returned, with `embedding`, `label` and `weight`.
        model: the classifier or head to correct; None: a new head.
        prior: `"erm"` corrects the given head, `"none"` fits a new one.
        penalty: `"l2"` (ridge) or `"l1"` (lasso).
        strength: factor of the penalty; None: `.84 / C` for an L2 correction, `.04 / C` for a new L2 head, `.01`
            for l1.
        subsamples: if positive, average this many heads, each fitted on a random subset with all pseudo-groups of the
            size of the smallest (the recipe of DFR, Kirichenko et al. 2023), instead of weighting.
        force: retrain although the report says that there is nothing to repair.
        seed: of the subsamples.

    Returns:
        The head, acting on raw embeddings; the given head unchanged if the report's verdict is "nothing to repair".

    Raises:
        KeyError: if a column is missing.
        ValueError: for NaN, negative weights, a weight of zero in a row that is not left out, a class without weight,
            or embeddings of another width than the head's.
    """
    if isinstance(curated, DatasetDict):
        raise TypeError(f"`retrain_head` takes one split, not a DatasetDict; choose one of {list(curated)}")
    _check_choice("prior", prior, ("erm", "none"))
    _check_choice("penalty", penalty, ("l2", "l1"))
    given = LinearHead.from_model(model) if isinstance(model, torch.nn.Module) else model
    if (strength is not None and not strength > 0) or subsamples < 0:
        raise ValueError(f"`strength` must be positive and `subsamples` not negative, not {strength} and {subsamples}")
    embedding, labels, weights = _arrays(curated, given)
    if given is not None and not force and _nothing_to_repair(curated):
        return given
    names = tuple(columns.class_label(curated.features).names)
    start = given if prior == "erm" else None
    if subsamples:
        heads = [
            _fit(embedding[rows], labels[rows], np.ones(len(rows)), start, len(names), penalty, strength)
            for rows in _balanced_subsets(curated, subsamples, seed)
        ]
        fitted = _average(heads)
    else:
        used = weights > 0
        if not used.all():
            embedding, labels, weights = embedding[used], labels[used], weights[used]
        fitted = _fit(embedding, labels, weights, start, len(names), penalty, strength)
    return LinearHead(fitted.weight, fitted.bias, names)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def _arrays(curated: Dataset, given: LinearHead | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns.require(curated, columns.EMBEDDING, columns.LABEL, columns.WEIGHT)
    labels, embedding = columns.labels(curated), columns.finite_matrix(curated, columns.EMBEDDING)
    names = columns.class_label(curated.features).names
    weights = _weights(curated)
    empty = [name for k, name in enumerate(names) if weights[labels == k].sum() == 0]
    if empty:
        raise ValueError(f"no row of {empty} has a positive weight; a head needs rows of every class")
    if given is not None and (given.width, given.num_classes) != (embedding.shape[1], len(names)):
        raise ValueError(
            f"the head has {given.num_classes} classes on embeddings of width {given.width}, but the dataset has "
            f"{len(names)} classes and embeddings of width {embedding.shape[1]}; extract with the model to be repaired"
        )
    return embedding, labels, weights


def _weights(curated: Dataset) -> np.ndarray:
    weights = columns.numbers(curated, columns.WEIGHT)
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if bad.size:
        raise ValueError(
            f"column 'weight' must be finite and not negative, but row {bad[0]} has {weights[bad[0]]}; "
            "`curate` writes weights that fit"
        )
    zero = np.flatnonzero((weights == 0) & ~_left_out(curated))
    if zero.size:
        raise ValueError(
            f"column 'weight' is 0 in {zero.size} rows that `curate` did not leave out (first: row {zero[0]}); give "
            "every row a positive weight, or drop it: `curated.filter(lambda row: row['weight'] > 0)`"
        )
    return weights


def _left_out(curated: Dataset) -> np.ndarray:
    """Return rows that a strategy left out, `(n,)` bool."""
    if columns.PSEUDO_GROUP not in curated.column_names:
        return np.zeros(len(curated), dtype=bool)
    names = columns.class_label(curated.features, columns.PSEUDO_GROUP).names
    return np.array([name == LEFT_OUT for name in names])[columns.labels(curated, columns.PSEUDO_GROUP)]


def _nothing_to_repair(curated: Dataset) -> bool:
    feature = curated.features.get(columns.REASON)
    return bool(getattr(feature, "id", None)) and curation_report(curated)["verdict"] == NOTHING


def _fit(
    embedding: np.ndarray,
    labels: np.ndarray,
    weights: np.ndarray,
    given: LinearHead | None,
    classes: int,
    penalty: Penalty,
    strength: float | None,
) -> LinearHead:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing writes into it
        rows, ids, shares = (torch.as_tensor(part, device=device) for part in (embedding, labels, weights))
    head = fit_head(rows, ids, shares, given, classes, penalty, strength)
    return LinearHead(head.weight.cpu(), head.bias.cpu(), head.class_names)


def _balanced_subsets(curated: Dataset, count: int, seed: int) -> list[np.ndarray]:
    """Draw `count` subsets in which every pseudo-group with weight has the size of the smallest."""
    columns.require(curated, columns.PSEUDO_GROUP)
    cells, weights = columns.labels(curated, columns.PSEUDO_GROUP), np.asarray(curated[columns.WEIGHT])
    groups = [np.flatnonzero((cells == cell) & (weights > 0)) for cell in np.unique(cells[weights > 0])]
    size, rng = min(len(rows) for rows in groups), np.random.default_rng(seed)
    return [np.concatenate([rng.choice(rows, size, replace=False) for rows in groups]) for _ in range(count)]


def _average(heads: list[LinearHead]) -> LinearHead:
    weight, bias = (torch.stack([getattr(head, part) for head in heads]).mean(dim=0) for part in ("weight", "bias"))
    return LinearHead(weight, bias)
