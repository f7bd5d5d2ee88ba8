"""From a curated dataset to a repaired head."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from datasets import Dataset, DatasetDict

from hf_midrange import columns
from hf_midrange.head.correction import default_strength, desaturated, fit_correction
from hf_midrange.head.linear_head import LinearHead
from hf_midrange.io.blocks import MOST_ROWS, Matrix, finite_vectors, some_rows
from hf_midrange.verdicts import unchanged


def retrain_head(
    curated: Dataset,
    model: torch.nn.Module | LinearHead | None = None,
    *,
    max_rows: int = MOST_ROWS,
    force: bool = False,
    seed: int = 0,
    head: str | None = None,
) -> LinearHead:
    """Return a head retrained on the weighted embeddings of a curated dataset.

    With a `model`, its own head is corrected: `W = f W_given + s D`, and only D is penalised, by `.84 / C |D|_F^2`. f
    is 1 unless the network is saturated; s is the strength that the curation found typical rows can pay, 1 for weights
    of your own. Where the curation found that rows suffice, the penalty is as little as a hundredth of that, and half
    or all of the given head is given up (`penalty` and `kept` of its report). A head without bias gets none. Without a
    `model` a new head is fitted, under `.04 / C |W|_F^2`. The problem is convex, so the result depends on no seed
    unless there are more than `max_rows` rows; it is solved on the CPU, its loss summed in double precision, and ends
    within 1e-4 of the minimum.

    Of more rows than `max_rows`, so many are drawn and held in memory, `4 d` bytes each: from every pseudo-group (else
    class) as many as its share of the weight asks for, and weighted so that it keeps this share.

    Args:
        curated: a split that `curate` returned, with `embedding`, `label` and `weight`.
        model: the classifier or head to correct; None: a new head.
        max_rows: most rows that are fitted to.
        force: retrain with the whole correction, although the report leaves the head as it is or asks for less.
        seed: of the rows drawn.
        head: name of the model's last linear layer, where several could be it; None: the one that `extract` noted.

    Returns:
        The head, acting on raw embeddings; the given head unchanged if the report's strength is 0.

    Raises:
        KeyError: if a column is missing.
        ValueError: for NaN, negative weights, a class without weight, embeddings of another width than the head's, or
            of another model than this one.

    Warns:
        RuntimeWarning: if the solver gave up before the minimum.
        UserWarning: if the given head's classes have other names than those of the rows.

    Examples:
        ```python
        head = hm.retrain_head(curated, model)
        model = head.merge_into(model)
        ```
    """
    if isinstance(curated, DatasetDict):
        raise TypeError(f"`retrain_head` takes one split, not a DatasetDict; choose one of {list(curated)}")
    if max_rows < 1:
        raise ValueError(f"`max_rows` must be at least 1, not {max_rows}")
    values, labels, weights = weighted_rows(curated)
    names = tuple(columns.class_label(curated.features).names)
    given = _of_model(model, curated, head) if isinstance(model, torch.nn.Module) else model
    if given is not None:
        given = _by_name(given, names)
        _refuse_other_shape(given, values.shape[1], len(names))
    report = columns.facts(curated.features, columns.REASON)
    if given is not None and not force and unchanged(report):
        return given
    rows, weights = drawn_rows(curated, weights, max_rows, seed)
    embedding, labels = values[rows], labels[rows]
    if given is None:
        strength = default_strength(len(names), corrects=False)
        weight, bias = fit_correction(embedding, np.zeros((len(rows), len(names))), labels, weights, strength)
        return LinearHead(torch.as_tensor(weight).float(), torch.as_tensor(bias).float(), names)
    share, kept = 1.0 if force else float(report.get("strength", 1.0)), float(report.get("kept", 1.0))
    strength = default_strength(len(names), corrects=True) * float(report.get("penalty", 1.0))
    logits, factor = desaturated(given(embedding).double().cpu().numpy())
    found = fit_correction(embedding, kept * logits, labels, weights, strength, given.has_bias)
    moved = [
        factor * (1 + share * (kept - 1)) * old.double().cpu() + share * torch.as_tensor(new)
        for old, new in zip((given.weight, given.bias), found, strict=True)
    ]
    return LinearHead(moved[0].float(), moved[1].float(), names, given.has_bias, given.of_label)


def _of_model(model: torch.nn.Module, curated: Dataset, layer: str | None) -> LinearHead:
    """Return the model's head with its classes in the order of the rows', refusing a model that did not make them."""
    from hf_midrange.classifier import class_order, fingerprint

    made_by = columns.facts(curated.features, columns.LOGITS)
    given = LinearHead.from_model(model, layer or made_by.get("head"))
    if "fingerprint" in made_by and made_by["fingerprint"] != fingerprint(model):
        name = getattr(getattr(model, "config", None), "name_or_path", "") or type(model).__name__
        raise ValueError(
            f"the embeddings were made by {made_by.get('model', 'another model')!r}, and the model to correct, "
            f"{name!r}, is not the same (its weights differ); extract with the model to be repaired"
        )
    names = columns.class_label(curated.features).names
    if "of_label" in made_by:
        return given.for_label(made_by["of_label"], names)
    order = class_order(names, model)
    return given if order is None else given.in_order(names, order)


def _by_name(given: LinearHead, names: tuple[str, ...]) -> LinearHead:
    """Return a head whose classes stand in the order of the rows' class names; other names are warned of."""
    own = given.class_names
    if own is None or own == names:
        return given
    if len(own) == len(names) == len(set(own)) and set(own) == set(names):
        return given.in_order(names, [own.index(name) for name in names])
    if len(own) == len(names):
        warnings.warn(
            f"the head's classes are {list(own)}, those of the rows {list(names)}; they are taken for the same, in "
            "this order",
            UserWarning,
            stacklevel=3,
        )
    return given


