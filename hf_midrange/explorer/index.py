"""Which rows stand where on a unit's range, and where a finding shows: images and texts stay unread."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict
from scipy import sparse

from hf_midrange import columns
from hf_midrange.association.schema import RANGE
from hf_midrange.publishing.escaping import short_names, shortened, visible
from hf_midrange.reporting.drawing import Distribution
from hf_midrange.reporting.inputs import read, suspects_of
from hf_midrange.reporting.rendering import counted, figure


PAGE = 6
"""Rows of each side shown at once."""
MOST_FINDINGS = 50
"""Findings listed below the shortcuts; the surest come first."""

Having = Literal["either", "with", "without", "tie"]
_LIGHT = (columns.LABEL, columns.LOGITS, columns.QUANTILE, columns.POSITION, columns.BAND)
_CURATED = (columns.PSEUDO_GROUP, columns.REASON)
_STEPS = 100


@dataclass(frozen=True)
class Choice:
    """What is looked at.

    Attributes:
        unit: its number.
        level: the value on the unit's range, around which rows are shown.
        label: class id of the rows shown; None: any.
        concept: its number among `Index.concepts`; None: any.
        having: rows with the concept, without it, either, or `tie`: those that break a tie of concept and class, which
            are members without it and strangers with it.
        page: 0 for the rows nearest to the level, 1 for the next nearest, ...
    """

    unit: int = 0
    level: float = 0.0
    label: int | None = None
    concept: int | None = None
    having: Having = "either"
    page: int = 0


class Jump(NamedTuple):
    """A shortcut or a finding in one line, and what to look at for it."""

    title: str
    choice: Choice
    breaking: bool = False
    """Whether of all rows only those that break a shortcut are to be looked at."""


class Rows(NamedTuple):
    """One page of one side."""

    rows: np.ndarray
    """Row numbers, nearest to the level first; at most `PAGE`."""
    values: np.ndarray
    """Of the unit, on these rows."""
    bands: np.ndarray
    """Their bands, -1 where there is none."""
    has: np.ndarray | None
    """Whether they have the concept, where one is chosen."""
    total: int
    """Rows on all pages."""


class Scale(NamedTuple):
    """The ends of a unit's range and a step along it, round numbers."""

    low: float
    high: float
    step: float
    digits: int


