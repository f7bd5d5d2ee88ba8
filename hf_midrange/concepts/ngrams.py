"""Words and short phrases of texts as concepts."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from datasets import ClassLabel, Dataset, Features
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.source import TEXT, Source, id_table, refuse_outside


_TOKEN = r"(?u)\b\w+(?:['’]\w+)*\b"
"""A word with its apostrophes, so that "don't" stays one word and negation is kept."""

LONGEST_PHRASE, MOST_PHRASES = 10, 1_000_000


@dataclass(frozen=True)
class NGrams(Source):
    """Words and phrases that are neither rare nor everywhere: `concepts_ngrams`.

    scikit-learn's `CountVectorizer` does the work, lower-cased, with no stop list: function words and negations are as
    likely a shortcut as any. A name is the phrase itself; with several columns it says which one: "not (text_pair)".
    Phrases that all rows fitted on have are dropped.

    Fails where a meaning has many wordings: each covers few rows, and too few break the tie for a test to see it.
    Among some thousand rows few phrases can be confirmed; `LatentConcepts` gathers such rows and takes its names here.
    "Not" and what it negates are kept together only as a phrase, next to each other.

    Args:
        column: a string column, or several, such as ["text", "text_pair"].
        longest: words in the longest phrase.
        min_rows: a phrase must occur in at least so many of the rows fitted on.
        max_share: and in at most this share of them.
        max_phrases: per column, the phrases that occur in most rows are kept.
        exclude: words that no phrase may contain, such as the class names' synonyms.
        exclude_class_names: whether to exclude the words of the names of the `label` column too.
        name: the column is `concepts_<name>`.

    Examples:
        >>> ds = Dataset.from_dict({"text": ["It is not good", "it isn't", "so good", "so bad"]})
        >>> NGrams(min_rows=2, max_share=0.9).fit(ds).vocabulary
        ('good', 'it', 'so')
    """

    reads: ClassVar[str] = TEXT

    column: str | Sequence[str] = columns.TEXT
    longest: int = 2
    min_rows: int = 10
    max_share: float = 0.9
    max_phrases: int = 2000
    exclude: Sequence[str] = ()
    exclude_class_names: bool = False
    name: str = "ngrams"
    phrases: tuple[tuple[str, ...], ...] = ()
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.exclude, str):
            raise TypeError(f"`exclude` must be a list of words; write exclude=[{self.exclude!r}]")
        refuse_outside(1, LONGEST_PHRASE, longest=self.longest)
        refuse_outside(1, MOST_PHRASES, min_rows=self.min_rows, max_phrases=self.max_phrases)
        if not self.inputs or not 0 < self.max_share <= 1:
            raise ValueError(f"n-grams need a column and 0 < `max_share` <= 1, not {self.inputs}, {self.max_share}")

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the columns of the texts whose phrases are found."""
        return self.inputs

    @property
    def fitted(self) -> bool:
        """Return whether the phrases are known."""
        return bool(self.phrases)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the phrases, column by column, each in alphabetical order."""
        known = list(zip(self.texts, self.phrases, strict=bool(self.phrases)))
        return tuple(_called(phrase, column, len(known)) for column, phrases in known for phrase in phrases)

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the phrases of `ds` within the limits."""
        banned = self._banned(ds.features)
        phrases = tuple(self._frequent(ds[column][:], banned) for column in self.texts)
        if not any(phrases):
            raise ValueError(
                f"source {self.name!r} found no phrase in columns {list(self.texts)} that occurs in at least "
                f"{self.min_rows} of {len(ds)} rows and at most {self.max_share:.0%} of them; lower `min_rows`"
            )
        return replace(self, phrases=phrases)

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which phrases each row has."""
        tables = [
            phrase_table(batch[column], phrases) for column, phrases in zip(self.texts, self.phrases, strict=True)
        ]
        return sparse.csr_matrix(sparse.hstack(tables), dtype=bool)

    def _banned(self, features: Features) -> frozenset[str]:
        label = features.get(columns.LABEL)
        names = label.names if self.exclude_class_names and isinstance(label, ClassLabel) else []
        tokens = _vectorizer().build_tokenizer()
        return frozenset(word for name in [*names, *self.exclude] for word in tokens(name.lower().replace("_", " ")))

    def _frequent(self, texts: Sequence[str], banned: frozenset[str]) -> tuple[str, ...]:
        limits = {"min_df": self.min_rows, "max_df": float(self.max_share)}
        vectorizer = _vectorizer(ngram_range=(1, self.longest), **limits)
        try:
            rows = vectorizer.fit_transform(texts).getnnz(axis=0)
        except ValueError:  # scikit-learn's answer where no word is left
            return ()
        found = vectorizer.get_feature_names_out()  # in alphabetical order
        wanted = rows < len(texts)
        if banned:
            wanted &= np.array([banned.isdisjoint(phrase.split(" ")) for phrase in found], dtype=bool)
        ids = np.flatnonzero(wanted)
        top = ids[np.argsort(-rows[ids], kind="stable")[: self.max_phrases]]
        return tuple(str(found[j]) for j in np.sort(top))


def phrase_table(texts: Sequence[str], phrases: Sequence[str]) -> sparse.csr_matrix:
    """Return which phrases each text has, boolean, of shape `(len(texts), len(phrases))`.

    The same as scikit-learn's `CountVectorizer(vocabulary=phrases).transform`, which joins and looks up all phrases of
    a text; here a phrase is only made longer while a known phrase begins with it.
    """
    words, lower = _vectorizer().build_tokenizer(), str.lower
    ids = {phrase: j for j, phrase in enumerate(phrases)}
    begun = {phrase[:end] for phrase in phrases for end in range(len(phrase)) if phrase[end] == " "}
    return id_table([_found(words(lower(text)), ids, begun) for text in texts], len(phrases))


def _found(words: Sequence[str], ids: Mapping[str, int], begun: Container[str]) -> set[int]:
    found = {ids[word] for word in words if word in ids}
    for first, phrase in enumerate(words):
        last = first + 1
        while phrase in begun and last < len(words):
            phrase = f"{phrase} {words[last]}"
            last += 1
            if phrase in ids:
                found.add(ids[phrase])
    return found


def _vectorizer(**limits: Any) -> Any:  # noqa: ANN401 - scikit-learn is imported late
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(binary=True, token_pattern=_TOKEN, dtype=np.int32, **limits)


def _called(phrase: str, column: str, columns_read: int) -> str:
    return phrase if columns_read == 1 else f"{phrase} ({column})"
