"""The side view for images: a thumbnail too small to show a class, but large enough to show a shortcut."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from datasets import Features

from hf_midrange import columns
from hf_midrange.concepts.dense import DenseSource
from hf_midrange.concepts.pictures import luma, shrunk
from hf_midrange.concepts.source import IMAGE, Batch, require_feature


_CHANNELS = {"RGB": ("red", "green", "blue"), "L": ("bright",)}
_ROWS, _COLUMNS = ("top", "upper", "lower", "bottom"), ("left", "centre-left", "centre-right", "right")


@dataclass(frozen=True)
class Thumbnail(DenseSource):
    """A small grid of mean colours: `view_thumbnail`, by default 4 x 4 x RGB = 48 numbers in 0..1.

    Entries are called "red, top left", "green, lower centre-right" and so on, row by row, the channels of a cell
    together. In `concepts_thumbnail` an entry is present where it is above the threshold that halves the rows fitted
    on.

    Fails on shape and texture, to which all thumbnails are blind; a grey one is blind to colour too. Where things lie
    at the same place in every picture, cells show parts of the class as well.

    Args:
        column: an `Image` column.
        size: cells along each side.
        mode: "RGB" for colours, or "L" for brightness alone (ITU-R 601-2 luma), which gives `size * size` numbers.
        name: the columns are `view_<name>` and `concepts_<name>`.

    Examples:
        >>> Thumbnail().vocabulary[:4]
        ('red, top left', 'green, top left', 'blue, top left', 'red, top centre-left')
    """

    column: str = columns.IMAGE
    size: int = 4
    mode: str = "RGB"
    name: str = "thumbnail"
    thresholds: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()
    version: int = 1

    def __post_init__(self) -> None:
        if self.mode not in _CHANNELS or self.size < 1:
            raise ValueError(
                f"a thumbnail needs mode 'RGB' or 'L' and size >= 1, not mode {self.mode!r}, size {self.size!r}"
            )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the image column."""
        return (self.column,)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names of the entries, cell by cell."""
        return tuple(
            f"{channel}, {_place(row, column, self.size)}"
            for row in range(self.size)
            for column in range(self.size)
            for channel in _CHANNELS[self.mode]
        )

    def check(self, features: Features) -> None:
        """Raise unless the column holds images."""
        require_feature(self, features, self.column, IMAGE)

    def view(self, batch: Batch) -> np.ndarray:
        """Return the mean colours of the cells, float32 of shape `(rows, size * size * channels)`."""
        cells = shrunk(batch[self.column], self.size)
        if self.mode == "L":
            cells = luma(cells)
        return np.ascontiguousarray(cells.reshape(len(cells), -1))


def _place(row: int, column: int, size: int) -> str:
    if size == len(_ROWS):
        return f"{_ROWS[row]} {_COLUMNS[column]}"
    return f"row {row + 1} of {size}, column {column + 1} of {size}"
