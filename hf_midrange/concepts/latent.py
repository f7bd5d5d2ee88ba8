"""Clusters of the embedding, fitted in the middle of the logits' range, as concepts without a name of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from datasets import Dataset, Features
from scipy import sparse, stats

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import Source, refuse_lengths
from hf_midrange.io.blocks import MOST_ROWS, discovery_half, some_rows


CLIP = 4.0
"""Standardised embeddings are cut at +-4: a channel that was near dead when fitted reaches 1e5 on new data."""
CLUSTERED = 5000
"""Rows of the middle that are clustered at most, drawn at random."""
MOST_CLUSTERS = 1000

NUMBERS = (4, 6, 8, 10, 12, 16)
"""Numbers of clusters that are tried where none is given."""
REPEATS = 5
ROWS_PER_CLUSTER = 10
"""Larger numbers of clusters than this allows are not tried."""
DESCRIBED_BY = 3
"""Most names that describe one cluster."""


@dataclass(frozen=True)
class LatentConcepts(Source):
    """Clusters of standardised embeddings, fitted on mid-band rows of the discovery half: `concepts_latent`.

    Every row of the data set has exactly one of them. They are functions of the same embedding as the logits, so they
    are *derived*: a p-value of theirs is no evidence, and a cluster counts as explained only through a named concept.
    A cluster is called "cluster 2", and after it the concepts of other sources that are most over-represented in it
    within the classes, if any are (Mantel-Haenszel test over labels, Benjamini-Hochberg at 5 % over all clusters
    and concepts): "cluster 2 (bright top, busy picture)". At most 5,000 rows are clustered, drawn at random; of more
    than 100,000 in all, so many of the discovery half are looked at.

    Fails where the embedding keeps apart what a person would not, or the other way round: clusters of poses, of near
    duplicates. With `k="auto"` the number of clusters is the largest that is stable: two k-means fitted on two random
    halves must agree about all rows as well as those of the best number do, up to one standard error (adjusted Rand
    index, mean of 5 repeats).

    Args:
        k: number of clusters, or "auto".
        seed: of k-means and of the discovery half, which is the one that `associate` takes with this seed.
        name: always "latent": by the column `concepts_latent` the other steps know derived concepts.
    """

    last: ClassVar[bool] = True
    derived = True
    column: ClassVar[str] = columns.EMBEDDING

    k: int | str = "auto"
    seed: int = 0
    name: str = "latent"
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    centres: tuple[tuple[float, ...], ...] = ()
    words: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.k != "auto" and (not isinstance(self.k, int) or not 2 <= self.k <= MOST_CLUSTERS):
            raise ValueError(f"`k` must be from 2 to {MOST_CLUSTERS} clusters, or 'auto', but is {self.k!r}")
        if self.name != "latent":
            raise ValueError(
                f"latent concepts must be called 'latent', by which other steps know them, not {self.name!r}"
            )
        refuse_lengths(self, len(self.mean), "scale")
        refuse_lengths(self, len(self.centres), "words")
        if any(len(centre) != len(self.mean) for centre in self.centres):
            raise ValueError(f"source {self.name!r} has centres of other lengths than its mean; fit it again")

    def check(self, features: Features, *, to_fit: bool = False) -> None:
        """Raise unless `extract` has added the embedding, and to fit, bands and labels."""
        for column, step in {columns.EMBEDDING: "extract(ds, model)", columns.BAND: "LogitBands()"}.items():
            if column not in features and (to_fit or column == columns.EMBEDDING):
                raise KeyError(
                    f"source {self.name!r} reads column {column!r}, which `{step}` adds, but got {list(features)}"
                )
        if to_fit:
            columns.class_label(features)
        if to_fit and len(_bands(features)) < 3:
            raise ValueError(
                f"source {self.name!r} clusters rows between the lowest and the highest band, but there are only the "
                f"bands {list(_bands(features))}; fit LogitBands with 3 bands or more, or leave this source out"
            )

    def learn(self, ds: Dataset) -> Self:
        """Return the source with clusters of the mid-band rows of the discovery half, and their descriptions."""
        rng = np.random.default_rng(self.seed)
        ds, half = self._looked_at(ds)
        embedding = columns.finite_matrix(ds, columns.EMBEDDING)
        mean, scale = embedding[half].mean(axis=0), embedding[half].std(axis=0)
        scale = np.where(scale > 0, scale, np.inf).astype(np.float32)
        standard = _standardised(embedding, mean, scale)
        rows = np.flatnonzero(half & in_the_middle(ds))
        rows = rng.permutation(rows)[:CLUSTERED]
        self._refuse_few(len(rows), len({row.tobytes() for row in standard[rows]}), ds)
        k = self.k if isinstance(self.k, int) else stable_number(standard[rows], rng)
        centres = fitted_centres(standard[rows], k, self.seed)
        return replace(
            self,
            mean=tuple(map(float, mean)),
            scale=tuple(map(float, np.where(np.isfinite(scale), scale, 0))),
            centres=tuple(tuple(map(float, centre)) for centre in centres),
            words=tuple(map(_called, range(k), over_represented(ds, nearest(standard, centres), half, k))),
        )

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return the cluster of each row."""
        embedding = np.asarray(batch[columns.EMBEDDING], dtype=np.float32).reshape(-1, len(self.mean))
        scale = np.array(self.scale, dtype=np.float32)
        standard = _standardised(embedding, np.array(self.mean, dtype=np.float32), np.where(scale > 0, scale, np.inf))
        cluster = nearest(standard, np.array(self.centres, dtype=np.float32))
        return sparse.csr_matrix(cluster[:, None] == np.arange(len(self.centres)))

    def _looked_at(self, ds: Dataset) -> tuple[Dataset, np.ndarray]:
        """Return rows, and which of these are for discovery: all rows, or so many of the discovery half."""
        labels = columns.labels(ds)
        half = discovery_half(labels, columns.source_ids(ds), self.seed)
        if len(ds) <= MOST_ROWS:
            return ds, half
        rows = np.flatnonzero(half)
        rows = rows[some_rows(labels[rows], MOST_ROWS, self.seed)]
        return ds.select(rows), np.ones(len(rows), dtype=bool)

    def _refuse_few(self, rows: int, distinct: int, ds: Dataset) -> None:
        least = 2 * (self.k if isinstance(self.k, int) else 4)
        if rows and distinct * 2 < least:
            raise ValueError(
                f"source {self.name!r} finds {distinct} different embeddings in {rows} mid-band rows, too few for "
                f"{least // 2} clusters; look whether the network tells its inputs apart"
            )
        if rows < max(least, 8):
            raise ValueError(
                f"source {self.name!r} needs at least {max(least, 8)} mid-band rows in the discovery half to find "
                f"clusters, but has {rows} of {len(ds)} rows; give more rows, a smaller `k`, or wider bands"
            )


