"""What pictures show without a model: a thumbnail, and cheap facts that a person would name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from datasets import Dataset
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import (
    IMAGE,
    Source,
    ViewSource,
    between,
    numbers,
    refuse_constant,
    refuse_lengths,
    refuse_outside,
)
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

    def __post_init__(self) -> None:
        if self.mode not in _CHANNELS:
            raise ValueError(f"a thumbnail needs mode 'RGB' or 'L', not {self.mode!r}")
        refuse_outside(1, MOST_CELLS, size=self.size)
        super().__post_init__()  # which counts the names of the cells

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names of the entries, cell by cell."""
        return tuple(
            f"{channel}, {_place(row, column, self.size)}"
            for row in range(self.size)
            for column in range(self.size)
            for channel in _CHANNELS[self.mode]
        )

    def measure(self, batch: Batch) -> np.ndarray:
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


GRID = 32
"""Boxes along each side of the small picture that most facts are read from."""

SIDES = (
    ("dark centre", "bright centre"),
    ("dark border", "bright border"),
    ("dark top", "bright top"),
    ("dark bottom", "bright bottom"),
    ("dark left side", "bright left side"),
    ("dark right side", "bright right side"),
    ("low contrast", "high contrast"),
    ("muted colours", "vivid colours"),
    ("cool colours", "warm colours"),
    ("plain picture", "busy picture"),
    ("plain border", "busy border"),
    ("main mass to the left", "main mass to the right"),
    ("main mass high up", "main mass low down"),
    ("compact main mass", "spread main mass"),
    ("left and right differ", "left and right mirror each other"),
    ("top and bottom differ", "top and bottom mirror each other"),
    ("blurred", "sharp"),
    ("small image", "large image"),
    ("narrow image", "wide image"),
)
COLOURS = (
    "black", "grey", "white", "red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "brown",
)  # fmt: skip
FLAGS = (
    "greyscale",
    *(f"{colour} centre" for colour in COLOURS),
    *(f"{colour} border" for colour in COLOURS),
)
NAMES = (*(side for pair in SIDES for side in pair), *FLAGS)
LENGTH = len(SIDES) + len(FLAGS)

_HUE_ENDS = (15, 40, 70, 165, 195, 255, 290, 345, 361)
"""Degrees of the colour circle at which each of `_HUES` ends."""
_HUES = ("red", "orange", "yellow", "green", "turquoise", "blue", "purple", "pink", "red")
_HUE_NAMES = np.array([COLOURS.index(_HUES[k]) for k in np.searchsorted(_HUE_ENDS, np.arange(361), "right")])
"""Whole degrees of hue -> position in `COLOURS`."""


