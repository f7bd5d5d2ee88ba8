"""Sentences with the concept marked."""

from __future__ import annotations

import re

from hf_midrange import columns


_WORD = re.compile(r"(?u)\b\w+(?:['’]\w+)*\b")
"""A word as the n-grams read it."""

LONGEST = 220
"""Characters of a text that are shown."""
BEFORE = 80
"""Characters shown before a concept that stands further down."""


def marked(text: str, phrase: str) -> tuple[tuple[str, bool], ...]:
    """Return a text in parts, each with whether it is the phrase; long texts are cut around the first one.

    >>> marked("It is NOT good.", "not good")
    (('It is ', False), ('NOT good', True), ('.', False))
    """
    text = " ".join(text.split())
    found = _spans(text, phrase)
    start = 0 if not found or found[0][1] <= LONGEST else max(0, found[0][0] - BEFORE)
    end = min(len(text), start + LONGEST)
    parts, at = [("… ", False)] if start else [], start
    for low, high in found:
        if low >= at and high <= end:
            parts += [(text[at:low], False), (text[low:high], True)]
            at = high
    parts += [(text[at:end], False), ("" if end == len(text) else " …", False)]
    return tuple((part, is_it) for part, is_it in parts if part)


def phrase_of(concept: str) -> str:
    """Return the phrase that a concept of several text columns names, without the column."""
    return concept.removesuffix(f" ({columns.TEXT})").removesuffix(f" ({columns.TEXT_PAIR})")


def _spans(text: str, phrase: str) -> list[tuple[int, int]]:
    wanted = [word.group().lower() for word in _WORD.finditer(phrase)]
    words = list(_WORD.finditer(text))
    lowered = [word.group().lower() for word in words]
    if not wanted:
        return []
    starts = [i for i in range(len(words) - len(wanted) + 1) if lowered[i : i + len(wanted)] == wanted]
    return [(words[i].start(), words[i + len(wanted) - 1].end()) for i in starts]
