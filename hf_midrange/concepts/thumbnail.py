"""The side view for images: a thumbnail too small to show a class, but large enough to show a shortcut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import IMAGE, refuse_outside
from hf_midrange.concepts.view_source import ViewSource
from hf_midrange.extraction.images import rgb


if TYPE_CHECKING:
    from PIL.Image import Image

MOST_CELLS = 64
"""Cells along a side above which a picture is no thumbnail any more."""

_CHANNELS = {"RGB": ("red", "green", "blue"), "L": ("bright",)}
_ROWS, _COLUMNS = ("top", "upper", "lower", "bottom"), ("left", "centre-left", "centre-right", "right")


@dataclass(frozen=True)
class Thumbnail(ViewSource):
    """A small grid of mean colours: `view_thumbnail`, by default 4 x 4 x RGB = 48 numbers in 0..1.

    Entries are called "red, top left", "green, lower centre-right" and so on, row by row, the channels of a cell
    together. In `concepts_thumbnail` an entry is present where it is above the threshold that halves the rows fitted
    on.

    Fails on shape and texture, to which all thumbnails are blind; a grey one is blind to colour too. Where things lie
    at the same place in every picture, cells show parts of the class as well.

    Args:
        column: an `Image` column.
        size: cells along each side, at most 64.
        mode: "RGB" for colours, or "L" for brightness alone (ITU-R 601-2 luma), which gives `size * size` numbers.
        name: the columns are `view_<name>` and `concepts_<name>`.

    Examples:
        >>> Thumbnail().vocabulary[:4]
        ('red, top left', 'green, top left', 'blue, top left', 'red, top centre-left')
    """

    reads: ClassVar[str] = IMAGE

    column: str = columns.IMAGE
    size: int = 4
    mode: str = "RGB"
    name: str = "thumbnail"
    thresholds: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()
    version: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in _CHANNELS:
            raise ValueError(f"a thumbnail needs mode 'RGB' or 'L', not {self.mode!r}")
        refuse_outside(1, MOST_CELLS, size=self.size)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names of the entries, cell by cell."""
        return tuple(
            f"{channel}, {_place(row, column, self.size)}"
            for row in range(self.size)
            for column in range(self.size)
            for channel in _CHANNELS[self.mode]
        )

    def view(self, batch: Batch) -> np.ndarray:
        """Return the mean colours of the cells, float32 of shape `(rows, size * size * channels)`."""
        cells = shrunk(batch[self.column], self.size)
        if self.mode == "L":
            cells = luma(cells)
        return np.ascontiguousarray(cells.reshape(len(cells), -1))


def luma(colours: np.ndarray) -> np.ndarray:
    """Return the brightness of RGB values (ITU-R 601-2 luma), of the shape of `colours` without its last axis.

    Written out, because a matrix product may round a row differently when other rows stand beside it.
    """
    red, green, blue = colours[..., 0], colours[..., 1], colours[..., 2]
    return np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue


def shrunk(images: Sequence[Image], size: int) -> np.ndarray:
    """Return the images averaged over `size` x `size` boxes: float32 in 0..1, of shape `(n, size, size, 3)`."""
    from PIL.Image import Resampling

    small = [np.asarray(rgb(image).resize((size, size), Resampling.BOX)) for image in images]
    return np.stack(small).astype(np.float32) / 255 if small else np.zeros((0, size, size, 3), dtype=np.float32)


def _place(row: int, column: int, size: int) -> str:
    if size == len(_ROWS):
        return f"{_ROWS[row]} {_COLUMNS[column]}"
    return f"row {row + 1} of {size}, column {column + 1} of {size}"
