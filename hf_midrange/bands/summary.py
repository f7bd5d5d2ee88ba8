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
    """Values of strangers, or of all rows where no class is asked about; float64."""
    members: np.ndarray
    """Values of members of the unit's class; float64, empty where no class is asked about."""

    @cached_property
    def ordered(self) -> np.ndarray:
        """All values, ascending."""
        return np.sort(np.concatenate([self.others, self.members]))

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
        return float(np.median(self.others)), float(np.median(self.members))

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

    def typical(self) -> tuple[float, float]:
        """Return the medians over strangers and over members, each exact where it has few rows."""
        return _median(self.others), _median(self.members)

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
    return float(np.median(kept_values(sketch)))
