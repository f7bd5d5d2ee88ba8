"""Splitting rows into a discovery and a confirmation half."""

from __future__ import annotations

import numpy as np


def discovery_half(ids: np.ndarray, source_ids: np.ndarray | None, seed: int) -> np.ndarray:
    """Return which rows are for discovery, boolean of shape `(n,)`; the others are for confirmation.

    Rows are split at random within each label; where rows share a source, whole sources are, by the label of their
    first row, so that no source is on both sides.
    """
    rng = np.random.default_rng(seed)
    if source_ids is None:
        return _every_other(ids, rng)
    _, first, source = np.unique(source_ids, return_index=True, return_inverse=True)
    return _every_other(ids[first], rng)[source]


def _every_other(ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    order = rng.permutation(len(ids))
    order = order[np.argsort(ids[order], kind="stable")]
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[order[::2]] = True
    return chosen