class Index:
    """The rows of one split, by unit, level, label and concept.

    A unit's values are read when it is first looked at; of the rows themselves nothing is read.
    """

    def __init__(self, ds: Dataset, findings: Dataset | None = None) -> None:
        """Read what is needed of `ds`, whose bands are fitted if it has none, and of what `associate` found on it.

        Raises:
            KeyError, TypeError, ValueError: if columns are missing or of another kind, there are no rows, or the
                findings are of other rows.
        """
        if isinstance(ds, DatasetDict):
            raise TypeError(f"one split is explored, such as ds[{next(iter(ds), 'train')!r}], not a DatasetDict")
        found = columns.concept_columns(ds.features)
        found += columns.view_columns(ds.features)
        light = ds.select_columns([*(name for name in (*_LIGHT, *_CURATED) if name in ds.features), *found])
        self._rows = read(light, findings, need_concepts=False)
        inputs = self._rows.inputs
        self._present = sparse.csc_matrix(inputs.problem.present)
        self.size = len(ds)
        self.ids, self.classes = self._rows.ids, list(self._rows.classes)
        self.units, self.bands = short_names(inputs.unit_names), inputs.band_names
        self._concepts = [f"{source}: {name}" for source, name in zip(inputs.sources, inputs.names, strict=True)]
        self.concepts = short_names(self._concepts)
        suspects = [] if findings is None else suspects_of(self._rows, findings)[0]
        self.suspects = {row["row"]: self.classes[row["suggested"]] for row in suspects}
        """The class that each row with a suspected label looks like, most suspect first; none without findings."""
        self.breaking = {row for one in self._rows.shortcuts for row in one["rows"]}
        """The rows that break a shortcut."""
        self._unit = lru_cache(maxsize=4)(self._read_unit)

    def jumps(self) -> list[Jump]:
        """Return the shortcuts, most harmful first, then the findings: those of cues, what was confirmed, the rest."""
        rows = sorted(self._rows.findings, key=lambda row: (not row["confounder"], not row["confirmed"]))
        return [*map(self._to_shortcut, self._rows.shortcuts), *map(self._to_finding, rows[:MOST_FINDINGS])]

    def is_class(self, unit: int) -> bool:
        """Return whether the unit stands for a class, and so has members."""
        return self._rows.member(unit) is not None

    def scale(self, unit: int) -> Scale:
        """Return the unit's range as a slider has it."""
        values = self._unit(unit)[0]
        low, high = float(values.min()), float(values.max())
        if high <= low:
            high = low + 1.0
        power = math.floor(math.log10((high - low) / _STEPS))
        step = 10.0**power
        ends = math.floor(low / step) * step, math.ceil(high / step) * step
        digits = max(0, -power)
        return Scale(round(ends[0], digits), round(ends[1], digits), round(step, digits), digits)

    def middle_of(self, unit: int, band: int | None = None) -> float:
        """Return the level that halves the rows of a band, by default of the middle one."""
        values, bands, _ = self._unit(unit)
        wanted = bands == (len(self.bands) // 2 if band is None else band)
        scale = self.scale(unit)
        middle = float(np.median(values[wanted])) if wanted.any() else (scale.low + scale.high) / 2
        return round(middle, scale.digits)

    def share_below(self, unit: int, level: float) -> float:
        """Return the share of all rows at or below a level, 0..1."""
        return float((self._unit(unit)[0] <= level).mean())

    def band_at(self, unit: int, level: float) -> str | None:
        """Return the name of the band that a level lies in; None where the unit has no bands."""
        values, bands, _ = self._unit(unit)
        banded = np.flatnonzero(bands >= 0)
        if not banded.size:
            return None
        return self.bands[int(bands[banded[np.abs(values[banded] - level).argmin()]])]

    def distribution(self, unit: int) -> Distribution:
        """Return the histograms of the unit's members and strangers, and its bands."""
        values, bands, member = self._unit(unit)
        own = member if self.is_class(unit) else None
        return Distribution.of(self.units[unit], values, bands, own, self.bands)

    def side(self, choice: Choice, members: bool, among: Collection[int] | None = None) -> Rows:
        """Return one page of the members or the strangers; a unit without a class has strangers alone.

        Args:
            choice: what is looked at.
            members: which side.
            among: numbers of the rows that may be shown; None: all.
        """
        values, bands, member = self._unit(choice.unit)
        wanted = member == members
        if among is not None:
            wanted &= np.isin(np.arange(self.size), list(among))
        if choice.label is not None:
            wanted &= self.ids == choice.label
        has = None if choice.concept is None else self._present[:, [choice.concept]].toarray()[:, 0]
        if has is not None and choice.having != "either":
            wanted &= has == (not members if choice.having == "tie" else choice.having == "with")
        rows = np.flatnonzero(wanted)
        order = np.argsort(np.abs(values[rows] - choice.level), kind="stable")
        page = rows[order[choice.page * PAGE : (choice.page + 1) * PAGE]]
        return Rows(page, values[page], bands[page], None if has is None else has[page], len(rows))

    def _read_unit(self, unit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        member = self._rows.member(unit)
        none = np.zeros(self.size, dtype=bool)
        return self._rows.values(unit), np.asarray(self._rows.bands(unit)), none if member is None else member

    def _to_shortcut(self, one: dict[str, Any]) -> Jump:
        told = f"{shortened(one['name'])} for {self.units[one['unit']]}: {counted(len(one['rows']), 'row')} against it"
        values = self._unit(one["unit"])[0][one["rows"]]
        level = round(float(np.median(values)), self.scale(one["unit"]).digits)
        named = one["concept"] is not None
        concept = self._concepts.index(f"{one['source']}: {one['concept']}") if named else None
        having: Having = "tie" if named else "either"
        return Jump(
            visible(f"Shortcut ({one['reading']}): {told}"),
            Choice(one["unit"], level, None, concept, having),
            not named,
        )

    def _to_finding(self, row: dict[str, Any]) -> Jump:
        kind = "cue" if row["confounder"] else "confirmed" if row["confirmed"] else "not confirmed"
        where = "whole range" if row["band"] == RANGE else f"{row['band']} band"
        odds = f"odds ratio {figure(row['odds_ratio'])} ({figure(row['ci_low'])} to {figure(row['ci_high'])})"
        title = f"{shortened(row['concept'])} — {self.units[row['unit']]}, {where}: {kind}, {odds}"
        level = self.middle_of(row["unit"], None if row["band"] == RANGE else self.bands.index(row["band"]))
        concept = self._concepts.index(f"{row['source']}: {row['concept']}")
        having: Having = "tie" if row["confounder"] else "either"
        return Jump(visible(title), Choice(row["unit"], level, None, concept, having))
