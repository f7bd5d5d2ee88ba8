"""Tasks made of pictures of 28 x 28 pixels: dominoes of digits or clothes, and digits on striped ground."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, Features, Image, Value, concatenate_datasets
from PIL import Image as PILImage

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.concepts.lite0 import lite0
from hf_midrange.demo.dominoes import digits, stack
from tasks.pool import pool_of


PER_GROUP = {"train": 1000, "curation": 700, "test": 300}
"""Rows of the pool of two classes and two confounders in each of the four groups."""

SHARES = {"train": (0.0, 0.4), "curation": (0.4, 0.7), "test": (0.7, 1.0)}
"""Which source pictures of a class a split may use: no picture is in two splits."""

Pictures = Mapping[int, np.ndarray]
"""Class -> pictures `(n, 28, 28)` uint8."""


def by_class(pictures: np.ndarray, classes: np.ndarray) -> Pictures:
    return {int(k): pictures[classes == k] for k in np.unique(classes)}


def digit_dominoes(lower: Sequence[int], data: Path | None) -> Mapping[str, Dataset]:
    """Return pools: below, the class; above, one of as many digits from 0 on as there are classes."""
    pictures, above = by_class(*digits()), range(len(lower))
    names, confounders = [str(k) for k in lower], [f"{k} above" for k in above]
    return _pools(pictures, list(lower), names, confounders, _with_above(pictures, above))


def clothes_dominoes(lower: Sequence[int], names: Sequence[str], data: Path | None) -> Mapping[str, Dataset]:
    """Return pools: below, a piece of clothing; above, as many digits as there are classes."""
    clothes, upper = by_class(*fashion(data)), by_class(*digits())
    confounders = [f"{k} above" for k in range(len(lower))]
    return _pools(clothes, list(lower), list(names), confounders, _with_above(upper, range(len(lower))))


def striped_digits(lower: Sequence[int], data: Path | None) -> Mapping[str, Dataset]:
    """Return pools: a digit on stripes that rise or fall, of random phase: their mean colours are the same."""
    pictures = by_class(*digits())
    return _pools(pictures, list(lower), [str(k) for k in lower], ["rising stripes", "falling stripes"], _on_stripes)


def plain_digits(pair: Sequence[int], data: Path | None) -> Mapping[str, Dataset]:
    """Return pools of two digits with nothing beside them, each picture once: there is no confounder."""
    pictures, names, splits = by_class(*digits()), [str(k) for k in pair], {}
    model = lite0(names)
    for split, (first, last) in SHARES.items():
        parts = [pictures[k][int(first * len(pictures[k])) : int(last * len(pictures[k]))] for k in pair]
        labels = np.repeat(np.arange(len(pair)), [len(part) for part in parts])
        images = [PILImage.fromarray(pixels).convert("RGB") for part in parts for pixels in part]
        none = np.zeros(len(labels), dtype=int)
        splits[split] = _described(images, labels, none, np.arange(len(labels)), names, ["nothing"], split, model)
    return splits


def on_photographs(lower: Sequence[int], names: Sequence[str], data: Path | None) -> Mapping[str, Dataset]:
    """Return pools: a piece of clothing on a patch of one of two photographs, whose colours and textures vary."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images

    def compose(below: np.ndarray, confounder: int, split: str, rng: np.random.Generator) -> PILImage.Image:
        photograph = photographs[confounder]
        # The left of a photograph is for training, the middle for curation, the right for the test.
        first, last = (int(share * (photograph.shape[1] - 120)) for share in SHARES[split])
        top, left = rng.integers(0, photograph.shape[0] - 120), rng.integers(first, last)
        patch = PILImage.fromarray(photograph[top : top + 120, left : left + 120]).resize((56, 56))
        canvas = np.asarray(patch).astype(float)
        canvas[14:42, 14:42] += (255 - canvas[14:42, 14:42]) * (below[:, :, None] / 255)
        return PILImage.fromarray(canvas.astype(np.uint8))

    grounds = ["china ground", "flower ground"]
    return _pools(by_class(*fashion(data)), list(lower), list(names), grounds, compose)


