"""Cheap facts about images that a person would name: a dark centre, a green border, a wide or blurred picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from datasets import Dataset, Features
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts import picture_facts
from hf_midrange.concepts.reading import between
from hf_midrange.concepts.source import IMAGE, Batch, WordSource, refuse_constant, require_feature


@dataclass(frozen=True)
class ImageProperties(WordSource):
    """Brightness, colour, contrast, sharpness, size, symmetry and where the mass lies: `concepts_image_properties`.

    Each number gets one threshold from the rows fitted on (Otsu 1979: the cut that separates two modes best, with at
    least 10 % of the rows on each side), and a name for either side: "dark centre" / "bright centre". Colours are the
    commonest named colour of the centre and of the border ("green border"). Names that all rows share are dropped.
    Sharpness is read from the middle of the full-size image; everything else from 32 x 32 boxes. The "main mass" is
    what differs from the mean colour of the border.

    Fails on what a thing is, and on patterns finer than the boxes. On plain pictures one difference in ink goes by
    many of these names at once: a main mass to the left, a bright left side, a high contrast.

    Args:
        column: an `Image` column.
        name: the column is `concepts_<name>`.
    """

    column: str = columns.IMAGE
    name: str = "image_properties"
    thresholds: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    version: int = 1

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the image column."""
        return (self.column,)

    def check(self, features: Features) -> None:
        """Raise unless the column holds images."""
        require_feature(self, features, self.column, IMAGE)

    @property
    def _facts(self) -> str:
        return f"_facts_{self.name}"

    def measured(self) -> dict[str, Any]:
        """Return the working column of numbers."""
        return {self._facts: columns.vector(picture_facts.LENGTH)}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return the numbers of each image."""
        return {self._facts: picture_facts.facts(batch[self.column])}

    def learn(self, ds: Dataset) -> Self:
        """Return the source with its thresholds and the names that vary in `ds`."""
        values = columns.matrix(ds, self._facts)
        cuts = tuple(float(otsu_threshold(column)) for column in values[:, : len(picture_facts.SIDES)].T)
        table = _present(values, cuts)
        share = np.asarray(table.mean(axis=0)).ravel()
        words = tuple(name for name, part in zip(picture_facts.NAMES, share, strict=True) if 0 < part < 1)
        refuse_constant(self, len(words))
        return replace(self, thresholds=cuts, words=words)

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which names each image has."""
        values = np.asarray(batch[self._facts], dtype=np.float32).reshape(-1, picture_facts.LENGTH)
        wanted = [picture_facts.NAMES.index(word) for word in self.words]
        return sparse.csr_matrix(_present(values, self.thresholds)[:, wanted])


def _present(values: np.ndarray, cuts: Sequence[float]) -> np.ndarray:
    """Return which of `picture_facts.NAMES` hold: low and high side of each number, then the colours."""
    numbers, flags = values[:, : len(cuts)], values[:, len(cuts) :] > 0.5
    edges = np.array(cuts, dtype=np.float32)
    sides = np.stack([numbers <= edges, numbers > edges], axis=2) & np.isfinite(edges)[None, :, None]
    return np.hstack([sides.reshape(len(values), -1), flags])


def otsu_threshold(values: np.ndarray, least: float = 0.1) -> np.float32:
    """Return the cut with the largest variance between its two sides, each holding a share `least` of the values.

    Maximises w0 w1 (mean1 - mean0)^2 over all cuts (Otsu, IEEE Trans. SMC 9(1), 1979, eq. 14). Where ties leave no
    such cut, the answer is infinity: there is nothing to tell apart.

    Examples:
        >>> float(otsu_threshold(np.array([0, 0.1, 0.2, 0.8, 0.9, 1.0], dtype=np.float32)))
        0.5
    """
    ordered, counts = np.unique(np.asarray(values, dtype=np.float32), return_counts=True)
    below = np.cumsum(counts)[:-1] / counts.sum()
    sums = np.cumsum(counts * ordered.astype(np.float64))
    allowed = (below >= least) & (below <= 1 - least)
    if not allowed.any():
        return np.float32(np.inf)
    total = sums[-1] / counts.sum()
    spread = (total * below - sums[:-1] / counts.sum()) ** 2 / (below * (1 - below))
    return between(ordered, int(np.argmax(np.where(allowed, spread, -1.0))))
