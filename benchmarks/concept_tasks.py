"""The tied tasks on which concept sources are ranked: dominoes of digits and of clothes, and reviews of two places."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Image, Value, load_from_disk
from tasks.pictures import fashion
from tasks.pool import pool_of
from tasks.reviews import embedded, rated

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.concepts.lite0 import imagenet_lite0, lite0
from hf_midrange.demo.domino_trial import linear_probe
from hf_midrange.demo.dominoes import CLASSES, digits, dominoes


CONTRARY = 0.05
CLOTHES = {3: 2, 8: 4}
"""Digit whose place below a piece of clothing takes -> its class: pullovers for threes, coats for eights."""

REVIEWS = {"train": (380, 20), "curation": (855, 45), "untied": (500, 500)}
"""Reviews of each class that have the confounder of their class, and that have the other."""
MOST_REVIEWS = 1800

STYLES, ANIMALS = ("art_painting", "photo"), ("dog", "elephant", "giraffe", "horse")

Data = Mapping[str, Path]
"""Name of a data set -> folder that holds it."""


class RankTask(NamedTuple):
    """A task whose classes are tied to a confounder in 95 % of the rows."""

    build: Callable[[int, int, Data, Path], DatasetDict]
    """Given seed, rows, data and cache folder, returns `curation`, tied and with bands, and `untied`, both with a
    column `tied_to` that says which of two values the confounder has."""
    sources: Callable[[int], list]


def tied_rows(name: str, seed: int, rows: int, data: Data, cache: Path) -> DatasetDict:
    """Return the rows of a task with the concepts of all its sources, from the cache if it holds them.

    Last comes the confounder itself as an annotation: what can be found at all.
    """
    task, folder = RANK_TASKS[name], cache / f"{name}-{rows}-{seed}"
    if not folder.is_dir():
        splits = hm.annotate(task.build(seed, rows, data, cache), task.sources(seed), fit_split="curation")
        hm.annotate(splits, [hm.Annotations(["tied_to"])], fit_split="curation").save_to_disk(folder)
    return DatasetDict({split: load_from_disk(folder / split) for split in ("curation", "untied")})


def domino_rows(seed: int, size: int, names: list[str], data: tuple[np.ndarray, np.ndarray]) -> DatasetDict:
    """Return dominoes whose upper digit, 0 or 1, is tied to what stands below."""
    model = lite0(names)
    train = hm.extract(dominoes("train", 1200, CONTRARY, seed, data), model)
    model = linear_probe(train).merge_into(model)
    rows = {
        "curation": dominoes("curation", size, CONTRARY, seed, data),
        "untied": dominoes("test", 1200, 0.5, seed, data),
    }
    extracted = DatasetDict({split: hm.extract(part, model) for split, part in rows.items()})
    return _with_bands(extracted, ["0 above", "1 above"])


def digit_rows(seed: int, rows: int, data: Data, cache: Path) -> DatasetDict:
    return domino_rows(seed, rows, [str(k) for k in CLASSES], digits())


def clothes_rows(seed: int, rows: int, data: Data, cache: Path) -> DatasetDict:
    """Return dominoes with clothing below: put in the places of the digits that are below otherwise."""
    (upper, digit), (clothes, kind) = digits(), fashion(data.get("fashion"))
    taken = [(upper[digit < 2], digit[digit < 2])]
    taken += [(clothes[kind == k], np.full((kind == k).sum(), place)) for place, k in CLOTHES.items()]
    pixels, classes = (np.concatenate(parts) for parts in zip(*taken, strict=True))
    return domino_rows(seed, rows, ["pullover", "coat"], (pixels, classes))


def review_rows(seed: int, rows: int, data: Data, cache: Path) -> DatasetDict:
    """Return texts rated negative, mostly of movies, or positive, mostly of products; untied: as many of each.

    There are always 1,800 curation rows: about what the data hold.
    """
    return _drawn(_review_pool(data, cache), seed, REVIEWS, ["movies", "products"])


def _drawn(pool: Dataset, seed: int, sizes: Mapping[str, tuple[int, int]], confounders: list[str]) -> DatasetDict:
    """Return tied rows, and untied ones, of a pool that has embeddings; the logits are those of a linear probe."""
    order = np.random.default_rng(seed).permutation(len(pool))
    labels, tied = columns.labels(pool)[order], columns.labels(pool, columns.GROUP)[order] % 2
    taken, splits = np.zeros(len(order), dtype=bool), {}
    for split, (most, other) in sizes.items():
        chosen = np.zeros(len(order), dtype=bool)
        for k in range(2):
            for c in range(2):
                free = np.flatnonzero((labels == k) & (tied == c) & ~taken)
                chosen[free[: most if c == k else other]] = True
        taken |= chosen
        splits[split] = pool.select(order[chosen]).flatten_indices()
    head = linear_probe(splits.pop("train"))
    for split, part in splits.items():
        logits = head(columns.matrix(part, columns.EMBEDDING)).numpy()
        splits[split] = columns.with_columns(part, {columns.LOGITS: (logits, columns.vector(2))})
    return _with_bands(DatasetDict(splits), confounders)


def style_rows(seed: int, rows: int, data: Data, cache: Path) -> DatasetDict:
    """Return paintings, mostly of people and things, and photographs, mostly of animals: a tie of meaning.

    Needs `natural=FOLDER` with PACS in styles.parquet (tasks/natural.py says how).
    """
    folder = cache / "styles-pool"
    if not folder.is_dir():
        found = Dataset.from_parquet(str(data["natural"] / "styles.parquet")).cast_column(columns.IMAGE, Image())
        found = found.select(np.flatnonzero(np.isin(found["style"][:], STYLES)))
        extracted = hm.extract(found.select_columns([columns.IMAGE]), imagenet_lite0())
        labels, tied = np.equal(found["style"][:], STYLES[1]), np.isin(found["object"][:], ANIMALS)
        more = {
            columns.IMAGE: (extracted.data.column(columns.IMAGE), Image()),
            columns.EMBEDDING: (columns.matrix(extracted, columns.EMBEDDING), columns.vector(1280)),
        }
        pool_of(more, labels.astype(int), tied.astype(int), [*STYLES], ["no animals", "animals"]).save_to_disk(folder)
    sizes = {"train": (380, 20), "curation": (rows * 19 // 40, rows // 40), "untied": (200, 200)}
    return _drawn(load_from_disk(folder), seed, sizes, ["no animals", "animals"])


def _review_pool(data: Data, cache: Path) -> Dataset:
    """Return all product reviews and as many of movies, with MiniLM's embeddings."""
    folder = cache / "reviews-pool"
    if not folder.is_dir():
        texts = [rated(domain, data.get("reviews")) for domain in ("movies", "products")]
        rows = [(k, c, text) for k in range(2) for c in range(2) for text in texts[c][k][:MOST_REVIEWS]]
        labels, tied, words = (list(values) for values in zip(*rows, strict=True))
        embedding = embedded(words)
        more = {
            columns.TEXT: (words, Value("string")),
            columns.EMBEDDING: (embedding, columns.vector(embedding.shape[1])),
        }
        names = ["negative", "positive"], ["movies", "products"]
        pool_of(more, np.array(labels), np.array(tied), *names).save_to_disk(folder)
    return load_from_disk(folder)


def _with_bands(rows: DatasetDict, confounders: list[str]) -> DatasetDict:
    bands = hm.LogitBands().fit(rows["curation"])
    done = {"curation": bands.transform(rows["curation"]), "untied": rows["untied"]}
    feature = ClassLabel(names=confounders)
    return DatasetDict(
        {
            split: columns.with_columns(part, {"tied_to": (columns.labels(part, columns.GROUP) % 2, feature)})
            for split, part in done.items()
        }
    )


def of_pictures(seed: int) -> list:
    network = imagenet_lite0()
    return [
        hm.ImageProperties(),
        hm.Thumbnail(mode="L"),
        hm.EarlyFeatures(network),
        hm.Predictions(network, top=5),
        hm.Kinds(network),
        hm.LatentConcepts(seed=seed),
    ]


def of_texts(seed: int) -> list:
    return [hm.NGrams(), hm.TextStyle(columns.TEXT), hm.TextTopics(columns.TEXT), hm.LatentConcepts(seed=seed)]


RANK_TASKS = {
    "digits": RankTask(digit_rows, of_pictures),
    "clothes": RankTask(clothes_rows, of_pictures),
    "styles": RankTask(style_rows, of_pictures),
    "reviews": RankTask(review_rows, of_texts),
}