def fashion(folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the 60,000 training pictures of Fashion-MNIST, `(n, 28, 28)` uint8, and their classes.

    Raises:
        FileNotFoundError: if the folder does not hold the two files.
    """
    import gzip

    names = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
    paths = [Path(folder or "/usr/share/datasets/fashion-mnist") / name for name in names]
    if not all(path.is_file() for path in paths):
        raise FileNotFoundError(
            f"Fashion-MNIST is not in {paths[0].parent}: install Debian's package dataset-fashion-mnist, or download "
            f"{' and '.join(names)} from its home page, and give the folder with --data fashion=FOLDER"
        )
    images, labels = (gzip.decompress(path.read_bytes()) for path in paths)
    pixels = np.frombuffer(images, dtype=np.uint8, offset=16).reshape(-1, 28, 28)
    return pixels, np.frombuffer(labels, dtype=np.uint8, offset=8).astype(int)


Compose = Callable[[np.ndarray, int, str, np.random.Generator], PILImage.Image]
"""Lower picture, number of the confounder, split and generator -> the picture of a row."""


def _with_above(upper: Pictures, chosen: Sequence[int]) -> Compose:
    def compose(below: np.ndarray, confounder: int, split: str, rng: np.random.Generator) -> PILImage.Image:
        return stack(_one(upper[chosen[confounder]], split, rng)[1], below)

    return compose


def _on_stripes(below: np.ndarray, confounder: int, split: str, rng: np.random.Generator) -> PILImage.Image:
    down, across = np.mgrid[:56, :56]
    along = across + down if confounder == 0 else across - down
    stripes = 60 + 50 * np.sin(2 * np.pi * (along / 7 + rng.random()))
    large = np.kron(below, np.ones((2, 2)))
    return PILImage.fromarray(np.maximum(stripes, large).astype(np.uint8)).convert("RGB")


def _one(pictures: np.ndarray, split: str, rng: np.random.Generator) -> tuple[int, np.ndarray]:
    first, last = (int(share * len(pictures)) for share in SHARES[split])
    number = int(rng.integers(first, last))
    return number, pictures[number]


def _pools(
    lower: Pictures, ids: list[int], names: list[str], confounders: list[str], compose: Compose
) -> Mapping[str, Dataset]:
    model = lite0(names)
    return {split: _pool(split, lower, ids, names, confounders, compose, model) for split in SHARES}


def _pool(split, lower, ids, names, confounders, compose, model):
    rng = np.random.default_rng(list(SHARES).index(split))
    rows = [(k, c) for k in range(len(ids)) for c in range(len(confounders)) for _ in range(_size(split, k, c, ids))]
    drawn = [_one(lower[ids[k]], split, rng) for k, _ in rows]
    images = [compose(below, c, split, rng) for (_, below), (_, c) in zip(drawn, rows, strict=True)]
    labels, tied = np.array(rows).T
    sources = np.array([100_000 * k + number for (number, _), (k, _) in zip(drawn, rows, strict=True)])
    return _described(images, labels, tied, sources, names, confounders, split, model)


def _described(images, labels, tied, sources, names, confounders, split, model):
    pictures = Dataset.from_dict({columns.IMAGE: images}, features=Features({columns.IMAGE: Image()}))
    pool = pool_of({columns.SOURCE_ID: (sources, Value("int64"))}, labels, tied, names, confounders)
    ds = hm.extract(concatenate_datasets([pool, pictures], axis=1), model)
    if split == "curation":
        ds = hm.annotate(ds, [hm.Thumbnail(), hm.EarlyFeatures(model)])
    return ds.remove_columns([columns.IMAGE, columns.LOGITS, columns.PREDICTION])


def _size(split: str, label: int, confounder: int, ids: list[int]) -> int:
    """With more than two classes, groups off the tie are shared by many confounders and need fewer rows each."""
    size = PER_GROUP[split]
    return size if len(ids) == 2 or label == confounder else 2 * size // len(ids)
