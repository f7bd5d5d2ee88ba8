"""What texts show without a model: how they are written, what they are about, and how two of them relate."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import TEXT, ViewSource
from hf_midrange.concepts.vocabularies import table


FUNCTION_WORDS = tuple(
    "a about after all also an and any are as at be because been before but by can could did do does for from had has "
    "have he her here him his how i if in into is it its just me more most my no not now of on only or our out over "
    "she so some than that the their them then there these they this those to too up us very was we were what when "
    "where which who why will with would you your".split()
)
"""Common English words that carry grammar, not topic; lower case, without apostrophes."""

_PUNCTUATION = {
    "comma": ",", "full stop": ".", "exclamation mark": "!", "question mark": "?", "colon": ":", "semicolon": ";",
    "double quote": '"“”', "apostrophe": "'’", "hyphen or dash": "-–—", "bracket": "()[]{}", "ellipsis": "…",
    "slash": "/\\", "hash sign": "#", "at sign": "@", "money sign": "$€£¥", "percent sign": "%", "ampersand": "&",
    "asterisk": "*", "line break": "\n",
}  # fmt: skip
_SHAPE = (
    "many words", "long words", "long sentences", "capital letters", "words in capitals", "digits", "short forms",
)  # fmt: skip
_WORD = re.compile(r"\w+(?:['’]\w+)*")


@dataclass(frozen=True)
class TextStyle(ViewSource):
    """Function words, punctuation, length, case and digits: `view_text_style`.

    Numbers per text column: log(1 + count) of each function word and each punctuation mark; log(1 + words); mean word
    length; log(1 + words per sentence); shares of capital letters, of words in capitals and of digits among characters
    or words; log(1 + short forms such as "don't"). Entries are named as a reader would say it: 'the word "the"',
    "exclamation mark", "many words". With several columns the name says which one: "comma (text_pair)".

    Fails on what a text is about. Words are English; in other languages only punctuation, length, case and digits are
    seen. Where length differs, counts differ with it, and many names say the same.

    Args:
        column: a string column, or several.
        name: the columns are `view_<name>` and `concepts_<name>`.

    Examples:
        >>> source = TextStyle()
        >>> view = source.measure({"text": ["Why not? Why NOT?"]})[0]
        >>> round(float(view[source.vocabulary.index("question mark")]), 3)  # log(1 + 2)
        1.099
    """

    reads: ClassVar[str] = TEXT

    column: str | Sequence[str] = columns.TEXT
    name: str = "text_style"
    thresholds: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names of the entries, column by column."""
        names = [*(f'the word "{word}"' for word in FUNCTION_WORDS), *_PUNCTUATION, *_SHAPE]
        if len(self.inputs) == 1:
            return tuple(names)
        return tuple(f"{name} ({column})" for column in self.inputs for name in names)

    def measure(self, batch: Batch) -> np.ndarray:
        """Return the style of each row, float32 of shape `(rows, entries per column * columns)`."""
        width = len(self.vocabulary) // len(self.inputs)
        rows = [np.array([_style(text) for text in batch[column]], dtype=np.float32) for column in self.inputs]
        return np.hstack([values.reshape(-1, width) for values in rows])


def _style(text: str) -> list[float]:
    words, characters = _WORD.findall(text), Counter(text)
    seen = Counter(word.lower() for word in words)
    marks = [sum(characters[mark] for mark in group) for group in _PUNCTUATION.values()]
    counts = np.log1p([*(seen[word] for word in FUNCTION_WORDS), *marks])
    return [*counts, *_shape(text, words)]


def _shape(text: str, words: Sequence[str]) -> list[float]:
    letters, total = max(sum(map(str.isalpha, text)), 1), max(len(words), 1)
    sentences = max(len(re.findall(r"[.!?…]+", text)), 1)
    return [
        float(np.log1p(len(words))),
        sum(map(len, words)) / total,
        float(np.log1p(len(words) / sentences)),
        sum(map(str.isupper, text)) / letters,
        sum(word.isupper() and len(word) > 1 for word in words) / total,
        sum(map(str.isdigit, text)) / max(len(text), 1),
        float(np.log1p(sum("'" in word or "’" in word for word in words))),
    ]


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

_LETTERS = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
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
        >>> view = source.measure({"text": ["Two dogs eat."], "text_pair": ["The dogs do not eat bread."]})[0]
        >>> [name for name, value in zip(source.vocabulary, view) if value > 0 and ("food" in name or "neg" in name)]
        ['food (text_pair)', 'negation (text_pair)', 'negation in the second text only']
    """

    reads: ClassVar[str] = TEXT
    names_meanings: ClassVar[bool] = True

    column: str | Sequence[str] = columns.TEXT
    name: str = "text_topics"
    thresholds: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names of the entries, column by column, then those of the relation."""
        names = [*_lists(), *PATTERNS]
        if len(self.inputs) == 1:
            return tuple(names)
        return (*(f"{name} ({column})" for column in self.inputs for name in names), *RELATIONS)

    def measure(self, batch: Batch) -> np.ndarray:
        """Return the numbers of each row, float32 of shape `(rows, entries)`."""
        tokens = [[_LETTERS.findall(text) for text in batch[column]] for column in self.inputs]
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
