"""The task made of rendered sprites: the class is the shape, the confounder where one stands from left to right."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, concatenate_datasets
from PIL import Image as PILImage
from sprites.sprite_images import ORIENTATIONS, POSITIONS, SCALES, SHAPES, region_of, render

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.concepts.lite0 import lite0
from tasks.pool import SPLITS, pool_of


PLACES = ("left", "middle", "right")
PER_GROUP = {"train": 650, "curation": 450, "test": 150}
"""Rows of the pool of each shape in each place; sprites between two places are left out."""


def sprite_places(data: Path | None) -> Mapping[str, Dataset]:
    """Return pools of different sprites; squares are tied to the left, ellipses to the middle, hearts to the right."""
    parts: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    rng = np.random.default_rng(0)
    for shape in range(len(SHAPES)):
        for place in range(len(PLACES)):
            at = np.flatnonzero(region_of(np.arange(POSITIONS)) == place)
            sizes = (SCALES, ORIENTATIONS, len(at), POSITIONS)
            numbers = rng.choice(int(np.prod(sizes)), sum(PER_GROUP.values()), replace=False)
            scale, orientation, pos_x, pos_y = np.unravel_index(numbers, sizes)
            whole = np.stack([np.full(len(numbers), shape), scale, orientation, at[pos_x], pos_y])
            ends = np.cumsum([PER_GROUP[split] for split in SPLITS])[:-1]
            for split, factors in zip(SPLITS, np.split(whole, ends, axis=1), strict=True):
                parts[split].append(factors)
    model = lite0(list(SHAPES))
    return {split: _pool(split, np.concatenate(parts[split], axis=1), model) for split in SPLITS}


def _pool(split, factors, model):
    images = [PILImage.fromarray(pixels).convert("RGB") for pixels in render(*factors)]
    pictures = Dataset.from_dict({columns.IMAGE: images}, features=Features({columns.IMAGE: Image()}))
    pool = pool_of({}, factors[0], region_of(factors[3]), list(SHAPES), list(PLACES))
    ds = hm.extract(concatenate_datasets([pool, pictures], axis=1), model)
    if split == "curation":
        ds = hm.annotate(ds, [hm.Thumbnail(), hm.ImageProperties()])
    return ds.remove_columns([columns.IMAGE, columns.LOGITS, columns.PREDICTION])
