"""What a report says: plain frozen facts, which JSON can hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


BINS = 32
"""Of a histogram."""


@dataclass(frozen=True)
class Example:
    """One row shown as an example."""

    row: int
    """Its number in the data set."""
    label: str
    value: float
    """The unit's value on it."""
    has: bool
    """Whether it has the card's concept."""
    file: str | None = None
    """Name of its image file, where there is one."""
    text: tuple[tuple[str, bool], ...] = ()
    """Its text in parts, each with whether it is the concept."""


@dataclass(frozen=True)
class Spot:
    """One place of the range: a band, and one side of the class."""

    band: str
    side: str
    """`members` or `strangers`."""
    rows: int
    with_concept: int
    examples: tuple[Example, ...]
    """Rows spread evenly over the place, whether they have the concept or not."""


@dataclass(frozen=True)
class Side:
    """How often the concept occurs over one side's range: five equal bins from the bottom up, 95 % intervals."""

    side: str
    shares: tuple[float, ...]
    lows: tuple[float, ...]
    highs: tuple[float, ...]
    shape: str
    odds_ratio: float | None
    """Of the concept in the band against outside it, on this side."""


@dataclass(frozen=True)
class Sibling:
    """Another finding of the same group: a concept that stands on the same rows, or another band."""

    band: str
    concept: str
    odds_ratio: float
    q_value: float
    confirmed: bool


@dataclass(frozen=True)
class Card:
    """One unit and the findings of one group of like concepts, the most telling one first."""

    number: int
    unit: str
    is_class: bool
    """Whether the unit stands for a class, and so has members."""
    band: str
    source: str
    concept: str
    odds_ratio: float
    ci_low: float
    ci_high: float
    q_value: float
    q_confirm: float | None
    confirmed: bool
    confounder: bool
    derived: bool
    pattern: str
    """What the whole range shows: cue, one-sided, hardness or none."""
    rests_on: str
    p_beyond_top: float | None
    p_at_top: float
    reading: str
    sides: tuple[Side, ...]
    spots: tuple[Spot, ...]
    exceptions: tuple[Example, ...]
    """Rows of the middle that break the tie: members without the concept, strangers with it."""
    siblings: tuple[Sibling, ...]


@dataclass(frozen=True)
class Band:
    """One band of a unit on the rows of the report."""

    name: str
    low: float
    high: float
    members: int
    strangers: int
    is_middle: bool
    """Neither the lowest nor the highest of the bands that there are, with rows or without."""


@dataclass(frozen=True)
class Distribution:
    """How one unit's values are distributed."""

    unit: str
    is_class: bool
    edges: tuple[float, ...]
    """Of the bins, one more than there are."""
    members: tuple[int, ...]
    strangers: tuple[int, ...]
    bands: tuple[Band, ...]

    @classmethod
    def of(
        cls, unit: str, values: np.ndarray, bands: np.ndarray, member: np.ndarray | None, band_names: Sequence[str]
    ) -> Distribution:
        """Return the distribution over equal bins of a unit's whole range.

        Args:
            unit: its name.
            values: of the unit, of shape `(n,)`.
            bands: the row's band, of shape `(n,)`; -1 for none.
            member: which rows are members, of shape `(n,)`; None for a unit without a class.
            band_names: from the bottom up.
        """
        own = np.zeros(len(values), dtype=bool) if member is None else member
        edges = np.histogram_bin_edges(values, BINS)
        parts = []
        for band, name in enumerate(band_names):
            rows = bands == band
            if rows.any():
                low, high = float(values[rows].min()), float(values[rows].max())
                inside, outside = int((rows & own).sum()), int((rows & ~own).sum())
                parts.append(Band(name, low, high, inside, outside, 0 < band < len(band_names) - 1))
        members, strangers = (np.histogram(values[side], edges)[0] for side in (own, ~own))
        is_class = member is not None
        return cls(unit, is_class, _floats(edges), _counts(members), _counts(strangers), tuple(parts))


@dataclass(frozen=True)
class Scored:
    """Accuracy of one head: 0..1, with 95 % Wilson intervals."""

    name: str
    note: str
    """On which rows, and whether the head had seen them."""
    metrics: Mapping[str, Any]
    """As `group_metrics` gives them."""


@dataclass(frozen=True)
class Groups:
    """Accuracy by group before and after, with controls."""

    by: str
    names: tuple[str, ...]
    scores: tuple[Scored, ...]


@dataclass(frozen=True)
class Suspect:
    """A row whose label may be wrong."""

    label: str
    suggested: str
    score: float
    example: Example


@dataclass(frozen=True)
class Reason:
    """Why the rows of one pseudo-group count as they do."""

    pseudo_group: str
    rows: int
    weight: float
    """Of a row, on average."""
    example: str
    """The reason of the first of them."""


@dataclass(frozen=True)
class Curated:
    """What was curated, and why."""

    report: Mapping[str, Any]
    kept: int
    rows: int
    reasons: tuple[Reason, ...]


@dataclass(frozen=True)
class Verdict:
    """The answer in one sentence, how sure it is, and what to do now."""

    verdict: str
    sentence: str
    sure: tuple[str, ...]
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """Everything that a report says."""

    verdict: Verdict
    rows: int
    classes: tuple[str, ...]
    findings: int
    confirmed: int
    confounders: int
    cards: tuple[Card, ...]
    cards_left_out: int
    distributions: tuple[Distribution, ...]
    groups: Groups
    curation: Curated | None
    suspects: tuple[Suspect, ...]
    suspected: int
    """How many rows are suspected in all."""
    suspects_note: str | None
    """Why nobody looked for them, where nobody did."""
    provenance: Mapping[str, Any]
    versions: Mapping[str, str]


def _floats(values: np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))


def _counts(values: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, values))


def plain(facts: Facts) -> dict[str, Any]:
    """Return the facts as JSON holds them: tuples are lists, and what is not finite is None or a word."""
    return {"format": 1, **_plain(asdict(facts))}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field of any facts
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return None if isinstance(value, float) and math.isnan(value) else value