@dataclass(frozen=True)
class ImageProperties(Source):
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

    reads: ClassVar[str] = IMAGE

    column: str = columns.IMAGE
    name: str = "image_properties"
    thresholds: tuple[float, ...] = ()
    words: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.fitted:
            refuse_lengths(self, len(SIDES), "thresholds")

    def feature(self) -> Any:  # noqa: ANN401 - a datasets feature
        """Return the feature of the numbers of an image."""
        return columns.vector(LENGTH)

    def measure(self, batch: Batch) -> np.ndarray:
        """Return the numbers of each image."""
        return facts(batch[self.column])

    def learn(self, ds: Dataset) -> Self:
        """Return the source with its thresholds and the names that vary in `ds`."""
        values = columns.matrix(ds, self.measured_column)
        cuts = tuple(float(otsu_threshold(column)) for column in values[:, : len(SIDES)].T)
        table = _present(values, cuts)
        share = np.asarray(table.mean(axis=0)).ravel()
        words = tuple(name for name, part in zip(NAMES, share, strict=True) if 0 < part < 1)
        refuse_constant(self, len(words))
        return replace(self, thresholds=cuts, words=words)

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which names each image has."""
        wanted = [NAMES.index(word) for word in self.words]
        return sparse.csr_matrix(_present(numbers(batch, self), self.thresholds)[:, wanted])


def _present(values: np.ndarray, cuts: Sequence[float]) -> np.ndarray:
    """Return which of `NAMES` hold: low and high side of each number, then the colours."""
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


def facts(images: Sequence[Image]) -> np.ndarray:
    """Return one number per pair of `SIDES`, then one 0/1 per entry of `FLAGS`: float32 of shape `(n, LENGTH)`."""
    if not images:
        return np.zeros((0, LENGTH), dtype=np.float32)
    small = shrunk(images, GRID)
    light = luma(small)
    red, green, blue = np.moveaxis(small, 3, 0)
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    numbers = [*_brightness(light), light.reshape(len(light), -1).std(axis=1, dtype=np.float64)]
    numbers += [_mean(high - low), _mean(red - blue), *_busyness(light), *_mass(small), *_mirrors(light)]
    return np.column_stack([*numbers, *_full_size(images), *_flags(small, high, high - low)]).astype(np.float32)


def _border() -> np.ndarray:
    inside = np.zeros((GRID, GRID), dtype=bool)
    inside[GRID // 8 : -(GRID // 8), GRID // 8 : -(GRID // 8)] = True
    return ~inside


_BORDER = _border()
_CENTRE = slice(GRID // 4, -(GRID // 4))


def _mean(area: np.ndarray) -> np.ndarray:
    """Return the mean over all axes but the first, summed in one order whatever the batch and the memory layout."""
    return np.ascontiguousarray(area).reshape(len(area), -1).mean(axis=1, dtype=np.float64)


def _brightness(light: np.ndarray) -> list[np.ndarray]:
    half = GRID // 2
    areas = [light[:, _CENTRE, _CENTRE], light[:, _BORDER], light[:, :half], light[:, half:]]
    return [_mean(area) for area in (*areas, light[:, :, :half], light[:, :, half:])]


def _busyness(light: np.ndarray) -> list[np.ndarray]:
    """Return the mean difference between neighbouring boxes, in the whole picture and in its border."""
    down = np.abs(np.diff(light, axis=1, append=light[:, -1:]))
    steps = down + np.abs(np.diff(light, axis=2, append=light[:, :, -1:]))
    return [_mean(steps), _mean(steps[:, _BORDER])]


def _mass(small: np.ndarray) -> list[np.ndarray]:
    """Return the horizontal and vertical centre of what differs from the border, in 0..1, and how far it spreads."""
    ground = np.stack([_mean(small[:, _BORDER, channel]) for channel in range(3)], axis=1)
    away = np.abs(small - ground[:, None, None, :])
    weight = away[..., 0] + away[..., 1] + away[..., 2] + 1e-6
    place = (np.arange(GRID) + 0.5) / GRID
    total, x, y = _mean(weight), _mean(weight * place), _mean(weight * place[:, None])
    square = _mean(weight * (place**2 + place[:, None] ** 2))
    return [x / total, y / total, square / total - (x / total) ** 2 - (y / total) ** 2]


def _mirrors(light: np.ndarray) -> list[np.ndarray]:
    """Return the correlation with the left-right and the top-bottom mirror image; 1 for a flat picture."""
    centred = light - _mean(light)[:, None, None]
    power = _mean(centred**2) + 1e-6
    return [(_mean(centred * other) + 1e-6) / power for other in (centred[:, :, ::-1], centred[:, ::-1])]


def _full_size(images: Sequence[Image]) -> list[np.ndarray]:
    """Return sharpness, log2 of the pixel count, and log2 of width over height."""
    sizes = np.array([image.size for image in images], dtype=np.float32)
    sharp = np.array([_sharpness(image) for image in images], dtype=np.float32)
    return [sharp, np.log2(sizes[:, 0] * sizes[:, 1]), np.log2(sizes[:, 0] / sizes[:, 1])]


def _sharpness(image: Image, window: int = 128) -> float:
    """Return the energy of second differences over that of first differences, in the middle of the image."""
    width, height = image.size
    left, top = max((width - window) // 2, 0), max((height - window) // 2, 0)
    part = rgb(image.crop((left, top, min(left + window, width), min(top + window, height)))).convert("L")
    grey = np.asarray(part, dtype=np.float32)
    first = [float((np.diff(grey, axis=axis) ** 2).sum()) for axis in (0, 1)]
    second = [float((np.diff(grey, n=2, axis=axis) ** 2).sum()) for axis in (0, 1)]
    return sum(second) / (sum(first) + 1.0)


def _flags(small: np.ndarray, high: np.ndarray, span: np.ndarray) -> list[np.ndarray]:
    grey = span.reshape(len(span), -1).max(axis=1) < 0.02
    named = _named_colours(_hue(small, high, span), high, span)
    return [grey, *_commonest(named[:, _CENTRE, _CENTRE]).T, *_commonest(named[:, _BORDER]).T]


def _commonest(named: np.ndarray) -> np.ndarray:
    """Return which colour is the commonest in each picture, of shape `(n, len(COLOURS))`."""
    pixels = named.reshape(len(named), -1) + len(COLOURS) * np.arange(len(named))[:, None]
    counts = np.bincount(pixels.ravel(), minlength=len(named) * len(COLOURS)).reshape(len(named), -1)
    return counts.argmax(axis=1)[:, None] == np.arange(len(COLOURS))


def _named_colours(hue: np.ndarray, high: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Return the position in `COLOURS` of the everyday name of each pixel, from hue, value and largest difference."""
    ids = _HUE_NAMES[hue.astype(np.int64)]
    ids = np.where((hue >= 10) & (hue < 70) & (high < 0.6), COLOURS.index("brown"), ids)
    ids = np.where(span < 0.2 * high, COLOURS.index("grey"), ids)
    ids = np.where((span < 0.15 * high) & (high > 0.8), COLOURS.index("white"), ids)
    return np.where(high < 0.2, COLOURS.index("black"), ids)


def _hue(small: np.ndarray, high: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Return the hue angle of each pixel in degrees, in 0 <= hue <= 360."""
    red, green, blue = np.moveaxis(small, 3, 0)
    safe = np.where(span > 0, span, np.float32(1))
    from_green, from_blue = (blue - red) / safe + 2, (red - green) / safe + 4
    return 60 * np.where(high == red, (green - blue) / safe % 6, np.where(high == green, from_green, from_blue))
