"""`shortcuts`: each tie once, with a name, a sentence, how much it harms, and the rows that break it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, Features, List, Value

from hf_midrange import columns
from hf_midrange.association.ranks import rows_with
from hf_midrange.ties.evidence import Rows, Tie, clustered, explained, is_part, lift, ties_of
from hf_midrange.verdicts import SHOWN, SUSPECTED


AGREES = 0.5
"""Least correlation, within labels, of the rows that break a tie by a concept's word and by all that speak of it, for
the concept to name it."""
AS_WELL = 0.9
"""A phrase that holds the best one is taken if it agrees so nearly as well."""
UNNAMED = "something that no named concept describes"

FEATURES = Features(
    {
        "name": Value("string"),
        "class": Value("string"),
        "sentence": Value("string"),
        "strength": Value("float64"),
        "errors_explained": Value("float64"),
        "rows": List(Value("int64")),
        "findings": List(Value("int64")),
        "reading": Value("string"),
        "unit": Value("int32"),
        "source": Value("string"),
        "concept": Value("string"),
        "seen_in": List(Value("string")),
    }
)
"""Columns of the shortcuts."""


def shortcuts(ds: Dataset, findings: Dataset) -> Dataset:
    """Return the shortcuts of a model, one row for each tie, most harmful first.

    Findings, and the pseudo-groups of rows that were curated, are one shortcut where the same rows break the tie. Of
    findings those count that were confirmed, that the data tie strongly to the class, and that raise its score among
    members and strangers alike. Whether a tie may be relied on, as a part of the class may, only a person or an
    intervention can tell.

    Args:
        ds: the rows that `findings` are of, best as `curate` returned them: then nothing is told where the curation
            saw nothing. With `label`, `logits` and `concepts_<source>`.
        findings: what `associate` returned.

    Returns:
        A small data set, empty where nothing was found; what explains no error is told in the first row alone.
        `name` is the most specific concept that a person can name and whose word agrees with the rows that break the
        tie; channels, cells of thumbnails and clusters only support. Without one the name says so, and where the tie
        shows. `class`: what it is tied to. `sentence`: all in a sentence. `strength`: how much higher rows with it
        score for the class than rows of the same label without (logits; of two classes half the difference of both).
        `errors_explained`: share of all errors that rows which break the tie make beyond the rate of other rows of
        their label (population attributable fraction). `rows`: the numbers of those rows. `findings`: numbers of the
        findings that support it. `reading`: `shown` or `suspected`. `unit`, `source`, `concept`: what the rows stand
        by; null where no concept does. `seen_in`: the sources that show it.

    Raises:
        KeyError, TypeError, ValueError: if columns are missing or unfit.

    Examples:
        >>> for one in hm.shortcuts(curated, findings): print(one["sentence"])     # doctest: +SKIP
    """
    columns.require(ds, columns.LABEL, columns.LOGITS)
    rows = Rows.of(ds)
    told: list[_Told] = []
    for group in sorted((_Told.of(rows, ties) for ties in clustered(ties_of(rows, findings), rows)), key=_harm):
        same = next((k for k, one in enumerate(told) if is_part(group.tie, one.tie, rows)), None)
        if same is None:
            told.append(group)
        else:
            told[same] = _Told.of(rows, [*told[same].group, *group.group])
    told.sort(key=_harm)
    entries = [_entry(rows, one) for one in told if one.explained > 0 or one is told[0]]
    return Dataset.from_dict({name: [one[name] for one in entries] for name in FEATURES}, features=FEATURES)


class _Name(NamedTuple):
    """A concept by whose word rows break a tie."""

    tie: Tie
    agrees: float
    """Correlation of those rows with all that speak of the tie, within labels."""

    @property
    def words(self) -> str:
        """The words that a name of words in a text stands for."""
        return str(self.tie.concept).removeprefix('the word "').removesuffix('"')

    def holds(self, other: _Name) -> bool:
        """Return whether this is a phrase with the other's words in it."""
        texts = self.tie.source == "ngrams" and other.tie.source in ("ngrams", "text_style")
        same = self.tie.own == other.tie.own and (texts)
        return same and f" {other.words} " in f" {self.words} "


class _Told(NamedTuple):
    """What speaks of one tie."""

    group: list[Tie]
    tie: Tie
    """The one by whose word rows are said to break it."""
    is_named: bool
    explained: float

    @classmethod
    def of(cls, rows: Rows, group: list[Tie]) -> _Told:
        """Choose the word: a name if one agrees with all, else what agrees best.

        What is read with noise moves the score less: each counts by the square of how much it does.
        """
        lifts = [max(lift(rows.score(tie.own), tie.has, rows.ids)[0], 0.0) ** 2 for tie in group]
        broken = [rows.centred(tie.contrary(rows.ids).astype(np.float64)) for tie in group]
        common = rows.centred(np.average(broken, axis=0, weights=lifts))
        name = _best(list(_names(rows, common)))
        tie = name.tie if name else group[int(np.argmax([part @ common for part in broken]))]
        return cls(group, tie, name is not None, explained(rows, tie.contrary(rows.ids)))


