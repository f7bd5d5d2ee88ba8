"""What the rules ask of one unit's values: exact where all are at hand, and from quantile sketches where not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np


if TYPE_CHECKING:
    from datasketches import kll_doubles_sketch

KNOTS = 512
"""Order statistics kept per unit. A rank read from them is off by at most 1 / 512, and exact for up to 512 rows."""


class UnitSummary(Protocol):
    """What the rules ask of one unit's values."""

    def quantiles(self, ranks: np.ndarray) -> np.ndarray:
        """Return the values at `ranks`, 0..1, of all rows."""

    def moments(self) -> tuple[float, float]:
        """Return mean and standard deviation of all rows."""

    def limits(self) -> tuple[float, float]:
        """Return the smallest and the largest value."""

    def typical(self) -> tuple[float, float]:
        """Return the medians over strangers and over members."""

    def contrary(self) -> float:
        """Return how many members stand closer to the typical stranger than to the typical member, or beyond it."""

    def knots(self) -> tuple[float, ...]:
        """Return at most `KNOTS` order statistics, ascending."""


@dataclass(frozen=True)
class ExactSummary:
    """A unit with all its values at hand; what it says does not depend on the order of rows."""

    others: np.ndarray
    """Values of strangers, or of all rows where no class is asked about; ascending."""
    members: np.ndarray
    """Values of members of the unit's class, ascending; empty where no class is asked about."""

    @classmethod
    def of(cls, others: np.ndarray, members: np.ndarray) -> ExactSummary:
        """Return the summary of values in any order; float32 is sorted as such, which is twice as fast."""
        return cls(np.sort(others), np.sort(members))

    @cached_property
    def ordered(self) -> np.ndarray:
        """All values, ascending, as float64."""
        if not len(self.members):
            return self.others.astype(np.float64)
        both = np.concatenate([self.others, self.members])
        return np.sort(both, kind="stable").astype(np.float64)  # a stable sort merges two sorted runs in one pass

    def quantiles(self, ranks: np.ndarray) -> np.ndarray:
        """Return linearly interpolated quantiles, as `numpy.quantile` does."""
        return np.asarray(np.quantile(self.ordered, ranks))

    def moments(self) -> tuple[float, float]:
        """Return mean and standard deviation."""
        return float(self.ordered.mean()), float(self.ordered.std())

    def limits(self) -> tuple[float, float]:
        """Return the smallest and the largest value."""
        return float(self.ordered[0]), float(self.ordered[-1])

    def typical(self) -> tuple[float, float]:
        """Return the medians over strangers and over members."""
        return _middle(self.others), _middle(self.members)

    def contrary(self) -> float:
        """Return how many members stand below the middle of the medians."""
        return float(np.sum(self.members < sum(self.typical()) / 2))

    def knots(self) -> tuple[float, ...]:
        """Return order statistics at the middles of equal shares of the rows; of few rows, all values."""
        rows = len(self.ordered)
        if rows <= KNOTS:
            return tuple(self.ordered.tolist())
        return tuple(self.ordered[(knot_ranks() * rows).astype(np.int64)].tolist())


@dataclass(frozen=True)
class SketchSummary:
    """A unit of too many rows to be kept; quantiles are those of the sketches."""

    others: kll_doubles_sketch
    members: kll_doubles_sketch
    everyone: kll_doubles_sketch
    mean_and_std: tuple[float, float]

    def quantiles(self, ranks: np.ndarray) -> np.ndarray:
        """Return values whose rank is `ranks` but for the sketch's error."""
        return np.asarray(self.everyone.get_quantiles(ranks.tolist()))

    def moments(self) -> tuple[float, float]:
        """Return mean and standard deviation, which are exact but for rounding."""
        return self.mean_and_std

    def limits(self) -> tuple[float, float]:
        """Return the smallest and the largest value, which sketches keep exactly."""
        return self.everyone.get_min_value(), self.everyone.get_max_value()

    @cached_property
    def medians(self) -> tuple[float, float]:
        """The medians over strangers and over members, each exact where it has few rows."""
        return _median(self.others), _median(self.members)

    def typical(self) -> tuple[float, float]:
        """Return the medians over strangers and over members."""
        return self.medians

    def contrary(self) -> float:
        """Return about how many members stand below the middle of the medians."""
        return float(self.members.get_rank(sum(self.typical()) / 2) * self.members.n)

    def knots(self) -> tuple[float, ...]:
        """Return order statistics at the middles of equal shares of the rows."""
        return tuple(self.quantiles(knot_ranks()).tolist())


def knot_ranks() -> np.ndarray:
    """Return the ranks of the knots: the middles of equal shares."""
    return (np.arange(KNOTS) + 0.5) / KNOTS


def kept_values(sketch: kll_doubles_sketch) -> np.ndarray:
    """Return what a sketch that has not begun to estimate holds: every value it was given."""
    return np.array([value for value, _ in sketch], dtype=np.float64)


def _median(sketch: kll_doubles_sketch) -> float:
    if sketch.is_estimation_mode():
        return float(sketch.get_quantile(0.5))
    return _middle(np.sort(kept_values(sketch)))


def _middle(ordered: np.ndarray) -> float:
    """Return the median of ascending values, as `numpy.median` of float64 does."""
    rows = len(ordered)
    return (float(ordered[(rows - 1) // 2]) + float(ordered[rows // 2])) / 2
