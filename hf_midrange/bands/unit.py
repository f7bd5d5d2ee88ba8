"""One unit: its values while bands are fitted, and the bands that were fitted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hf_midrange.bands.position import class_relative_position


KNOTS = 512
"""Order statistics kept per unit. A rank read from them is off by at most 1 / 512, and exact for up to 512 rows."""


@dataclass(frozen=True)
class UnitValues:
    """The values of one unit, as the rules ask for them; the order of rows makes no difference."""

    strangers: np.ndarray
    """Values of strangers, or of all rows where no class is asked about; ascending."""
    members: np.ndarray
    """Values of members of the unit's class, ascending; empty where no class is asked about."""

    @classmethod
    def of(cls, values: np.ndarray, members: np.ndarray | None) -> UnitValues:
        """Return the values in order; float32 is sorted as such, which is twice as fast."""
        own = np.zeros(len(values), dtype=bool) if members is None else members
        return cls(np.sort(values[~own]), np.sort(values[own]))

    @cached_property
    def ordered(self) -> np.ndarray:
        """All values, ascending, as float64."""
        if not len(self.members):
            return self.strangers.astype(np.float64)
        both = np.concatenate([self.strangers, self.members])
        return np.sort(both, kind="stable").astype(np.float64)  # a stable sort merges two sorted runs in one pass

    def quantiles(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values at `ranks`, 0..1, linearly interpolated as `numpy.quantile` does."""
        return np.asarray(np.quantile(self.ordered, ranks))

    def typical(self) -> tuple[float, float]:
        """Return the medians over strangers and over members."""
        return _median(self.strangers), _median(self.members)

    def contrary(self) -> int:
        """Return how many members stand closer to the typical stranger than to the typical member, or beyond it."""
        return int(np.sum(self.members < sum(self.typical()) / 2))

    def knots(self) -> tuple[float, ...]:
        """Return order statistics at the middles of equal shares of the rows; of few rows, all values."""
        rows = len(self.ordered)
        if rows <= KNOTS:
            return tuple(self.ordered.tolist())
        ranks = (np.arange(KNOTS) + 0.5) / KNOTS
        return tuple(self.ordered[(ranks * rows).astype(np.int64)].tolist())


@dataclass(frozen=True)
class UnitBands:
    """What was fitted for one unit."""

    name: str
    cuts: tuple[float, ...] | None
    """Ascending values where the next band begins (a value on a cut is in the upper band); None: no bands."""
    typical: tuple[float, float] | None
    """Medians over strangers and over members, where the rule is class-relative."""
    knots: tuple[float, ...]
    """Evenly spaced order statistics of the fitted values, ascending."""

    def band(self, values: np.ndarray) -> np.ndarray:
        """Return the band of each value, int8 of shape `(n,)`; -1 where the unit has no bands."""
        if self.cuts is None:
            return np.full(len(values), -1, dtype=np.int8)
        return np.searchsorted(np.asarray(self.cuts), values.astype(np.float64), side="right").astype(np.int8)

    def position(self, values: np.ndarray) -> np.ndarray:
        """Return the class-relative position, float32 of shape `(n,)`; NaN where it is undefined."""
        if self.typical is None or self.cuts is None:
            return np.full(len(values), np.nan, dtype=np.float32)
        return class_relative_position(values, typical=self.typical).astype(np.float32)

    def quantile(self, values: np.ndarray) -> np.ndarray:
        """Return the mid-rank among the fitted values, in 0..1, float32 of shape `(n,)`."""
        # Values are sorted and the few knots sought among them: faster than seeking every value among the knots.
        order, knots = np.argsort(values), np.asarray(self.knots)
        ordered = values[order].astype(np.float64)
        at_or_below, below = (np.searchsorted(ordered, knots, side=side) for side in ("left", "right"))
        twice = np.cumsum(np.bincount(np.concatenate([at_or_below, below]), minlength=len(values) + 1))[:-1]
        ranks = np.empty(len(values), dtype=np.float32)
        ranks[order] = twice / (2 * len(knots))
        return ranks

    def require_cuts(self, number: int) -> None:
        """Raise `ValueError` unless cuts and knots are finite and increase, and there are so many cuts, or none."""
        numbers = [*(self.cuts or ()), *(self.typical or ()), *self.knots]
        if not all(map(math.isfinite, numbers)):
            raise ValueError(f"unit {self.name!r} has cuts or knots that are not finite")
        if self.cuts is not None and (len(self.cuts) != number or list(self.cuts) != sorted(self.cuts)):
            raise ValueError(
                f"unit {self.name!r} has the cuts {self.cuts}, where {number} increasing ones are expected"
            )
        if list(self.knots) != sorted(self.knots):
            raise ValueError(f"the knots of unit {self.name!r} are not in order")


def _median(ordered: np.ndarray) -> float:
    """Return the median of ascending values, as `numpy.median` of float64 does."""
    rows = len(ordered)
    return (float(ordered[(rows - 1) // 2]) + float(ordered[rows // 2])) / 2
