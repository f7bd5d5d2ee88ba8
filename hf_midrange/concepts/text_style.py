"""The side view for texts: how something is written, with nothing of what is said."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import TEXT
from hf_midrange.concepts.view_source import ViewSource


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
        >>> view = source.view({"text": ["Why not? Why NOT?"]})[0]
        >>> round(float(view[source.vocabulary.index("question mark")]), 3)  # log(1 + 2)
        1.099
    """

    reads: ClassVar[str] = TEXT

    column: str | Sequence[str] = columns.TEXT
    name: str = "text_style"
    thresholds: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()
    version: int = 1

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names of the entries, column by column."""
        names = [*(f'the word "{word}"' for word in FUNCTION_WORDS), *_PUNCTUATION, *_SHAPE]
        if len(self.inputs) == 1:
            return tuple(names)
        return tuple(f"{name} ({column})" for column in self.inputs for name in names)

    def view(self, batch: Batch) -> np.ndarray:
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
