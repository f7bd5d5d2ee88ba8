"""Clusters of the embedding, fitted in the middle of the logits' range, as concepts without a name of their own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from datasets import Dataset, Features
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.cluster_names import over_represented
from hf_midrange.concepts.clusters import distances, fitted_centres, nearest, stable_number
from hf_midrange.concepts.source import Batch, WordSource
from hf_midrange.split_halves import discovery_half
from hf_midrange.storage.vectors import JUMPS, MOST_ROWS, some_rows


CLIP = 4.0
"""Standardised embeddings are cut at +-4: a channel that was near dead when fitted reaches 1e5 on new data."""
MID = 1
EXEMPLARS = 8


@dataclass(frozen=True)
class LatentConcepts(WordSource):
    """Clusters of standardised embeddings, fitted on mid-band rows of the discovery half: `concepts_latent`.

    Every row of the data set has exactly one of them. They are functions of the same embedding as the logits, so they
    are *derived*: a p-value of theirs is no evidence, and a cluster counts as explained only through a named concept.
    A cluster is called "cluster 2", and after it the concepts of other sources that are most over-represented in it
    within the classes, if any are (Mantel-Haenszel test over labels, Benjamini-Hochberg at 5 % over all clusters
    and concepts): "cluster 2 (bright top, busy picture)". `exemplars` holds the rows nearest to each centre.

    Fails where the embedding keeps apart what a person would not, or the other way round: clusters of poses, of near
    duplicates. With `k="auto"` the number of clusters is the largest that is stable: two k-means fitted on two random
    halves must agree about all rows as well as those of the best number do, up to one standard error (adjusted Rand
    index, mean of 5 repeats).

    Args:
        k: number of clusters, or "auto".
        seed: of k-means and of the discovery half, which is the one that `associate` takes with this seed.
        max_rows: at most so many mid-band rows are used, drawn at random. Of more than 100,000 rows in all, so many
            of the discovery half are looked at.
        name: always "latent": by the column `concepts_latent` the other steps know derived concepts.
    """

    k: int | str = "auto"
    seed: int = 0
    max_rows: int = 5000
    name: str = "latent"
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    centres: tuple[tuple[float, ...], ...] = ()
    words: tuple[str, ...] = ()
    exemplars: tuple[tuple[int, ...], ...] = ()
    left_out: tuple[str, ...] = ()
    version: int = 1

    def __post_init__(self) -> None:
        if self.k != "auto" and (not isinstance(self.k, int) or self.k < 2):
            raise ValueError(f"`k` must be a number of clusters, at least 2, or 'auto', but is {self.k!r}")
        if self.name != "latent":
            raise ValueError(
                f"latent concepts must be called 'latent', by which other steps know them, not {self.name!r}"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the embedding; fitting also reads `band` and `label`."""
        return (columns.EMBEDDING,)

    @property
    def derived(self) -> bool:
        """Return true."""
        return True

    def check(self, features: Features) -> None:
        """Raise unless `extract` has added the embedding."""
        self._require(features, columns.EMBEDDING, "extract(ds, model)")

    def check_fit(self, features: Features) -> None:
        """Raise unless there are bands and labels."""
        self._require(features, columns.BAND, "LogitBands().fit(ds).transform(ds)")
        columns.class_label(features)

    def _require(self, features: Features, column: str, step: str) -> None:
        if column not in features:
            raise KeyError(
                f"source {self.name!r} reads column {column!r}, which `{step}` adds, but got {list(features)}"
            )

    def learn(self, ds: Dataset) -> Self:
        """Return the source with clusters of the mid-band rows of the discovery half, and their descriptions."""
        rng = np.random.default_rng(self.seed)
        numbers, half = self._looked_at(ds)
        # Rows far apart are read some at a time: each maps pages around it, which are given back in between.
        parts = np.split(numbers, range(JUMPS, len(numbers), JUMPS)) if len(numbers) < len(ds) else [numbers]
        embedding = np.concatenate([columns.finite_matrix(ds.select(part), columns.EMBEDDING) for part in parts])
        ds = ds if len(numbers) == len(ds) else ds.select(numbers)
        mean, scale = embedding[half].mean(axis=0), embedding[half].std(axis=0)
        scale = np.where(scale > 0, scale, np.inf).astype(np.float32)
        standard = _standardised(embedding, mean, scale)
        rows = np.flatnonzero(half & (columns.matrix(ds, columns.BAND) == MID).any(axis=1))
        rows = rng.permutation(rows)[: self.max_rows]
        self._refuse_few(len(rows), len({row.tobytes() for row in standard[rows]}), ds)
        k = self.k if isinstance(self.k, int) else stable_number(standard[rows], rng)
        centres = fitted_centres(standard[rows], k, self.seed)
        return replace(
            self,
            mean=tuple(map(float, mean)),
            scale=tuple(map(float, np.where(np.isfinite(scale), scale, 0))),
            centres=tuple(tuple(map(float, centre)) for centre in centres),
            words=tuple(map(_called, range(k), over_represented(ds, nearest(standard, centres), half, k))),
            exemplars=_exemplars(standard, centres, rows, numbers),
        )

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return the cluster of each row."""
        embedding = np.asarray(batch[columns.EMBEDDING], dtype=np.float32).reshape(-1, len(self.mean))
        scale = np.array(self.scale, dtype=np.float32)
        standard = _standardised(embedding, np.array(self.mean, dtype=np.float32), np.where(scale > 0, scale, np.inf))
        cluster = nearest(standard, np.array(self.centres, dtype=np.float32))
        return sparse.csr_matrix(cluster[:, None] == np.arange(len(self.centres)))

    def _looked_at(self, ds: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """Return numbers of rows, and which of these are for discovery: all rows, or so many of the discovery half."""
        half = self._discovery(ds)
        if len(ds) <= MOST_ROWS:
            return np.arange(len(ds)), half
        rows = np.flatnonzero(half)
        rows = rows[some_rows(columns.labels(ds)[rows], MOST_ROWS, self.seed)]
        return rows, np.ones(len(rows), dtype=bool)

    def _discovery(self, ds: Dataset) -> np.ndarray:
        sources = np.asarray(ds[columns.SOURCE_ID]) if columns.SOURCE_ID in ds.column_names else None
        return discovery_half(columns.labels(ds), sources, self.seed)

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


def _exemplars(
    standard: np.ndarray, centres: np.ndarray, rows: np.ndarray, numbers: np.ndarray
) -> tuple[tuple[int, ...], ...]:
    """Return the rows that were clustered and lie nearest to each centre, nearest first."""
    points = standard[rows]
    squares = np.square(points, dtype=np.float64).sum(axis=1)  # the same for all centres, but not for all points
    ranked = np.argsort(distances(points, centres) + squares[:, None], axis=0, kind="stable")[:EXEMPLARS].T
    return tuple(tuple(int(row) for row in numbers[rows[order]]) for order in ranked)


def _called(k: int, words: list[str]) -> str:
    return f"cluster {k + 1} ({', '.join(words)})" if words else f"cluster {k + 1}"