def _refuse_other_shape(given: LinearHead, width: int, classes: int) -> None:
    if (given.width, given.num_classes) != (width, classes):
        raise ValueError(
            f"the head has {given.num_classes} classes on embeddings of width {given.width}, but the dataset has "
            f"{classes} classes and embeddings of width {width}; extract with the model to be repaired"
        )


def weighted_rows(curated: Dataset) -> tuple[Matrix, np.ndarray, np.ndarray]:
    """Return embeddings `(n, d)`, labels and weights `(n,)` of a curated split.

    Raises:
        KeyError: if a column is missing.
        ValueError: for NaN, negative weights, a class without weight.
    """
    columns.require(curated, columns.EMBEDDING, columns.LABEL, columns.WEIGHT)
    labels, embedding = columns.labels(curated), finite_vectors(curated, columns.EMBEDDING)
    names = columns.class_label(curated.features).names
    weights = _weights(curated)
    empty = [name for k, name in enumerate(names) if weights[labels == k].sum() == 0]
    if empty:
        raise ValueError(f"no row of {empty} has a positive weight; a head needs rows of every class")
    return embedding, labels, weights


def _weights(curated: Dataset) -> np.ndarray:
    weights = columns.numbers(curated, columns.WEIGHT)
    bad = np.flatnonzero(~np.isfinite(weights) | (weights < 0))
    if bad.size:
        raise ValueError(
            f"column 'weight' must be finite and not negative, but row {bad[0]} has {weights[bad[0]]}; "
            "`curate` writes weights that fit"
        )
    return weights


def drawn_rows(curated: Dataset, weights: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most about `most` rows with weight, and their weights; all such rows where they are so few.

    They are drawn from every pseudo-group (else class) in proportion to its weight, which it keeps.
    """
    used = np.flatnonzero(weights > 0)
    if len(used) <= most:
        return used, weights[used]
    named = columns.PSEUDO_GROUP in curated.column_names
    strata = columns.labels(curated, columns.PSEUDO_GROUP if named else columns.LABEL)
    strata, weights = np.unique(strata[used], return_inverse=True)[1], weights[used]
    whole = np.bincount(strata, weights)
    rows = some_rows(strata, most, seed, whole)
    drawn = np.bincount(strata[rows], weights[rows])
    return used[rows], weights[rows] * (whole / drawn)[strata[rows]]
