"""k-means with a number of clusters chosen by stability."""

from __future__ import annotations

import numpy as np


NUMBERS = (4, 6, 8, 10, 12, 16)
"""Numbers of clusters that are tried."""
REPEATS = 5
ROWS_PER_CLUSTER = 10
"""Larger numbers of clusters than this allows are not tried."""


def fitted_centres(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Return the centres of k-means, float32 of shape `(k, d)`: the best of 4 starts."""
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=4, random_state=seed).fit(points).cluster_centers_.astype(np.float32)


def distances(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the squared distances of shape `(n, k)`, without the points' own squares, which are the same for all."""
    wide = centres.astype(np.float64)
    return (wide**2).sum(axis=1) - 2 * points.astype(np.float64) @ wide.T


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the position of the nearest centre of each point, of shape `(n,)`."""
    return distances(points, centres).argmin(axis=1)


def stable_number(points: np.ndarray, rng: np.random.Generator) -> int:
    """Return the largest number of clusters whose stability is within one standard error of the best.

    Stability: k-means is fitted on two disjoint random halves; both assign all points; the adjusted Rand index of the
    two assignments (Hubert and Arabie 1985), mean over repeats. (Ben-Hur, Elisseeff and Guyon 2002 use subsamples.)
    """
    tried = [k for k in NUMBERS if k * ROWS_PER_CLUSTER <= len(points) // 2] or [2]
    scores = np.array([[_agreement(points, k, rng) for _ in range(REPEATS)] for k in tried])
    means = scores.mean(axis=1)
    best = int(means.argmax())
    within = means >= means[best] - scores[best].std(ddof=1) / np.sqrt(REPEATS)
    return max(k for k, good in zip(tried, within, strict=True) if good)


def _agreement(points: np.ndarray, k: int, rng: np.random.Generator) -> float:
    from sklearn.cluster import KMeans
    from sklearn.metrics import adjusted_rand_score

    halves = np.array_split(rng.permutation(len(points)), 2)
    seed = int(rng.integers(2**31))
    assigned = [KMeans(k, n_init=1, random_state=seed).fit(points[half]).predict(points) for half in halves]
    return float(adjusted_rand_score(*assigned))
