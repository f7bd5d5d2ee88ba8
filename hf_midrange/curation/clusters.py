"""Clusters of standardised embeddings: fitted on rows in memory, then given to all rows block by block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.cluster import KMeans

from hf_midrange.curation.ridge import moments, scaled
from hf_midrange.io.blocks import MOST_ROWS, Matrix, blocks, some_rows


class Space(NamedTuple):
    """Embeddings, and the rows of them that clusters are fitted to."""

    values: Matrix
    """`(n, d)`."""
    rows: np.ndarray
    """Rows fitted to, at most about `MOST_ROWS`."""
    features: np.ndarray
    """These rows, standardised."""
    mean: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, values: Matrix, labels: np.ndarray, seed: int) -> Space:
        """Return the space standardised on rows of every class."""
        rows = some_rows(labels, MOST_ROWS, seed)
        features = values[rows].astype(np.float64)
        mean, inverse = moments(features)
        return cls(values, rows, scaled(features, mean, inverse), mean, inverse)

    def k_means(self, fitted_on: np.ndarray, clusters: int, seed: int) -> KMeans:
        """Return k-means fitted on some of `rows`, a boolean array as long as these."""
        return KMeans(clusters, n_init=4, random_state=seed).fit(self.features[fitted_on])

    def assigned(self, models: Sequence[KMeans], which: np.ndarray) -> np.ndarray:
        """Return the cluster of each row, `(n,)`, by the model that `which` `(n,)` numbers."""
        parts = np.zeros(len(self.values), dtype=np.int64)
        for first, block in blocks(self.values):
            features = scaled(block.astype(np.float64), self.mean, self.inverse)
            for k, model in enumerate(models):
                mine = np.flatnonzero(which[first : first + len(block)] == k)
                if len(mine):
                    parts[first + mine] = model.predict(features[mine])
        return parts
