"""From a curated dataset to a repaired head."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from datasets import Dataset, DatasetDict

from hf_midrange import columns
from hf_midrange.curation.report import LEFT_OUT, LEFT_OUT_BY_HAND, NOTHING, curation_report
from hf_midrange.head.convex import Penalty
from hf_midrange.head.correction import fit_head
from hf_midrange.head.linear_head import LinearHead
from hf_midrange.head.streamed import Embeddings, Streamed
from hf_midrange.io.blocks import MOST_ROWS, Matrix, finite_vectors, some_rows, working_set
from hf_midrange.processes import Share, share


def retrain_head(
    curated: Dataset,
    model: torch.nn.Module | LinearHead | None = None,
    *,
    prior: Literal["erm", "none"] = "erm",
    penalty: Penalty = "l2",
    strength: float | None = None,
    subsamples: int = 0,
    max_rows: int | None = MOST_ROWS,
    force: bool = False,
    seed: int = 0,
    distributed: bool = False,
) -> LinearHead:
    """Return a head retrained on the weighted embeddings of a curated dataset.

    With a `model` and `prior="erm"`, the model's own head is corrected: only the difference to it is penalised.
    Otherwise a new head is fitted. The problem is convex, so the result depends on no seed unless `subsamples` are
    drawn or there are more than `max_rows` rows; its loss is summed in double precision, and ends within 1e-4 of the
    minimum. A CUDA device is used if there is one.

    Of more rows than `max_rows`, so many are drawn and held in memory, `4 d` bytes each: from every pseudo-group (else
    class) as many as its share of the weight asks for, and weighted so that it keeps this share. With `max_rows=None`
    the problem of all rows is solved, exactly: embeddings beyond `HF_MIDRANGE_WORKING_SET` megabytes are then read
    from disk again in each of some 20 to 200 steps.

    Args:
        curated: a split that `curate` returned, with `embedding`, `label` and `weight`.
        model: the classifier or head to correct; None: a new head.
        prior: `"erm"` corrects the given head, `"none"` fits a new one.
        penalty: `"l2"` (ridge) or `"l1"` (lasso).
        strength: factor of the penalty; None: `.84 / C` for an L2 correction, `.04 / C` for a new L2 head, `.01`
            for l1.
        subsamples: if positive, average this many heads, each fitted on a random subset with all pseudo-groups of the
            size of the smallest (the recipe of DFR, Kirichenko et al. 2023), instead of weighting.
        max_rows: most rows that are fitted to; None: all.
        force: retrain although the report says that there is nothing to repair.
        seed: of the subsamples, and of the rows drawn.
        distributed: divide the rows of every step among the processes that a launcher started. Each must call this
            with the same rows, and each gets the head of one process but for rounding, 1e-5 of the largest weight.

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
    _check_numbers(strength, subsamples, max_rows)
    embedding, labels, weights = _arrays(curated, given)
    if given is not None and not force and _nothing_to_repair(curated):
        return given
    names = tuple(columns.class_label(curated.features).names)
    start = given if prior == "erm" else None
    fit = _Fit(start, len(names), penalty, strength, max_rows is not None, share(distributed))
    if subsamples:
        drawn = _balanced_subsets(curated, subsamples, max_rows, seed)
        fitted = _average([fit(embedding, rows, labels[rows], np.ones(len(rows))) for rows in drawn])
    else:
        rows = np.flatnonzero(weights > 0)
        if max_rows is not None and len(rows) > max_rows:
            rows, weights = _drawn(_strata(curated, labels), weights, max_rows, seed)
        else:
            weights = weights[rows]
        fitted = fit(embedding, rows, labels[rows], weights)
    return LinearHead(fitted.weight, fitted.bias, names)


