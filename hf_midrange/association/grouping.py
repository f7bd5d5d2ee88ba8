"""Grouping concepts that say the same thing."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components


SAME = 0.8
"""Within-label correlation from which two concepts count as one."""


def same_concepts(present: sparse.csr_matrix, ids: np.ndarray, classes: int) -> np.ndarray:
    """Return a group number per concept, of shape `(m,)`; a within-label correlation of 0.8 links two concepts.

    Args:
        present: which row has which concept, of shape `(n, m)`; `(m, m)` must fit in memory.
        ids: class ids, of shape `(n,)`.
        classes: how many classes there are.
    """
    table = sparse.csr_matrix(present, dtype=np.float64)
    one_hot = sparse.csr_matrix((np.ones(len(ids)), (ids, np.arange(len(ids)))), shape=(classes, len(ids)))
    sums = (one_hot @ table).toarray()
    sizes = np.maximum(np.bincount(ids, minlength=classes), 1)[:, None]
    covariance = (table.T @ table).toarray() - sums.T @ (sums / sizes)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 1e-12))
    linked = covariance / np.outer(deviation, deviation) >= SAME
    return connected_components(sparse.csr_matrix(linked), directed=False)[1]
