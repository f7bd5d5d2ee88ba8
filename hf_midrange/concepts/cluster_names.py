"""Names for clusters: the concepts of other sources that are over-represented in them within the classes."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from scipy import sparse, stats

from hf_midrange import columns
from hf_midrange.association.stratified import Tables, moments


WORDS = 3
"""Most names that describe one cluster."""


def over_represented(
    ds: Dataset, cluster: np.ndarray, half: np.ndarray, k: int, alpha: float = 0.05
) -> list[list[str]]:
    """Return for each cluster the concepts most over-represented in it, most significant first, at most `WORDS`.

    Each (cluster, concept) is one Mantel-Haenszel test with a stratum per label, one-sided towards presence, on the
    rows of the discovery half; Benjamini-Hochberg over all of them.

    Args:
        ds: has `label` and perhaps concept columns; those of latent concepts are passed over.
        cluster: cluster of each row, of shape `(n,)`.
        half: which rows are for discovery, boolean of shape `(n,)`.
        k: number of clusters.
        alpha: false discovery rate.
    """
    latent = f"{columns.CONCEPTS_PREFIX}latent"
    found = [name for name in columns.concept_columns(ds.features) if not name.startswith(latent)]
    if not found:
        return [[] for _ in range(k)]
    names = [word for name in found for word in columns.vocabulary(ds.features, name)]
    table = sparse.csr_matrix(sparse.hstack([columns.presence(ds, name) for name in found]))
    labels = columns.labels(ds)
    z = np.stack([_z(table[half], cluster[half] == j, labels[half]) for j in range(k)])
    q = stats.false_discovery_control(stats.norm.sf(z).ravel()).reshape(z.shape)
    return [
        [names[j] for j in np.argsort(-row, kind="stable")[:WORDS] if good[j]]
        for row, good in zip(z, q <= alpha, strict=True)
    ]


def _z(table: sparse.csr_matrix, inside: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the Mantel-Haenszel z of each concept being over-represented inside; 0 where nothing can be said."""
    strata = [labels == label for label in np.unique(labels)]
    counts = np.stack([_count(table[rows & inside]) for rows in strata])
    with_concept = np.stack([_count(table[rows]) for rows in strata])
    in_cluster = np.array([[(rows & inside).sum()] for rows in strata]) + np.zeros_like(counts)
    total = np.array([[rows.sum()] for rows in strata]) + np.zeros_like(counts)
    excess, variance = moments(Tables(counts, in_cluster, with_concept, total))
    return np.divide(excess, np.sqrt(variance), out=np.zeros_like(excess), where=variance > 0)


def _count(table: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(table.sum(axis=0), dtype=np.float64).ravel()