def _check_numbers(strength: float | None, subsamples: int, max_rows: int | None) -> None:
    if (strength is not None and not strength > 0) or subsamples < 0:
        raise ValueError(f"`strength` must be positive and `subsamples` not negative, not {strength} and {subsamples}")
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"`max_rows` must be at least 1, or None for all rows, not {max_rows}")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def _arrays(curated: Dataset, given: LinearHead | None) -> tuple[Matrix, np.ndarray, np.ndarray]:
    columns.require(curated, columns.EMBEDDING, columns.LABEL, columns.WEIGHT)
    labels, embedding = columns.labels(curated), finite_vectors(curated, columns.EMBEDDING)
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
    """Return rows that a strategy left out, or that a reader marked as not belonging, `(n,)` bool."""
    left_out = np.zeros(len(curated), dtype=bool)
    for column, words in ((columns.PSEUDO_GROUP, (LEFT_OUT,)), (columns.MARK, LEFT_OUT_BY_HAND)):
        if column in curated.column_names:
            names = columns.class_label(curated.features, column).names
            left_out |= np.isin(columns.labels(curated, column), [k for k, name in enumerate(names) if name in words])
    return left_out


def _nothing_to_repair(curated: Dataset) -> bool:
    feature = curated.features.get(columns.REASON)
    return bool(getattr(feature, "id", None)) and curation_report(curated)["verdict"] == NOTHING


class _Fit(NamedTuple):
    """What every fit has in common."""

    given: LinearHead | None
    classes: int
    penalty: Penalty
    strength: float | None
    in_memory: bool
    shared: Share

    def __call__(self, values: Matrix, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> LinearHead:
        """Return the head fitted to some rows of `values`, with the labels and weights of these rows."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        ids, shares = (torch.as_tensor(part, device=device) for part in (labels, weights))
        if isinstance(values, np.ndarray):
            embedding: Embeddings = torch.as_tensor(values[rows], device=device)
        else:
            embedding = Streamed(values, rows, device)
        in_memory = self.in_memory or 4 * embedding.numel() <= working_set()
        options = (self.penalty, self.strength, in_memory, self.shared)
        head = fit_head(embedding, ids, shares, self.given, self.classes, *options)
        return LinearHead(head.weight.cpu(), head.bias.cpu(), head.class_names)


def _strata(curated: Dataset, labels: np.ndarray) -> np.ndarray:
    """Return what rows are drawn by: the pseudo-group, or else the class."""
    named = columns.PSEUDO_GROUP in curated.column_names
    return columns.labels(curated, columns.PSEUDO_GROUP) if named else labels


def _drawn(strata: np.ndarray, weights: np.ndarray, most: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return rows drawn from all strata in proportion to their weight, and weights under which they keep it."""
    used = np.flatnonzero(weights > 0)
    strata, weights = np.unique(strata[used], return_inverse=True)[1], weights[used]
    whole = np.bincount(strata, weights)
    rows = some_rows(strata, most, seed, whole)
    drawn = np.bincount(strata[rows], weights[rows])
    return used[rows], weights[rows] * (whole / drawn)[strata[rows]]


def _balanced_subsets(curated: Dataset, count: int, most: int | None, seed: int) -> list[np.ndarray]:
    """Draw `count` subsets in which every pseudo-group with weight has the size of the smallest."""
    columns.require(curated, columns.PSEUDO_GROUP)
    cells, weights = columns.labels(curated, columns.PSEUDO_GROUP), np.asarray(curated[columns.WEIGHT])
    groups = [np.flatnonzero((cells == cell) & (weights > 0)) for cell in np.unique(cells[weights > 0])]
    size, rng = min(len(rows) for rows in groups), np.random.default_rng(seed)
    size = size if most is None else max(1, min(size, most // len(groups)))
    return [np.concatenate([rng.choice(rows, size, replace=False) for rows in groups]) for _ in range(count)]


def _average(heads: list[LinearHead]) -> LinearHead:
    weight, bias = (torch.stack([getattr(head, part) for head in heads]).mean(dim=0) for part in ("weight", "bias"))
    return LinearHead(weight, bias)
