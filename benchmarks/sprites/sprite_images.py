"""Sprites, a re-rendering of dSprites: white squares, ellipses and hearts on black, every factor known.

Source: Matthey, L., Higgins, I., Hassabis, D., Lerchner, A. (2017), "dSprites: Disentanglement testing sprites
dataset". The outlines are measured from its 320 published frames, and the pixels are drawn anew.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np


SHAPES = ("square", "ellipse", "heart")
REGIONS = ("left", "middle", "right", "between")
TIED_REGION = (0, 1, 2)
"""Shape -> the region it is tied to: squares stand left, ellipses in the middle, hearts right."""
PIXELS, SCALES, ORIENTATIONS, POSITIONS = 64, 6, 40, 32

_CHUNK = 512  # sprites drawn at once: some 20 MB an array


def render(
    shape: np.ndarray, scale: np.ndarray, orientation: np.ndarray, pos_x: np.ndarray, pos_y: np.ndarray
) -> np.ndarray:
    """Return sprites of shape `(n, 64, 64)` and type uint8, 255 where the pixel's centre is inside, else 0.

    No anti-aliasing. Axis 1 runs down (`pos_y`), axis 2 to the right (`pos_x`).

    Args:
        shape: 0 square, 1 ellipse, 2 heart; of shape `(n,)`, as all the others.
        scale: 0 to 5, for .5 to 1 times the outline.
        orientation: 0 to 39, in steps of 2 pi / 39.
        pos_x: 0 to 31, from pixel 16 to pixel 48.
        pos_y: the same, downwards.

    Raises:
        ValueError: if a factor lies outside its values, or factors differ in length.

    Example:
        >>> int((render(*np.array([[0], [5], [0], [15], [15]])) > 0).sum())  # a square, 19 pixels a side
        361
    """
    factors = np.stack([np.asarray(values, dtype=np.int64) for values in (shape, scale, orientation, pos_x, pos_y)])
    limits = np.array([len(SHAPES), SCALES, ORIENTATIONS, POSITIONS, POSITIONS])
    bad = np.argwhere((factors < 0) | (factors >= limits[:, None]))
    if bad.size:
        which, row = bad[0]
        name = ("shape", "scale", "orientation", "pos_x", "pos_y")[which]
        raise ValueError(f"`{name}` is {factors[which, row]} in row {row}; it must be 0 to {limits[which] - 1}")
    images = np.empty((factors.shape[1], PIXELS, PIXELS), dtype=np.uint8)
    for start in range(0, len(images), _CHUNK):
        images[start : start + _CHUNK] = _draw(*factors[:, start : start + _CHUNK])
    return images


def region_of(pos_x: np.ndarray) -> np.ndarray:
    """Return the region of each position k: left for k/31 < .3, middle .35 to .65, right from .7, else between."""
    place = np.asarray(pos_x) / (POSITIONS - 1)
    return np.select([place < 0.3, (place >= 0.35) & (place < 0.65), place >= 0.7], [0, 1, 2], default=3)


def _draw(
    shape: np.ndarray, scale: np.ndarray, orientation: np.ndarray, pos_x: np.ndarray, pos_y: np.ndarray
) -> np.ndarray:
    """Turn every pixel centre into the sprite's own coordinates u, v and ask whether it lies inside the outline."""
    outline = _outline()
    angle = (2 * np.pi / (ORIENTATIONS - 1) * orientation)[:, None, None]
    size = (0.5 + 0.1 * scale)[:, None, None]
    centres = np.arange(PIXELS) + 0.5
    dx = centres[None, None, :] - (16 + 32 * pos_x / (POSITIONS - 1))[:, None, None]
    dy = centres[None, :, None] - (16 + 32 * pos_y / (POSITIONS - 1))[:, None, None]
    u = (np.cos(angle) * dx - np.sin(angle) * dy) / size
    v = (np.sin(angle) * dx + np.cos(angle) * dy) / size
    inside = np.maximum(np.abs(u), np.abs(v)) <= outline["square_half_side"]
    for kind in (1, 2):
        rows = shape == kind
        inside[rows] = np.hypot(u[rows], v[rows]) <= _radius(kind, u[rows], v[rows])
    return inside * np.uint8(255)


def _radius(kind: int, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Return the outline's radius in the direction of each pixel, interpolated linearly in the polar angle."""
    if kind == 1:
        radii, turn = _outline()["ellipse_polar_quarter"], np.arctan2(np.abs(v), np.abs(u)) / (np.pi / 2)
    else:
        radii, turn = _outline()["heart_polar_half"], (np.arctan2(v, np.abs(u)) + np.pi / 2) / np.pi
    return np.interp(turn, np.linspace(0, 1, len(radii)), radii)


@cache
def _outline() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("sprites_outline.json").read_text(encoding="utf-8"))
