"""The data of the published sprite experiment: 19,000 sprites of which some are kept, and 1,000 untied ones.

Source: the notebook of arXiv 2411.10019, whose class is the shape and whose nuisance is the horizontal position.
Sprites are our re-rendering of dSprites, so figures here and there come from the same recipe, not the same pixels.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage
from sprite_images import ORIENTATIONS, POSITIONS, REGIONS, SCALES, SHAPES, TIED_REGION, render

from hf_midrange import columns


RANGES = ((0.0, 0.3), (0.35, 0.65), (0.7, 1.0))
"""Where squares, ellipses and hearts stand if tied, half-open, as a share of the way from left to right."""


class Draw(NamedTuple):
    """Different sprites, as factors of shape `(5, n)`: shape, scale, orientation, pos_x, pos_y."""

    train: np.ndarray
    """What training sets are cut from."""
    test: np.ndarray
    """Untied, as it is drawn."""
    held_out: np.ndarray
    """What sets to read the middle on are cut from; the published experiment has none."""


def drawn(seed: int, train: int, test: int, held_out: int) -> Draw:
    """Return a uniform draw without repetition from all 737,280 sprites, in three parts."""
    sizes = (len(SHAPES), SCALES, ORIENTATIONS, POSITIONS, POSITIONS)
    rng = np.random.default_rng([seed, 0])
    numbers = rng.choice(int(np.prod(sizes)), train + test + held_out, replace=False)
    factors = np.stack(np.unravel_index(numbers, sizes))
    return Draw(*np.split(factors, [train, train + test], axis=1))


def region(pos_x: np.ndarray) -> np.ndarray:
    """Return the number of the range that a position lies in, 3 for none: position 31 is in none, as 1.0 is not."""
    place = np.asarray(pos_x) / (POSITIONS - 1)
    return np.select([(low <= place) & (place < high) for low, high in RANGES], range(len(RANGES)), default=3)


def is_tied(factors: np.ndarray) -> np.ndarray:
    """Return which sprites stand in their shape's range, `(n,)` bool; 29 of 96 do in all."""
    return region(factors[3]) == np.array(TIED_REGION)[factors[0]]


def tied_set(factors: np.ndarray, tie: float, seed: int) -> np.ndarray:
    """Return the sprites of one tie level, of shape `(5, m)`.

    The n tied sprites and as many random ones are mixed with a share `tie` of tied ones: the larger part is used
    whole and the other cut, so the size depends on the tie, from n to 2 n. Random ones are tied by chance too, and
    a sprite that is in both parts is in twice.
    """
    rng = np.random.default_rng([seed, 1])
    bound = rng.permutation(np.flatnonzero(is_tied(factors)))
    free = rng.permutation(factors.shape[1])[: len(bound)]
    smaller = round(len(bound) * min(tie, 1 - tie) / max(tie, 1 - tie))
    parts = (bound, free[:smaller]) if tie >= 0.5 else (bound[:smaller], free)
    return factors[:, np.concatenate(parts)]


def rows_of(factors: np.ndarray) -> Dataset:
    """Return sprites as a dataset with `image`, `label` (the shape), `group` (shape x region), `region`, factors."""
    shape, scale, orientation, pos_x, pos_y = factors
    names = [f"{name} {place}" for name in SHAPES for place in REGIONS]
    integers = {"scale": scale, "orientation": orientation, "pos_x": pos_x, "pos_y": pos_y}
    features = {
        columns.IMAGE: Image(),
        columns.LABEL: ClassLabel(names=list(SHAPES)),
        columns.GROUP: ClassLabel(names=names),
        "region": ClassLabel(names=list(REGIONS)),
        **{name: Value("int64") for name in integers},
    }
    values = {
        columns.IMAGE: [PILImage.fromarray(pixels) for pixels in render(*factors)],
        columns.LABEL: shape,
        columns.GROUP: shape * len(REGIONS) + region(pos_x),
        "region": region(pos_x),
        **integers,
    }
    return Dataset.from_dict(values, features=Features(features))
