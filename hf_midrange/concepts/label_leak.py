"""Concepts that are the class label in disguise: they would be found confounded with the class, and are the class."""

from __future__ import annotations

import numpy as np
from scipy import sparse


def leaks_label(table: sparse.csr_matrix, labels: np.ndarray, tolerance: float = 0.005) -> np.ndarray:
    """Return which concepts the label decides in all but a share `tolerance` of the rows of every class.

    Such a concept has a prevalence of at most `tolerance` or at least `1 - tolerance` within every class, and both
    occur. A confounder tied to the class in 98 % of the rows is far from it; one tied in all rows cannot be told from
    the class, and there are no rows that could break the tie.

    Args:
        table: presence, of shape `(n, concepts)`.
        labels: class ids of shape `(n,)`.
        tolerance: share of rows of a class that may be contrary.

    Returns:
        Booleans of shape `(concepts,)`.

    Examples:
        >>> leaks_label(sparse.csr_matrix([[1, 1], [1, 0], [0, 1], [0, 0]]), np.array([0, 0, 1, 1]))
        array([ True, False])
    """
    classes = np.unique(labels)
    prevalence = np.stack([np.asarray(table[labels == k].mean(axis=0)).ravel() for k in classes])
    absent, always = prevalence <= tolerance, prevalence >= 1 - tolerance
    return np.asarray((absent | always).all(axis=0) & absent.any(axis=0) & always.any(axis=0))
