"""What texts are about, without a model: topics, lists of words, names and numbers, and how two texts relate."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import TEXT
from hf_midrange.concepts.view_source import ViewSource
from hf_midrange.concepts.vocabularies import table


PATTERNS = {
    "names (capitals inside a sentence)": r"(?<=[a-z,;] )[A-Z][a-z]+",
    "persons with a title": r"\b(?:Mr|Mrs|Ms|Miss|Dr|Prof|Sir|Lord|Lady|President|Senator|Judge)\.? [A-Z]",
    "numbers": r"\b\d+(?:[.,]\d+)*\b",
    "years": r"\b(?:1[5-9]|20)\d\d\b",
    "sums of money": r"[$€£¥]\s?\d|\b\d+(?:[.,]\d+)* (?:dollars?|euros?|pounds?|bucks)\b",
    "percentages": r"\d ?%|\bper ?cent\b",
    "times of the day": r"\b\d\d?(?::\d\d)? ?[ap]\.?m\b|\b\d\d?:\d\d\b",
    "web or e-mail addresses": r"https?://|www\.|\b[\w.+-]+@\w",
    "quoted passages": r"[\"“][^\"”]{3,}[\"”]",
    "questions": r"\?",
}
"""Kinds of names and numbers -> the pattern that they are counted by."""

RELATIONS = (
    "words of the second text that the first has too",
    "words of the first text that the second has too",
    "second text longer than the first",
    "negation in the second text only",
    "negation in the first text only",
)
NEGATION = "negation"

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_PATTERNS = [re.compile(pattern) for pattern in PATTERNS.values()]


@dataclass(frozen=True)
class TextTopics(ViewSource):
    """What a text is about and whom it names: `view_text_topics` and `concepts_text_topics`; no model runs.

    Numbers per text column, each log(1 + count): words of each of 72 topics, such as "food", "family", "saying and
    asking" (what an English word mostly means in WordNet); words of named lists: negation, politeness, doubt, groups
    of people ("women", "Muslims"); names, numbers, years, sums of money, web addresses, quotations. For
    two columns also how they relate: which share of the words of either the other has, the logarithm of the ratio of
    their lengths, and negation in one alone. An entry is present where it is above the threshold that halves the rows
    fitted on, which mostly means: where there is any such word.

    Fails on meanings that are not the usual one of a word ("a *cold* reception"), on irony, on words it does not know
    and in other languages. Topics follow the class where the class is a topic. Names of groups are found whatever is
    said of them.

    Args:
        column: a string column, or several; the first two are compared.
        name: the columns are `view_<name>` and `concepts_<name>`.

    Examples:
        >>> source = TextTopics(["text", "text_pair"])
        >>> view = source.view({"text": ["Two dogs eat."], "text_pair": ["The dogs do not eat bread."]})[0]
        >>> [name for name, value in zip(source.vocabulary, view) if value > 0 and ("food" in name or "neg" in name)]
        ['food (text_pair)', 'negation (text_pair)', 'negation in the second text only']
    """

    reads: ClassVar[str] = TEXT
    names_meanings: ClassVar[bool] = True

    column: str | Sequence[str] = columns.TEXT
    name: str = "text_topics"
    thresholds: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()
    version: int = 1

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names of the entries, column by column, then those of the relation."""
        names = [*_lists(), *PATTERNS]
        if len(self.inputs) == 1:
            return tuple(names)
        return (*(f"{name} ({column})" for column in self.inputs for name in names), *RELATIONS)

    def view(self, batch: Batch) -> np.ndarray:
        """Return the numbers of each row, float32 of shape `(rows, entries)`."""
        tokens = [[_WORD.findall(text) for text in batch[column]] for column in self.inputs]
        parts = [_topics(found) for found in tokens]
        parts = [
            np.log1p(np.hstack([part, _patterns(batch[column])]))
            for part, column in zip(parts, self.inputs, strict=True)
        ]
        if len(self.inputs) > 1:
            parts.append(np.array([_relation(*pair) for pair in zip(*tokens[:2], strict=True)]).reshape(-1, 5))
        return np.hstack(parts).astype(np.float32)


def bases(word: str) -> Iterator[str]:
    """Yield a lower-case word and what it may be an inflected form of.

    Examples:
        >>> list(bases("stopped"))
        ['stopped', 'stopp', 'stoppe', 'stop']
    """
    yield word
    for ending, replaced in (("ies", ("y",)), ("es", ("", "e")), ("s", ("",)), ("ing", ("", "e")), ("ed", ("", "e"))):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 1:
            yield from (stem + letters for letters in replaced)
            if ending in ("ing", "ed") and stem[-1] == stem[-2]:
                yield stem[:-1]


@lru_cache(maxsize=1)
def _lists() -> Mapping[str, str]:
    return {**table("word_topics"), **table("word_lists")}


@lru_cache(maxsize=1)
def _entries() -> Mapping[str, list[int]]:
    """Return the numbers of the topics and lists that each word is in."""
    found: dict[str, list[int]] = {}
    for number, words in enumerate(_lists().values()):
        for word in words.split():
            found.setdefault(word, []).append(number)
    return found


@lru_cache(maxsize=100_000)
def _entries_of(word: str) -> list[int]:
    known = _entries()
    return next((known[base] for base in bases(word.lower().replace("’", "'")) if base in known), [])


def _topics(rows: Sequence[Sequence[str]]) -> np.ndarray:
    """Return how many words of each topic and list each text has, of shape `(rows, lists)`."""
    width = len(_lists())
    counts = [np.bincount([entry for word in words for entry in _entries_of(word)], minlength=width) for words in rows]
    return np.array(counts).reshape(-1, width)


def _patterns(texts: Sequence[str]) -> np.ndarray:
    return np.array([[len(pattern.findall(text)) for pattern in _PATTERNS] for text in texts]).reshape(
        -1, len(PATTERNS)
    )


def _relation(first: Sequence[str], second: Sequence[str]) -> list[float]:
    one, other = ({word.lower() for word in words} for words in (first, second))
    entry = list(_lists()).index(NEGATION)
    negated = [any(entry in _entries_of(word) for word in words) for words in (first, second)]
    return [
        len(one & other) / max(len(other), 1),
        len(one & other) / max(len(one), 1),
        float(np.log((len(second) + 1) / (len(first) + 1))),
        float(negated[1] and not negated[0]),
        float(negated[0] and not negated[1]),
    ]
