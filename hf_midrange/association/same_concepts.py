"""Grouping concepts that say the same thing."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


SAME = 0.8
"""Within-label correlation from which two concepts count as one."""

CONTAINED, SURE = 0.9, 5.0
"""Within-label homogeneity from which one concept is part of another, and how many deviations show it is not luck."""


def same_concepts(present: sparse.csr_matrix, ids: np.ndarray, classes: int) -> np.ndarray:
    """Return a group number per concept, of shape `(m,)`; concepts linked directly or through others share one.

    Two concepts are linked if they correlate at 0.8 or -0.8 within labels (a negation says the same with the opposite
    sign), or if one lies inside the other, as "there are" in "there": Loevinger's homogeneity (1948), the covariance
    over the largest that the prevalences allow, is then 0.9 or more, and the excess of joint rows is five standard
    deviations or more above what chance gives.

    Args:
        present: which row has which concept, of shape `(n, m)`; `(m, m)` must fit in memory.
        ids: class ids, of shape `(n,)`.
        classes: how many classes there are.
    """
    table = sparse.csr_matrix(present, dtype=np.float64)
    covariance, largest, chance = np.zeros((3, table.shape[1], table.shape[1]))
    order = np.argsort(ids, kind="stable")
    for own in np.split(order, np.searchsorted(ids[order], np.arange(1, classes))):
        rows = table[own]
        n, hits = max(rows.shape[0], 1), np.asarray(rows.sum(axis=0)).ravel()
        covariance += (rows.T @ rows).toarray() - np.outer(hits, hits) / n
        fewer, more = np.minimum.outer(hits, hits), np.maximum.outer(hits, hits)
        largest += fewer * (1 - more / n)
        chance += np.outer(hits * (1 - hits / n), hits * (1 - hits / n)) / n
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    with np.errstate(divide="ignore", invalid="ignore"):
        contained = (covariance / largest >= CONTAINED) & (covariance / np.sqrt(chance) >= SURE)
    linked = (np.abs(covariance / np.outer(deviation, deviation)) >= SAME) | contained
    return connected_components(sparse.csr_matrix(linked), directed=False)[1]
