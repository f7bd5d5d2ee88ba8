"""Side views: descriptions of the input that know little about the class but may carry its shortcut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.curation.scores import auc_of, skew_of, view_scores
from hf_midrange.io.blocks import Matrix, blocks, concept_table, finite_vectors, varies


IMAGE_RIDGE, TEXT_RIDGE = 0.01, 0.02
LATENT = columns.CONCEPTS_PREFIX + "latent"
"""Clusters of the embedding know the class by construction and are no view."""

CARRIERS = 8


@dataclass(frozen=True)
class View:
    """A side view of every row, and how the class reads in it."""

    name: str
    """Column, or what the entries were gathered from."""
    values: Matrix
    """`(n, m)`."""
    entries: list[str]
    """Names of the m entries."""
    scores: np.ndarray
    """Left-out score per class, `(n, C)`."""
    auc: float
    """How well the scores tell the class, averaged over classes."""
    skew: float
    """Opposite skew of the scores, averaged over classes; strongly negative: the view is the class itself."""
    ridge: float
    """Strength of the penalty that it is read with."""
    dense: bool
    """Whether it is a `view_*` column, made to know little about the class, and not a table of concepts."""
    of_network: bool
    """Whether a network made it, which may have learnt the class there."""

    def carriers(self, labels: np.ndarray) -> list[dict[str, object]]:
        """Return the entries most correlated with the score within classes, strongest first."""
        found: dict[int, float] = {}
        for correlations in _correlations(self.values, self.scores, labels):
            for j in np.argsort(-np.abs(correlations), kind="stable")[:CARRIERS]:
                best = found.get(int(j), 0.0)
                found[int(j)] = max(best, float(correlations[j]), key=abs)
        order = sorted(found, key=lambda j: -abs(found[j]))[:CARRIERS]
        return [{"name": self.entries[j], "correlation": round(found[j], 3)} for j in order]

    def named_carriers(self, labels: np.ndarray) -> list[str]:
        """Return the names of the entries that carry the class in this view, but for mere numbers."""
        names = [str(entry["name"]) for entry in self.carriers(labels)]
        return [name for name in names if not name.rpartition(" ")[2].isdigit()]


def gather(
    ds: Dataset,
    findings: Dataset | None,
    labels: np.ndarray,
    sources: np.ndarray | None,
    sample: np.ndarray | None = None,
) -> list[View]:
    """Return the views that `ds` offers: its `view_*` columns, and its concepts.

    Concept columns may know the class, unlike views. Beside a dense view they are taken where `findings` are given,
    and only the confirmed confounders among their concepts; without one, all of them. Columns that are constant,
    clusters of the embedding, and the concepts that a dense view was cut into are passed over.
    """
    ridge = TEXT_RIDGE if columns.TEXT in ds.column_names else IMAGE_RIDGE
    names = columns.view_columns(ds.features)
    dense = [(name, finite_vectors(ds, name), entry_names(ds, name)) for name in names]
    tables = _concept_tables(ds, confirmed(findings), names)
    views = []
    for name, values, entries in [*dense, *tables]:
        if varies(values):
            scores = view_scores(values, labels, ridge, sources, sample)
            figures = (auc_of(scores, labels), skew_of(scores, labels))
            learnt = bool(columns.facts(ds.features, name).get("of_network"))
            views.append(View(name, values, entries, scores, *figures, ridge, name in names, learnt))
    return views


def entry_names(ds: Dataset, view: str) -> list[str]:
    """Return the entry names of a `view_<source>` column: the words of its twin `concepts_<source>`, or numbers."""
    width = columns.matrix(ds.select(range(1)), view).shape[1]
    source = view.removeprefix(columns.VIEW_PREFIX)
    twin = columns.CONCEPTS_PREFIX + source
    words = columns.vocabulary(ds.features, twin) if twin in ds.column_names else []
    return words if len(words) == width else [f"{source} {j}" for j in range(width)]


def _concept_tables(
    ds: Dataset, wanted: set[tuple[str, str]], views: list[str]
) -> list[tuple[str, Matrix, list[str]]]:
    if views and not wanted:
        return []
    tables: list[tuple[str, Matrix, list[str]]] = []
    for name in columns.concept_columns(ds.features):
        source = name.removeprefix(columns.CONCEPTS_PREFIX)
        if name == LATENT or columns.VIEW_PREFIX + source in views:
            continue
        words = columns.vocabulary(ds.features, name)
        chosen = [j for j, word in enumerate(words) if not wanted or (source, word) in wanted]
        if chosen:
            present = concept_table(columns.presence(ds, name)[:, chosen])
            tables.append((name, present, [words[j] for j in chosen]))
    return tables


def confirmed(findings: Dataset | None) -> set[tuple[str, str]]:
    """Return (source, concept) of every confirmed confounder among the findings that is no derived concept."""
    if findings is None:
        return set()
    columns.require(findings, "source", "concept", "confirmed", "confounder")
    table = findings.select_columns(["source", "concept", "confirmed", "confounder"]).to_dict()
    rows = zip(table["source"], table["concept"], table["confirmed"], table["confounder"], strict=True)
    chosen = ((source, concept) for source, concept, sure, bad in rows if sure and bad)
    return {(source.removeprefix(columns.CONCEPTS_PREFIX), concept) for source, concept in chosen}


def _correlations(values: Matrix, scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the correlation of each score with each entry within classes, `(C, m)`; 0 where an entry is constant."""
    own = _within(scores, labels)
    totals = np.zeros((int(labels.max()) + 1, values.shape[1]))
    for first, block in blocks(values):
        here = labels[first : first + len(block)]
        for k in np.unique(here):
            totals[k] += block[here == k].sum(axis=0, dtype=np.float64)
    means = totals / np.maximum(np.bincount(labels), 1)[:, None]
    products, squares = np.zeros((scores.shape[1], values.shape[1])), np.zeros(values.shape[1])
    for first, block in blocks(values):
        centred = block - means[labels[first : first + len(block)]]
        products += own[first : first + len(block)].T @ centred
        squares += np.square(centred).sum(axis=0)
    scale = np.sqrt(squares * np.square(own).sum(axis=0)[:, None])
    return np.divide(products, scale, out=np.zeros_like(products), where=scale > 0)


def _within(values: np.ndarray, labels: np.ndarray) -> np.ndarray:
    centred = np.array(values, dtype=np.float64)
    for k in np.unique(labels):
        centred[labels == k] -= centred[labels == k].mean(axis=0)
    return centred