def _harm(one: _Told) -> float:
    return -one.explained


def _entry(rows: Rows, told: _Told) -> dict[str, Any]:
    """Return a row of the shortcuts."""
    tie, group = told.tie, told.group
    seen_in = sorted({one.source for one in group})
    strength = lift(rows.score(tie.own), tie.has, rows.ids)[0]
    return {
        "name": str(tie.concept) if told.is_named else f"{UNNAMED} (seen in {', '.join(seen_in)})",
        "class": rows.classes[tie.own],
        "sentence": _sentence(rows, tie, told.is_named, strength),
        "strength": strength,
        "errors_explained": told.explained,
        "rows": np.flatnonzero(tie.contrary(rows.ids)),
        "findings": sorted(k for one in group for k in one.findings),
        "reading": SHOWN if any(one.reading == SHOWN for one in group) else SUSPECTED,
        "unit": tie.own,
        "source": tie.source if tie.concept else None,
        "concept": tie.concept,
        "seen_in": seen_in,
    }


def _best(names: list[_Name]) -> _Name | None:
    """Return the name that agrees best, or the longest phrase with its words that agrees nearly as well."""
    if not names:
        return None
    best = max(names, key=lambda name: round(name.agrees, 6))  # of equals the first
    longer = [name for name in names if name.holds(best) and name.agrees >= AS_WELL * best.agrees]
    return max(longer, key=lambda name: (len(name.words.split()), name.agrees), default=best)


def _names(rows: Rows, common: np.ndarray) -> Iterator[_Name]:
    """Yield the concepts that can name a tie: words for what a person sees, by which the same rows break it.

    Args:
        rows: the rows.
        common: what those that speak of the tie have in common: their contrary rows, `(n,)`, centred within labels.
    """
    sizes = np.bincount(rows.ids)
    for column in filter(lambda name: _has_words(rows.ds, name), columns.concept_columns(rows.ds.features)):
        words, source = columns.vocabulary(rows.ds.features, column), column.removeprefix(columns.CONCEPTS_PREFIX)
        table = columns.presence(rows.ds, column).tocsc()
        counts = rows_with(table, rows.ids, len(sizes))
        spread = np.sqrt((counts * (1 - counts / np.maximum(sizes, 1)[:, None])).sum(axis=0))
        for own in range(len(rows.classes)):
            turned = table.T @ np.where(rows.ids == own, -common, common)
            agrees = np.divide(turned, spread, out=np.zeros(len(words)), where=spread > 1e-6)
            for j in np.flatnonzero(agrees >= AGREES):
                yield _Name(Tie(own, table[:, [j]].toarray()[:, 0], source, words[j]), float(agrees[j]))


def _has_words(ds: Dataset, column: str) -> bool:
    """Return whether a column's concepts are words for what a person sees, and not channels, cells or clusters."""
    source = column.removeprefix(columns.CONCEPTS_PREFIX)
    view = f"{columns.VIEW_PREFIX}{source}"
    about = columns.facts(ds.features, view) if view in ds.features else {}
    inner = about.get("of_network", source == "early_features") and not about.get("vocabulary")
    derived = columns.facts(ds.features, column).get("derived", source == "latent")
    return not (inner or derived or source.startswith("thumbnail"))


def _sentence(rows: Rows, tie: Tie, named: bool, strength: float) -> str:
    """Return how much lower rows that break the tie score, and how many do.

    Of two classes it is told of the one whose rows have what is tied to the other.
    """
    two = len(rows.classes) == 2
    own = 1 - tie.own if two else tie.own
    members = rows.ids == own
    broken, name = members & tie.contrary(rows.ids), f"“{columns.shortened(str(tie.concept))}”"
    if not named:
        said = (
            f"that looks like “{columns.shortened(rows.classes[tie.own])}”" if two else "without what is usual for it"
        )
        said += f" (in {tie.source})"
    elif tie.source == "ngrams":
        said = f"that {'says' if two else 'does not say'} {name}"
    else:
        said = f"{'with' if two else 'without'} {name}"
    verb = "breaks" if broken.sum() == 1 else "break"
    class_name = columns.shortened(rows.classes[own])
    return f"“{class_name}” {said} scores {strength:.1f} lower; {broken.sum()} of {members.sum()} {verb} the tie"
