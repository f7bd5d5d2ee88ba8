"""The numbers behind `ImageProperties`, and what either side of each is called."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from hf_midrange.concepts.pictures import rgb, shrunk


if TYPE_CHECKING:
    from PIL.Image import Image


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
    "black",
    "grey",
    "white",
    "red",
    "orange",
    "yellow",
    "green",
    "turquoise",
    "blue",
    "purple",
    "pink",
    "brown",
)
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


def facts(images: Sequence[Image]) -> np.ndarray:
    """Return one number per pair of `SIDES`, then one 0/1 per entry of `FLAGS`: float32 of shape `(n, LENGTH)`."""
    small = shrunk(images, GRID)
    if not len(small):
        return np.zeros((0, LENGTH), dtype=np.float32)
    light = small @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    numbers = [*_brightness(light), *_colour(small, light), *_mass(small), *_mirrors(light), *_full_size(images)]
    return np.column_stack([*numbers, *_flags(small)]).astype(np.float32)


def _border() -> np.ndarray:
    inside = np.zeros((GRID, GRID), dtype=bool)
    inside[GRID // 8 : -(GRID // 8), GRID // 8 : -(GRID // 8)] = True
    return ~inside


_BORDER = _border()
_CENTRE = slice(GRID // 4, -(GRID // 4))


def _brightness(light: np.ndarray) -> list[np.ndarray]:
    half = GRID // 2
    areas = [light[:, _CENTRE, _CENTRE], light[:, _BORDER], light[:, :half], light[:, half:]]
    areas += [light[:, :, :half], light[:, :, half:]]
    return [area.reshape(len(light), -1).mean(axis=1) for area in areas]


def _colour(small: np.ndarray, light: np.ndarray) -> list[np.ndarray]:
    """Return contrast, saturation, warmth, busyness, busyness of the border."""
    spread = small.max(axis=3) - small.min(axis=3)
    warmth = small[..., 0] - small[..., 2]
    down = np.abs(np.diff(light, axis=1, append=light[:, -1:]))
    steps = down + np.abs(np.diff(light, axis=2, append=light[:, :, -1:]))
    means = [values.mean(axis=(1, 2)) for values in (spread, warmth, steps)]
    return [light.std(axis=(1, 2)), *means, steps[:, _BORDER].mean(axis=1)]


def _mass(small: np.ndarray) -> list[np.ndarray]:
    """Return the horizontal and vertical centre of what differs from the border, in 0..1, and how far it spreads."""
    ground = small[:, _BORDER].mean(axis=1)
    weight = np.abs(small - ground[:, None, None, :]).mean(axis=3) + np.float32(1e-6)
    weight /= weight.sum(axis=(1, 2), keepdims=True)
    place = (np.arange(GRID, dtype=np.float32) + 0.5) / GRID
    across, down = weight.sum(axis=1), weight.sum(axis=2)
    x, y = across @ place, down @ place
    spread = across @ place**2 - x**2 + down @ place**2 - y**2
    return [x, y, spread]


def _mirrors(light: np.ndarray) -> list[np.ndarray]:
    """Return the correlation of each picture with its left-right and top-bottom mirror images; 1 for a flat picture."""
    centred = light - light.mean(axis=(1, 2), keepdims=True)
    power = (centred**2).sum(axis=(1, 2)) + np.float32(1e-6)
    mirrored = [centred[:, :, ::-1], centred[:, ::-1]]
    return [((centred * other).sum(axis=(1, 2)) + np.float32(1e-6)) / power for other in mirrored]


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


def _flags(small: np.ndarray) -> list[np.ndarray]:
    grey = (small.max(axis=3) - small.min(axis=3)).max(axis=(1, 2)) < 0.02
    named = _named_colours(small)
    centre, border = named[:, _CENTRE, _CENTRE].reshape(len(small), -1), named[:, _BORDER]
    return [grey, *_commonest(centre).T, *_commonest(border).T]


def _commonest(named: np.ndarray) -> np.ndarray:
    """Return which colour is the commonest in each row, one column per colour."""
    counts = np.stack([(named == k).sum(axis=1) for k in range(len(COLOURS))], axis=1)
    return counts.argmax(axis=1)[:, None] == np.arange(len(COLOURS))


def _named_colours(small: np.ndarray) -> np.ndarray:
    """Return the position in `COLOURS` of the everyday name of each pixel, from its hue, saturation and value."""
    high, low = small.max(axis=3), small.min(axis=3)
    span = high - low
    hue = _hue(small, high, span)
    ids = np.array([COLOURS.index(name) for name in _HUES])[np.searchsorted(_HUE_ENDS, hue, "right")]
    warm = (hue >= 10) & (hue < 70)
    ids = np.where(warm & (high < 0.6), COLOURS.index("brown"), ids)
    ids = np.where(span < 0.2 * high, COLOURS.index("grey"), ids)
    ids = np.where((span < 0.15 * high) & (high > 0.8), COLOURS.index("white"), ids)
    return np.where(high < 0.2, COLOURS.index("black"), ids)


def _hue(small: np.ndarray, high: np.ndarray, span: np.ndarray) -> np.ndarray:
    """Return the hue angle of each pixel in degrees, 0..360."""
    red, green, blue = np.moveaxis(small, 3, 0)
    safe = np.where(span > 0, span, 1)
    turns = np.where(
        high == red,
        (green - blue) / safe % 6,
        np.where(high == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    return 60 * turns
