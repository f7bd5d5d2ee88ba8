"""Words and short phrases of texts as concepts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from datasets import ClassLabel, Dataset, Features
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.source import TEXT, Batch, Source, require_feature


_TOKEN = r"(?u)\b\w+(?:['’]\w+)*\b"
"""A word with its apostrophes, so that "don't" stays one word and negation is kept."""


@dataclass(frozen=True)
class NGrams(Source):
    """Words and phrases that are neither rare nor everywhere: `concepts_ngrams`.

    scikit-learn's `CountVectorizer` does the work, lower-cased, with no stop list: function words and negations are as
    likely a shortcut as any. A name is the phrase itself; with several columns it says which one: "not (text_pair)".

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
    version: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.exclude, str):
            raise TypeError(f"`exclude` must be a list of words; write exclude=[{self.exclude!r}]")

    @property
    def inputs(self) -> tuple[str, ...]:
        """Return the text columns."""
        return (self.column,) if isinstance(self.column, str) else tuple(self.column)

    @property
    def fitted(self) -> bool:
        """Return whether the phrases are known."""
        return bool(self.phrases)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the phrases, column by column, each in alphabetical order."""
        known = list(zip(self.inputs, self.phrases, strict=bool(self.phrases)))
        return tuple(_called(phrase, column, len(known)) for column, phrases in known for phrase in phrases)

    def check(self, features: Features) -> None:
        """Raise unless every column holds strings and the limits make sense."""
        if not self.inputs or self.longest < 1 or self.max_phrases < 1 or not 0 < self.max_share <= 1:
            raise ValueError(
                f"n-grams need a column, `longest` >= 1, `max_phrases` >= 1 and 0 < `max_share` <= 1, not {self}"
            )
        for column in self.inputs:
            require_feature(self, features, column, TEXT)

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the phrases of `ds` within the limits."""
        banned = self._banned(ds.features)
        phrases = tuple(self._frequent(ds[column][:], banned) for column in self.inputs)
        if not any(phrases):
            raise ValueError(
                f"source {self.name!r} found no phrase in columns {list(self.inputs)} that occurs in at least "
                f"{self.min_rows} of {len(ds)} rows and at most {self.max_share:.0%} of them; lower `min_rows`"
            )
        return replace(self, phrases=phrases)

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which phrases each row has."""
        tables = [
            _vectorizer(self.longest, phrases).transform(batch[column])
            if phrases
            else sparse.csr_matrix((len(batch[column]), 0))
            for column, phrases in zip(self.inputs, self.phrases, strict=True)
        ]
        return sparse.csr_matrix(sparse.hstack(tables), dtype=bool)

    def _banned(self, features: Features) -> frozenset[str]:
        label = features.get(columns.LABEL)
        names = label.names if self.exclude_class_names and isinstance(label, ClassLabel) else []
        tokens = _vectorizer(1, None).build_tokenizer()
        return frozenset(word for name in [*names, *self.exclude] for word in tokens(name.lower().replace("_", " ")))

    def _frequent(self, texts: Sequence[str], banned: frozenset[str]) -> tuple[str, ...]:
        vectorizer = _vectorizer(self.longest, None)
        try:
            rows = vectorizer.fit_transform(texts).getnnz(axis=0)
        except ValueError:  # scikit-learn's answer to texts without a single word
            return ()
        wanted = (rows >= self.min_rows) & (rows <= self.max_share * len(texts))
        found = vectorizer.get_feature_names_out()
        ids = [j for j in np.flatnonzero(wanted) if banned.isdisjoint(found[j].split(" "))]
        top = sorted(ids, key=lambda j: (-rows[j], found[j]))[: self.max_phrases]
        return tuple(sorted(str(found[j]) for j in top))


def _vectorizer(longest: int, phrases: Sequence[str] | None) -> Any:  # noqa: ANN401 - scikit-learn is imported late
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(
        binary=True, ngram_range=(1, longest), token_pattern=_TOKEN, vocabulary=phrases, dtype=np.int32
    )


def _called(phrase: str, column: str, columns_read: int) -> str:
    return phrase if columns_read == 1 else f"{phrase} ({column})"
