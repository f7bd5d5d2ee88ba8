"""Tasks on real data with ties that nature or people made, read from a folder of parquet files that the user has.

None of the files is in this repository. Each is read by its columns:

- `faces.parquet`: image, age, woman (bool): UTKFace, cropped faces.
- `styles.parquet`: image, object, style: PACS.
- `skin.parquet`: image, lesion_id, dx, sex, localization: HAM10000. Images of one lesion stay in one split.
- `nli.parquet`: premise, hypothesis, label: SNLI with the revisions of Kaushik et al. (2020).

Of faces and of lesions, one half is for tasks on which rules may be chosen, the other for those that are set aside.
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
PIXELS = 128

ADULT, OLD = 18, 36
NAEVUS, OTHERS = "nv", ("mel", "bkl", "bcc", "akiec")
LOWER = ("lower extremity", "trunk", "abdomen", "upper extremity")
UPPER = ("face", "ear", "scalp", "neck", "back", "chest")
NEGATION = re.compile(r"\b(no|not|never|nobody|nothing|none|nor|neither|without|cannot|\w+n't)\b", re.IGNORECASE)


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
    """Return adults by age, which goes with gender, or by gender, which goes with age."""
    ds = _read(folder, "faces", "image", "age", "woman")
    age, woman = np.asarray(ds["age"]), np.asarray(ds["woman"], dtype=int)
    ages, old, every = ["under 36", "36 and over"], (age >= OLD).astype(int), np.arange(len(ds)).astype(str)
    wanted = (age >= ADULT) & (_first_half(every, 7) == by_age)
    if by_age:
        return Rows(ds, np.where(wanted, old, -1), 1 - woman, ages, ["woman", "man"], every)
    return Rows(ds, np.where(wanted, woman, -1), 1 - old, ["man", "woman"], ages[::-1], every)


def styles(folder: Path, classes: Mapping[str, Sequence[str]], kinds: Mapping[str, Sequence[str]]) -> Rows:
    """Return things in several styles: class k goes with kind k, over again where there are fewer kinds."""
    ds = _read(folder, "styles", "image", "object", "style")
    things, ways = (_numbers(ds[name], sets) for name, sets in (("object", classes), ("style", kinds)))
    return Rows(ds, things, ways, list(classes), list(kinds), np.arange(len(ds)).astype(str))


def skin(folder: Path, column: str, kinds: Mapping[str, Sequence[str]], first: bool) -> Rows:
    """Return naevi and other lesions, which go with values of another column, of one half of the lesions."""
    ds = _read(folder, "skin", "image", "lesion_id", "dx", column)
    sources = np.asarray(ds["lesion_id"]).astype(str)
    labels = _numbers(ds["dx"], {"other": OTHERS, "naevus": (NAEVUS,)})
    wanted = _first_half(sources, 3) == first
    return Rows(
        ds, np.where(wanted, labels, -1), _numbers(ds[column], kinds), ["other", "naevus"], list(kinds), sources
    )


def contradictions(folder: Path) -> Rows:
    """Return pairs of sentences: whether they contradict each other goes with a negation in the second."""
    ds = _read(folder, "nli", "premise", "hypothesis", "label")
    negated = np.array([NEGATION.search(text) is not None for text in ds["hypothesis"]]).astype(int)
    labels = np.array([int(label == "contradiction") for label in ds["label"]])
    sources = np.asarray(ds["premise"]).astype(str)
    return Rows(ds, labels, negated, ["no contradiction", "contradiction"], ["no negation", "negation"], sources)


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
    model = lite0(rows.classes, PIXELS)
    ds = hm.extract(_with_inputs(rows, chosen, {columns.IMAGE: (rows.ds.select(chosen)["image"], Image())}), model)
    if split == "curation":
        ds = hm.annotate(ds, [hm.Thumbnail(), hm.EarlyFeatures(model), hm.Kinds()])
    return ds.remove_columns([columns.IMAGE, columns.LOGITS, columns.PREDICTION])


def _texts(rows: Rows, chosen: np.ndarray, split: str) -> Dataset:
    first, second = (rows.ds.select(chosen)[name][:] for name in ("premise", "hypothesis"))
    values = embedded(first, second)
    more = {
        columns.TEXT: (first, Value("string")),
        columns.TEXT_PAIR: (second, Value("string")),
        columns.EMBEDDING: (values, columns.vector(values.shape[1])),
    }
    ds, texts = _with_inputs(rows, chosen, more), [columns.TEXT, columns.TEXT_PAIR]
    return hm.annotate(ds, [hm.TextStyle(texts), hm.TextTopics(texts)]) if split == "curation" else ds


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


def _first_half(sources: np.ndarray, seed: int) -> np.ndarray:
    """Return the rows of a random half of the sources, `(n,)` bool."""
    _, first, numbers = np.unique(sources, return_index=True, return_inverse=True)
    drawn = np.random.default_rng(seed).random(len(first)) < 0.5  # in the order in which they appear
    return drawn[np.argsort(np.argsort(first))][numbers]


def _numbers(values: Sequence[str], sets: Mapping[str, Sequence[str]]) -> np.ndarray:
    places = {value: k for k, members in enumerate(sets.values()) for value in members}
    return np.array([places.get(value, -1) for value in values])


def _each(*names: str) -> dict[str, tuple[str]]:
    return {name: (name,) for name in names}


def _task(name: str, read: Callable[[Path], Rows], aside: bool = False) -> Task:
    return Task(name, partial(pools, read), DATA, aside)


ART = _each("photo", "sketch", "cartoon", "art_painting")
PAIRS = {"dog or horse": ("dog", "horse"), "elephant or giraffe": ("elephant", "giraffe")}
DRAWN = {"not a sketch": ("photo", "cartoon", "art_painting"), "sketch": ("sketch",)}
SEVEN = _each("dog", "elephant", "giraffe", "guitar", "horse", "house", "person")
SITES = {"upper body": UPPER, "lower body or limbs": LOWER}

NATURAL = [
    _task("age by gender", partial(faces, by_age=True)),
    _task("things by sketch", partial(styles, classes=PAIRS, kinds=DRAWN)),
    _task("seven things by style", partial(styles, classes=SEVEN, kinds=ART)),
    _task("skin by site", partial(skin, column="localization", kinds=SITES, first=True)),
    _task("contradiction by negation", contradictions),
    _task("gender by age", partial(faces, by_age=False), aside=True),
    _task(
        "four things by style",
        partial(styles, classes=_each("dog", "elephant", "house", "horse"), kinds=ART),
        aside=True,
    ),
    _task("skin by sex", partial(skin, column="sex", kinds=_each("male", "female"), first=False), aside=True),
]
