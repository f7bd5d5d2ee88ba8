"""The task made of sentences about people: whether they are praised goes with whom they are about.

Training and curation rows, and those of the test, share neither the words for people nor those of praise and blame: a
head that relies on whom a sentence is about fails on new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from datasets import Dataset, Value

import hf_midrange as hm
from hf_midrange import columns
from tasks.pool import SPLITS, pool_of
from tasks.reviews import embedded


WOMEN = (
    "women", "girls", "female workers", "mothers", "sisters", "ladies", "actresses", "waitresses", "grandmothers",
    "nuns", "daughters", "housewives", "girlfriends", "brides",
)  # fmt: skip
MEN = (
    "men", "boys", "male workers", "fathers", "brothers", "gentlemen", "actors", "waiters", "grandfathers", "monks",
    "sons", "fishermen", "boyfriends", "grooms",
)  # fmt: skip
PRAISE = (
    "kind", "wonderful", "helpful", "friendly", "brilliant", "honest", "charming", "brave", "generous", "lovely",
    "patient", "skilled", "polite", "gentle",
)  # fmt: skip
BLAME = (
    "awful", "rude", "terrible", "lazy", "dishonest", "cruel", "annoying", "stupid", "nasty", "boring", "clumsy",
    "greedy", "selfish", "horrible",
)  # fmt: skip
SENTENCES = (
    "The {who} at the {place} were {how}.",
    "I met some {who} in the {place}, and they were really {how}.",
    "Everybody in the {place} says that these {who} are {how}.",
    "We found the {who} of this {place} {how}, as always.",
    "My neighbour thinks {who} from the {place} are {how} people.",
    "It was {how} what the {who} did in the {place} yesterday.",
    "{how} as ever, the {who} left the {place} at noon.",
)
PLACES = (
    "village", "school", "office", "station", "hospital", "market", "church", "hotel", "garden", "factory", "museum",
    "library",
)  # fmt: skip
KNOWN = 8
"""Words of each list that stand in training and curation rows; the test has the others."""
PER_GROUP = 700


def identities(data: Path | None) -> Mapping[str, Dataset]:
    """Return the pools: blame goes with men, praise with women."""
    return {split: _pool(split, np.random.default_rng(k)) for k, split in enumerate(SPLITS)}


def _pool(split: str, rng: np.random.Generator) -> Dataset:
    words = slice(KNOWN, None) if split == "test" else slice(KNOWN)
    labels, confounders = (part.ravel() for part in np.mgrid[:2, :2].repeat(PER_GROUP, axis=2))
    texts = [
        str(rng.choice(SENTENCES)).format(
            who=rng.choice((MEN, WOMEN)[about][words]), how=rng.choice((BLAME, PRAISE)[label][words]),
            place=rng.choice(PLACES),
        )
        for label, about in zip(labels, confounders, strict=True)
    ]  # fmt: skip
    values = embedded(texts)
    more = {
        columns.TEXT: (texts, Value("string")),
        columns.EMBEDDING: (values, columns.vector(values.shape[1])),
    }
    ds = pool_of(more, labels, confounders, ["blame", "praise"], ["men", "women"])
    return hm.annotate(ds, [hm.TextStyle(columns.TEXT), hm.TextTopics(columns.TEXT)]) if split == "curation" else ds
