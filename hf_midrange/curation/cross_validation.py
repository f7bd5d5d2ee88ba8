"""Cross-validated accuracy of each pseudo-group before and after a repair."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.curation.inputs import Inputs, read_inputs
from hf_midrange.curation.ridge import FITTED_ROWS
from hf_midrange.curation.selection import Selection
from hf_midrange.head.correction import fold_corrections
from hf_midrange.io.blocks import blocks
from hf_midrange.scoring import wilson_interval


FOLDS = 5


class HeldOut(NamedTuple):
    """What corrections that are fitted without each row's fold do to its logits."""

    terms: np.ndarray
    """Added to the logits, `(n, C)`."""
    penalty: float
    """Factor of the default penalty, as held-out rows choose it."""
    kept: float
    """Share of the given head that is kept, as they choose it."""

    def facts(self) -> dict[str, Any]:
        """Return the choices for the report, from where `retrain_head` takes them."""
        return {"penalty": self.penalty, "kept": self.kept}


def cell_table(inputs: Inputs, selection: Selection) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return a record per pseudo-group (rows, weight, accuracy before and after), and the form of the correction."""
    before = inputs.logits.argmax(axis=1)
    weight, after, form = selection.weight(), selection.held_out, {}
    if after is None:
        held_out = held_out_terms(inputs, selection.cells, weight.astype(np.float64))
        after, form = (inputs.logits + held_out.terms).argmax(axis=1), held_out.facts()
    records = []
    for cell, name in enumerate(selection.names):
        rows = selection.cells == cell
        if rows.any():
            records.append(
                {
                    "name": name,
                    "class": inputs.classes[selection.owners[cell]],
                    "rows": int(rows.sum()),
                    "weight": round(float(weight[rows].sum() / weight.sum()), 4),
                    "before": accuracy(before[rows] == inputs.labels[rows]),
                    "after": accuracy(after[rows] == inputs.labels[rows]),
                }
            )
    return records, form


def accuracy(correct: np.ndarray) -> dict[str, float]:
    """Return the share of true entries with its 95 % interval."""
    low, high = wilson_interval(int(correct.sum()), len(correct))
    return {"accuracy": float(correct.mean()), "low": float(low), "high": float(high)}


def cross_validated(curated: Dataset, weights: np.ndarray, seed: int) -> np.ndarray:
    """Return each row's prediction by a correction of the network's logits fitted without its fold, `(n,)`.

    Args:
        curated: what `curate` returned.
        weights: of the rows, `(n,)`; those that `curate` wrote or others.
        seed: of the folds.
    """
    cells, inputs = columns.labels(curated, columns.PSEUDO_GROUP), read_inputs(curated, None, seed)
    return (inputs.logits + held_out_terms(inputs, cells, weights.astype(np.float64)).terms).argmax(axis=1)


def held_out_terms(inputs: Inputs, cells: np.ndarray, weights: np.ndarray, choose: bool = True) -> HeldOut:
    """Return what corrections fitted without each row's fold do to its logits, in the form that held-out rows choose.

    With more than `FITTED_ROWS` rows, the corrections are fitted to a draw of them, rows of little weight less often.

    Args:
        inputs: the rows.
        cells: pseudo-group of each row, over which folds are spread, `(n,)`.
        weights: of the rows, `(n,)` float64.
        choose: whether held-out rows choose how far the correction may go; else it is the default's.
    """
    folds = folds_of(inputs, cells)
    rows, weights = drawn(weights, inputs.seed)
    of_rows = inputs.embedding[rows], inputs.logits[rows], inputs.labels[rows]
    found = fold_corrections(*of_rows, weights, folds[rows], choose)
    terms = (found.kept - 1) * inputs.logits
    for first, embedding in blocks(inputs.embedding):
        of_fold = folds[first : first + len(embedding)]
        for fold, head in enumerate(found.corrections):
            out = np.flatnonzero(of_fold == fold)
            terms[first + out] += embedding[out] @ head.weight.T.astype(np.float32) + head.bias
    return HeldOut(terms, found.penalty, found.kept)


def drawn(weights: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return at most about `FITTED_ROWS` rows and their weights, whose weighted sums are unbiased for those of all.

    A row is drawn with a chance proportional to its weight, at most 1, and weighs as much more as it was less likely.
    """
    rows = np.flatnonzero(weights > 0)
    if len(rows) <= FITTED_ROWS:
        return rows, weights[rows]
    scale = FITTED_ROWS / weights.sum()
    for _ in range(20):
        chance = np.minimum(1.0, weights * scale)
        scale *= FITTED_ROWS / chance.sum()
    rows = np.flatnonzero(np.random.default_rng(seed).random(len(weights)) < chance)
    return rows, weights[rows] / chance[rows]


def folds_of(inputs: Inputs, cells: np.ndarray) -> np.ndarray:
    """Return the fold of each row, `(n,)`: spread over the pseudo-groups, sources never split."""
    rng = np.random.default_rng(inputs.seed)
    sources = np.arange(len(inputs.labels)) if inputs.sources is None else inputs.sources
    names, first = np.unique(sources, return_index=True)
    order = rng.permutation(len(names))
    order = order[np.argsort(cells[first[order]], kind="stable")]
    fold_of_source = np.empty(len(names), dtype=np.int64)
    fold_of_source[order] = np.arange(len(names)) % FOLDS
    return fold_of_source[np.searchsorted(names, sources)]
