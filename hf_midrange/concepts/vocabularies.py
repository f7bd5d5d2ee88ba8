"""Words that come with the package, for images and for texts, and kinds of things and topics from WordNet."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files


def imagenet_lemmas() -> list[str]:
    """Return the WordNet lemmas of ImageNet's 1,000 classes in id order, the first of each, from timm."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(k).split(",")[0] for k in range(info.num_classes())]


def words_of(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Return the words of a named list ("imagenet", "colours", "scenes", "people", "text"), or the words themselves.

    Raises:
        ValueError: if a name is unknown, or there are no words; repeated words are taken once.
    """
    if isinstance(chosen, str):
        lists = table("image_words")
        if chosen != "imagenet" and chosen not in lists:
            raise ValueError(
                f"unknown vocabulary {chosen!r}; choose one of {['imagenet', *lists]}, or give a list of words"
            )
        chosen = imagenet_lemmas() if chosen == "imagenet" else lists[chosen].split("; ")
    words = tuple(dict.fromkeys(word.strip() for word in chosen if word.strip()))
    if not words:
        raise ValueError("the vocabulary is empty; give at least one word")
    return words


@lru_cache
def table(name: str) -> dict[str, str]:
    """Return a table that comes with the package: entry -> what it holds, as text.

    `imagenet_kinds` and `word_topics` are derived from WordNet by benchmarks/wordnet_tables.py.
    """
    file = files("hf_midrange.concepts") / "tables" / f"{name}.tsv"
    return dict(line.split("\t", 1) for line in file.read_text(encoding="utf-8").splitlines())
