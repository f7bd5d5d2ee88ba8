"""Cross-validated accuracy of each pseudo-group before and after a repair."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest

from hf_midrange.curation.evidence import Evidence
from hf_midrange.curation.selection import Selection


FOLDS = 5
LARGE = 1e7
"""Above this many values of the embedding, two folds instead of five."""


def cell_table(evidence: Evidence, selection: Selection) -> list[dict[str, Any]]:
    """Return a record per pseudo-group: rows, weight, and accuracy with 95 % interval before and after the repair."""
    before, after = evidence.logits.argmax(axis=1), held_out_predictions(evidence, selection)
    weight = selection.weight()
    records = []
    for cell, name in enumerate(selection.names):
        rows = selection.cells == cell
        if rows.any():
            records.append(
                {
                    "name": name,
                    "class": evidence.classes[selection.owners[cell]],
                    "rows": int(rows.sum()),
                    "weight": round(float(weight[rows].sum() / weight.sum()), 4),
                    "before": accuracy(before[rows] == evidence.labels[rows]),
                    "after": accuracy(after[rows] == evidence.labels[rows]),
                }
            )
    return records


def accuracy(correct: np.ndarray) -> dict[str, float]:
    """Return the share of true entries with its 95 % Wilson interval."""
    interval = binomtest(int(correct.sum()), len(correct)).proportion_ci(method="wilson")
    return {"accuracy": float(correct.mean()), "low": float(interval.low), "high": float(interval.high)}


def held_out_predictions(evidence: Evidence, selection: Selection) -> np.ndarray:
    """Return each row's prediction by a correction of the network's logits fitted without its fold, `(n,)`."""
    import torch

    from hf_midrange.head.correction import correct_logits

    weights = selection.weight().astype(np.float64)
    folds = folds_of(evidence, selection)
    predictions = np.zeros(len(weights), dtype=np.int64)
    for fold in np.unique(folds):
        fit, test = (folds != fold) & (weights > 0), folds == fold
        arrays = (evidence.embedding[fit], evidence.logits[fit], evidence.labels[fit], weights[fit])
        held_out = (evidence.embedding[test], evidence.logits[test])
        logits = correct_logits(*map(torch.as_tensor, arrays), *map(torch.as_tensor, held_out))
        predictions[test] = logits.argmax(dim=1).cpu().numpy()
    return predictions


def folds_of(evidence: Evidence, selection: Selection) -> np.ndarray:
    """Return the fold of each row, `(n,)`: spread over the pseudo-groups, sources never split."""
    count = FOLDS if evidence.embedding.size < LARGE else 2
    rng = np.random.default_rng(evidence.seed)
    sources = np.arange(len(evidence.labels)) if evidence.sources is None else evidence.sources
    names, first = np.unique(sources, return_index=True)
    order = rng.permutation(len(names))
    order = order[np.argsort(selection.cells[first[order]], kind="stable")]
    fold_of_source = np.empty(len(names), dtype=np.int64)
    fold_of_source[order] = np.arange(len(names)) % count
    return fold_of_source[np.searchsorted(names, sources)]
