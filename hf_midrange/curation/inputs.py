"""All that strategies read of a dataset, checked once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.curation.ridge import Space, sampled
from hf_midrange.curation.scores import embedding_scores, margins, own_position
from hf_midrange.curation.selection import MINIMUM
from hf_midrange.curation.views import View, gather
from hf_midrange.head.correction import desaturated
from hf_midrange.io.blocks import Matrix, finite_vectors


@dataclass(frozen=True)
class Inputs:
    """The columns of one split as arrays, and scores derived from them on first use."""

    ds: Dataset
    findings: Dataset | None
    labels: np.ndarray
    """`(n,)` int64."""
    classes: list[str]
    embedding: Matrix
    """`(n, d)` float32, read from disk where it is large."""
    logits: np.ndarray
    """`(n, C)`, scaled down where the network is saturated."""
    sources: np.ndarray | None
    """Ids of the sources of rows, `(n,)`, where the dataset has a `source_id` column."""
    seed: int

    @cached_property
    def sample(self) -> np.ndarray | None:
        """The rows that scores are fitted to; None: all."""
        return sampled(self.labels, self.sources, self.seed)

    @cached_property
    def space(self) -> Space:
        """The embeddings, standardised for fits of scores."""
        return Space.of(self.embedding, self.sources, self.sample)

    @cached_property
    def views(self) -> list[View]:
        """The side views at hand."""
        return gather(self.ds, self.findings, self.labels, self.sources, self.sample)

    @cached_property
    def scores(self) -> np.ndarray:
        """The embedding score e per class, `(n, C)`."""
        return embedding_scores(self.space, self.logits, self.labels)

    @cached_property
    def margin_position(self) -> np.ndarray:
        """Position of each row in the logit margin of its own class, `(n,)`."""
        return own_position(margins(self.logits), self.labels)

    @cached_property
    def wrong(self) -> np.ndarray:
        """Rows that the network misclassifies, `(n,)` bool."""
        return self.logits.argmax(axis=1) != self.labels


def read_inputs(ds: Dataset, findings: Dataset | None, seed: int) -> Inputs:
    """Return what strategies read of `ds`, refusing what none can work with.

    Raises:
        KeyError: a column is missing.
        TypeError: `label` is not a `ClassLabel`.
        ValueError: a class with fewer than five rows, one class only, NaN, or logits of another width than the labels.
    """
    columns.require(ds, columns.LABEL, columns.EMBEDDING, columns.LOGITS)
    labels = columns.labels(ds)
    classes = list(columns.class_label(ds.features).names)
    if len(classes) < 2:
        raise ValueError(f"`label` has the classes {classes}; curating needs at least two")
    columns.require_every_class(labels, classes, MINIMUM)
    embedding, logits = finite_vectors(ds, columns.EMBEDDING), columns.finite_matrix(ds, columns.LOGITS)
    if logits.shape[1] != len(classes):
        raise ValueError(
            f"column 'logits' has {logits.shape[1]} values per row but `label` has {len(classes)} classes {classes}; "
            "extract with a model whose classes are those of the label"
        )
    sources = columns.source_ids(ds)
    if sources is not None:
        sources = np.unique(sources.astype(str), return_inverse=True)[1]
    logits, _ = desaturated(logits.astype(np.float64))
    return Inputs(ds, findings, labels, classes, embedding, logits, sources, seed)
