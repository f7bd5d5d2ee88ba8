"""One unit's fitted bands: cut points, typical values, and the distribution that ranks are read from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_midrange.bands.curve import UnitSearch


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
    search: UnitSearch | None = None
    """How rule `auto` chose the edges; None under other rules, and where there was nothing to choose by."""

    def band(self, values: np.ndarray) -> np.ndarray:
        """Return the band of each value, int8 of shape `(n,)`; -1 where the unit has no bands."""
        if self.cuts is None:
            return np.full(len(values), -1, dtype=np.int8)
        return np.searchsorted(np.asarray(self.cuts), values.astype(np.float64), side="right").astype(np.int8)

    def position(self, values: np.ndarray) -> np.ndarray:
        """Return the class-relative position, float32 of shape `(n,)`; NaN where it is undefined."""
        if self.typical is None or self.cuts is None:
            return np.full(len(values), np.nan, dtype=np.float32)
        low, high = self.typical
        return ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)

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
