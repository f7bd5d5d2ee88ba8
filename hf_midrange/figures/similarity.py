"""How like each other the rows are: cosines of embeddings, sorted by label and concept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.figures.canvas import empty_figure, literal


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def similarity_figure(ds: Dataset, concept: tuple[str, str] | None = None, rows: int = 400, seed: int = 0) -> Figure:
    """Return the cosine between the embeddings of every two rows, less their mean, sorted by label.

    Where a network leans on a concept, blocks of rows that share it stand out within labels and across them.

    Args:
        ds: has `embedding` and `label`.
        concept: source and name, such as `("annotations", "place=water")`: within a label, rows with it come last.
        rows: at most so many, drawn at random.
        seed: of the draw.

    Raises:
        ImportError: if matplotlib is not installed.
        KeyError: if a column is missing.
        ValueError: if there is no row or no such concept.
    """
    columns.require(ds, columns.EMBEDDING, columns.LABEL)
    if not len(ds):
        raise ValueError("the dataset has no rows to compare")
    if len(ds) > rows:
        ds = ds.select(np.sort(np.random.default_rng(seed).choice(len(ds), rows, replace=False)).tolist())
    ids, names = columns.labels(ds), columns.class_label(ds.features).names
    has = np.zeros(len(ds), dtype=np.int64) if concept is None else _having(ds, *concept)
    order = np.lexsort((has, ids))
    blocks = 2 * ids[order] + has[order]
    table = cosines(columns.finite_matrix(ds, columns.EMBEDDING)[order])

    figure = empty_figure(6.4, 5.6)
    axes = figure.subplots()
    image = axes.imshow(table, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
    for edge in np.flatnonzero(np.diff(blocks)) + 0.5:
        axes.axhline(edge, color="black", linewidth=0.6)
        axes.axvline(edge, color="black", linewidth=0.6)
    kinds = np.unique(blocks)
    middles = [np.flatnonzero(blocks == kind).mean() for kind in kinds]
    said = [
        literal(names[kind // 2]) + ("" if concept is None else f", {'with' if kind % 2 else 'without'}")
        for kind in kinds
    ]
    axes.set_xticks(middles, said, rotation=90)
    axes.set_yticks(middles, said)
    figure.colorbar(image, ax=axes, label="cosine")
    return figure


def cosines(embedding: np.ndarray) -> np.ndarray:
    """Return the cosine between every two rows less the mean row, of shape `(n, n)`; 0 for a row that is the mean."""
    centred = embedding.astype(np.float64) - embedding.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    return unit @ unit.T


def _having(ds: Dataset, source: str, name: str) -> np.ndarray:
    column = columns.CONCEPTS_PREFIX + source
    columns.require(ds, column)
    words = columns.vocabulary(ds.features, column)
    if name not in words:
        raise ValueError(f"`{column}` has no concept {name!r}; it has {len(words)}, such as {words[:5]}")
    return columns.presence(ds, column).tocsc()[:, [words.index(name)]].toarray()[:, 0].astype(np.int64)
