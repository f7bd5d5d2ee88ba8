"""Tasks on real data with ties that nature or people made, read from a folder of parquet files that the user has.

None of the files is in this repository. Each is read by its columns:

- `faces.parquet`: image, age, woman (bool): UTKFace, cropped faces.
- `styles.parquet`: image, object, style: PACS.
- `skin.parquet`: image, lesion_id, dx, sex, localization: HAM10000. Images of one lesion stay in one split.
- `nli.parquet`: premise, hypothesis, label: SNLI with the revisions of Kaushik et al. (2020).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import Dataset, Image, Value

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.concepts.lite0 import lite0
from tasks.pool import SPLITS, Task, pool_of
from tasks.reviews import embedded


DATA = "natural"
"""Name of the `--data` entry with the folder; `--natural FOLDER` is the same."""

SHARES = {"train": 0.45, "curation": 0.3, "test": 0.25}

NEGATION = re.compile(r"\b(no|not|n't|never|nobody|nothing|none|without|nowhere|neither)\b|n't\b", re.IGNORECASE)


class Rows(NamedTuple):
    """Rows of a file with class and confounder; -1 where a row has neither of those wanted."""

    ds: Dataset
    labels: np.ndarray
    confounders: np.ndarray
    classes: list[str]
    kinds: list[str]
    sources: np.ndarray
    """What rows may not be parted by splits, `(n,)` of str."""


def faces(folder: Path, by_age: bool) -> Rows:
    """Return faces by age, which goes with gender, or by gender, which goes with age."""
    ds = _read(folder, "faces", "image", "age", "woman")
    older = (np.asarray(ds["age"]) >= 30).astype(int)
    man = (~np.asarray(ds["woman"], dtype=bool)).astype(int)
    ages, genders, every = ["under 30", "30 and over"], ["woman", "man"], np.arange(len(ds)).astype(str)
    return Rows(ds, older, man, ages, genders, every) if by_age else Rows(ds, man, older, genders, ages, every)


def styles(folder: Path, objects: Sequence[str], kinds: Sequence[str]) -> Rows:
    """Return kinds of things in several styles: class k goes with style k, over again where there are fewer styles."""
    ds = _read(folder, "styles", "image", "object", "style")
    every = np.arange(len(ds)).astype(str)
    return Rows(ds, _numbers(ds["object"], objects), _numbers(ds["style"], kinds), list(objects), list(kinds), every)


def skin(folder: Path, column: str, kinds: Sequence[str]) -> Rows:
    """Return melanoma and benign keratosis, which go with a value of another column."""
    ds = _read(folder, "skin", "image", "lesion_id", "dx", column)
    classes = ["bkl", "mel"]
    sources = np.asarray(ds["lesion_id"]).astype(str)
    return Rows(ds, _numbers(ds["dx"], classes), _numbers(ds[column], kinds), classes, list(kinds), sources)


def contradictions(folder: Path) -> Rows:
    """Return pairs of sentences: whether they contradict each other goes with a negation in the second."""
    ds = _read(folder, "nli", "premise", "hypothesis", "label")
    plain = np.array([NEGATION.search(text) is None for text in ds["hypothesis"]]).astype(int)
    labels = np.array([int(label != "contradiction") for label in ds["label"]])
    sources = np.asarray(ds["premise"]).astype(str)
    return Rows(ds, labels, plain, ["contradiction", "no contradiction"], ["negation", "no negation"], sources)


def pools(read: Callable[[Path], Rows], data: Path | None) -> Mapping[str, Dataset]:
    """Return the pool of each split, with features of a frozen network and, in the curation split, side views."""
    rows = read(Path(data or "."))
    known = np.flatnonzero((rows.labels >= 0) & (rows.confounders >= 0))
    names, source_of = np.unique(rows.sources[known], return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))[source_of] / max(1, len(names))
    ends = np.cumsum([SHARES[split] for split in SPLITS])
    split_of = np.searchsorted(ends, order, side="right").clip(max=len(SPLITS) - 1)
    describe = _texts if "premise" in rows.ds.column_names else _pictures
    return {split: describe(rows, known[split_of == k], split) for k, split in enumerate(SPLITS)}


def _pictures(rows: Rows, chosen: np.ndarray, split: str) -> Dataset:
    model = lite0(rows.classes)
    ds = hm.extract(_with_inputs(rows, chosen, {columns.IMAGE: (rows.ds.select(chosen)["image"], Image())}), model)
    if split == "curation":
        ds = hm.annotate(ds, [hm.Thumbnail(), hm.ImageProperties(), hm.EarlyFeatures(model)])
    return ds.remove_columns([columns.IMAGE, columns.LOGITS, columns.PREDICTION])


def _texts(rows: Rows, chosen: np.ndarray, split: str) -> Dataset:
    first, second = (rows.ds.select(chosen)[name][:] for name in ("premise", "hypothesis"))
    values = embedded([f"{a} [SEP] {b}" for a, b in zip(first, second, strict=True)])
    more = {
        columns.TEXT: (first, Value("string")),
        columns.TEXT_PAIR: (second, Value("string")),
        columns.EMBEDDING: (values, columns.vector(values.shape[1])),
    }
    ds = _with_inputs(rows, chosen, more)
    sources = [hm.TextStyle(columns.TEXT_PAIR), hm.NGrams(columns.TEXT_PAIR)]
    return hm.annotate(ds, sources) if split == "curation" else ds


def _with_inputs(rows: Rows, chosen: np.ndarray, more: dict[str, tuple[object, object]]) -> Dataset:
    sources = np.unique(rows.sources[chosen], return_inverse=True)[1]
    more = more | {columns.SOURCE_ID: (sources, Value("int64"))}
    return pool_of(more, rows.labels[chosen], rows.confounders[chosen], rows.classes, rows.kinds)


def _read(folder: Path, name: str, *needed: str) -> Dataset:
    path = folder / f"{name}.parquet"
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing; `--natural FOLDER` names a folder that holds it, with the columns {', '.join(needed)}"
        )
    return Dataset.from_parquet(str(path), columns=list(needed))


def _numbers(values: Sequence[str], names: Sequence[str]) -> np.ndarray:
    places = {name: k for k, name in enumerate(names)}
    return np.array([places.get(value, -1) for value in values])


def _task(name: str, read: Callable[[Path], Rows], train: int, curation: int, test: int) -> Task:
    sizes = {"train": train, "curation": curation, "test": test}
    return Task(name, partial(pools, read), data=DATA, sizes=sizes)


ART = ("photo", "art_painting", "cartoon", "sketch")
THREE = ("dog", "elephant", "horse")
SEVEN = ("person", "dog", "elephant", "horse", "house", "guitar", "giraffe")
"""In this order no class goes with a style in which it is rare."""

NATURAL = [
    _task("age by gender", partial(faces, by_age=True), 1200, 800, 600),
    _task("gender by age", partial(faces, by_age=False), 1200, 800, 600),
    _task("two things by style", partial(styles, objects=("elephant", "giraffe"), kinds=ART[2:]), 400, 260, 300),
    _task("three things by style", partial(styles, objects=THREE, kinds=ART[1:]), 320, 220, 120),
    _task("seven things by style", partial(styles, objects=SEVEN, kinds=ART), 150, 110, 100),
    _task("skin by sex", partial(skin, column="sex", kinds=("female", "male")), 360, 260, 360),
    _task("skin by site", partial(skin, column="localization", kinds=("face", "back")), 240, 160, 100),
    _task("contradiction by negation", contradictions, 800, 520, 400),
]