def _standardised(embedding: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip((embedding - mean) / scale, -CLIP, CLIP)


def _called(k: int, words: list[str]) -> str:
    return f"cluster {k + 1} ({', '.join(words)})" if words else f"cluster {k + 1}"


def in_the_middle(ds: Dataset) -> np.ndarray:
    """Return which rows lie between the lowest and the highest band of any unit, boolean of shape `(n,)`.

    How many bands there are is a fact of the column; one without facts is the user's own, of low, mid and high.
    """
    band = columns.matrix(ds, columns.BAND)
    return np.asarray(((band > 0) & (band < len(_bands(ds.features)) - 1)).any(axis=1))


def _bands(features: Features) -> Sequence[str]:
    return columns.facts(features, columns.BAND).get("bands") or ("low", "mid", "high")


def fitted_centres(points: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Return the centres of k-means, float32 of shape `(k, d)`: the best of 4 starts."""
    from sklearn.cluster import KMeans

    return KMeans(k, n_init=4, random_state=seed).fit(points).cluster_centers_.astype(np.float32)


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Return the position of the nearest centre of each point, of shape `(n,)`."""
    wide = centres.astype(np.float64)
    return ((wide**2).sum(axis=1) - 2 * points.astype(np.float64) @ wide.T).argmin(axis=1)


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


def over_represented(
    ds: Dataset, cluster: np.ndarray, half: np.ndarray, k: int, alpha: float = 0.05
) -> list[list[str]]:
    """Return for each cluster the concepts most over-represented in it, at most `DESCRIBED_BY`, clearest first.

    Each (cluster, concept) is one Mantel-Haenszel test with a stratum per label, one-sided towards presence, on the
    rows of the discovery half; Benjamini-Hochberg over all of them.

    Args:
        ds: has `label` and perhaps concept columns; derived ones are passed over.
        cluster: cluster of each row, of shape `(n,)`.
        half: which rows are for discovery, boolean of shape `(n,)`.
        k: number of clusters.
        alpha: false discovery rate.
    """
    features = ds.features
    found = [name for name in columns.concept_columns(features) if not columns.facts(features, name).get("derived")]
    if not found:
        return [[] for _ in range(k)]
    names = [word for name in found for word in columns.vocabulary(features, name)]
    table = sparse.csr_matrix(sparse.hstack([columns.presence(ds, name) for name in found]))
    labels = columns.labels(ds)
    z = np.stack([_z(table[half], cluster[half] == j, labels[half]) for j in range(k)])
    q = stats.false_discovery_control(stats.norm.sf(z).ravel()).reshape(z.shape)
    return [
        [names[j] for j in np.argsort(-row, kind="stable")[:DESCRIBED_BY] if good[j]]
        for row, good in zip(z, q <= alpha, strict=True)
    ]


def _z(table: sparse.csr_matrix, inside: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the z of each concept being over-represented inside (Mantel and Haenszel 1959); 0 without variance."""
    strata = [labels == label for label in np.unique(labels)]
    excess, variance = np.zeros(table.shape[1]), np.zeros(table.shape[1])
    for rows in strata:
        n, in_cluster, with_concept = max(int(rows.sum()), 2), int((rows & inside).sum()), _count(table[rows])
        expected = in_cluster * with_concept / n
        excess += _count(table[rows & inside]) - expected
        variance += expected * (n - in_cluster) * (n - with_concept) / (n * (n - 1))
    return np.divide(excess, np.sqrt(variance), out=np.zeros_like(excess), where=variance > 0)


def _count(table: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(table.sum(axis=0), dtype=np.float64).ravel()
