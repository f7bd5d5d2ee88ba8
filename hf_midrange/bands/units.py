"""One unit: its typical values and position, its values while bands are fitted, the rules, and the fitted bands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


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


def typical_values(values: np.ndarray, members: np.ndarray) -> tuple[float, float]:
    """Return the medians `(m0, m1)` of one unit over strangers and over members of its class.

    Args:
        values: the unit's value on each row, of shape `(n,)`.
        members: which rows are of the unit's class, boolean of shape `(n,)`.

    Raises:
        ValueError: if there is no member or no stranger.
    """
    if members.all() or not members.any():
        raise ValueError(
            f"{int(members.sum())} of {len(members)} rows are members; a class-relative position needs rows of the "
            "class and rows of another"
        )
    exact = np.asarray(values, dtype=np.float64)
    return float(np.median(exact[~members])), float(np.median(exact[members]))


def class_relative_position(
    values: np.ndarray, members: np.ndarray | None = None, *, typical: tuple[float, float] | None = None
) -> np.ndarray:
    """Return the class-relative position of one unit: 0 is a typical stranger, 1 a typical member.

    `T = (value - m0) / (m1 - m0)`, with m1 the median over members and m0 over strangers.

    Args:
        values: the unit's value on each row, of shape `(n,)`.
        members: which rows are of the unit's class, boolean of shape `(n,)`.
        typical: m0 and m1 as they were fitted on other rows, instead of `members`.

    Returns:
        T of shape `(n,)`, float64; all NaN where `m1 <= m0`, since such a unit does not know its class.

    Raises:
        ValueError: if there is no member or no stranger, or neither `members` nor `typical` is given.

    Examples:
        >>> values, members = np.array([-2.0, 0.0, 4.0, 8.0]), np.array([False, False, True, True])
        >>> class_relative_position(values, members).tolist()
        [-0.14285714285714285, 0.14285714285714285, 0.7142857142857143, 1.2857142857142858]
    """
    if typical is None:
        if members is None:
            raise ValueError("give `members`, or the `typical` values of strangers and members")
        typical = typical_values(values, members)
    low, high = typical
    if high <= low:
        return np.full(len(values), np.nan)
    return (np.asarray(values, dtype=np.float64) - low) / (high - low)


CLASS_RELATIVE, QUANTILE = "class-relative", "quantile"

DEFAULT_EDGES: dict[str, tuple[float, ...] | None] = {
    CLASS_RELATIVE: (0.0, 1.0),
    QUANTILE: (1 / 3, 2 / 3),
    "range": (1 / 3, 2 / 3),
    "std": (-1.0, 1.0),
    "edges": None,
}
"""Rule -> its own default edges. `edges` are plain values of the unit and have no default."""

MOST_BANDS = 127
"""Bands are stored as int8, with -1 for none."""


def edges_of(rule: str, edges: Sequence[float] | None, n_bands: int | None) -> tuple[float, ...]:
    """Return the increasing edges that a rule, its `edges` and its `n_bands` stand for.

    Raises:
        ValueError: for an unknown rule, edges that do not increase or do not fit the rule, or too many bands.
    """
    if rule not in DEFAULT_EDGES:
        raise ValueError(f"rule must be one of {list(DEFAULT_EDGES)}, but is {rule!r}")
    if n_bands is not None:
        return _edges_of_count(rule, edges, n_bands)
    chosen = DEFAULT_EDGES[rule] if edges is None else tuple(float(edge) for edge in edges)
    if chosen is None:
        raise ValueError("rule 'edges' needs `edges`, plain values of the unit, such as edges=(-1.0, 1.0)")
    _check(rule, chosen)
    return chosen


def cuts_of(rule: str, values: UnitValues, edges: Sequence[float]) -> tuple[float, ...] | None:
    """Return the unit's values where the next band begins; None for a unit that cannot be divided.

    `class-relative` cuts at positions between the typical stranger and the typical member, `quantile` at quantiles,
    `range` at fractions of the way from the 1 % to the 99 % quantile, `std` at standard deviations from the mean,
    `edges` at plain values (of constant units too).
    """
    if rule == CLASS_RELATIVE:
        low, high = values.typical()
        return None if high <= low else tuple((1 - edge) * low + edge * high for edge in edges)
    if rule == "edges":
        return tuple(float(edge) for edge in edges)
    if values.ordered[0] == values.ordered[-1]:
        return None
    return tuple(_unsupervised(rule, values, np.asarray(edges)).tolist())


def _unsupervised(rule: str, values: UnitValues, edges: np.ndarray) -> np.ndarray:
    if rule == QUANTILE:
        return values.quantiles(edges)
    if rule == "range":
        low, high = values.quantiles(np.array([0.01, 0.99]))
        return low + edges * (high - low)
    return values.ordered.mean() + edges * values.ordered.std()


def _edges_of_count(rule: str, edges: Sequence[float] | None, n_bands: int) -> tuple[float, ...]:
    default = DEFAULT_EDGES[rule]
    if default is None:
        raise ValueError("rule 'edges' takes its number of bands from `edges`; leave `n_bands` out")
    if isinstance(n_bands, bool) or not isinstance(n_bands, int | np.integer) or not 2 <= n_bands <= MOST_BANDS:
        raise ValueError(f"n_bands must be a whole number from 2 to {MOST_BANDS}, but is {n_bands!r}")
    if rule in (QUANTILE, "range"):
        found = [i / n_bands for i in range(1, n_bands)]
    elif n_bands == 2:
        found = [sum(default) / 2]
    else:
        found = np.linspace(default[0], default[-1], n_bands - 1).tolist()
    if edges is not None and tuple(edges) != tuple(found):
        raise ValueError(f"give `edges` or `n_bands`, not both: n_bands={n_bands} of {rule!r} has edges of its own")
    return tuple(found)


def _check(rule: str, edges: tuple[float, ...]) -> None:
    if not edges or not np.isfinite(edges).all() or any(b <= a for a, b in zip(edges, edges[1:], strict=False)):
        raise ValueError(f"edges must be finite and increase, but are {edges}")
    if len(edges) >= MOST_BANDS:
        raise ValueError(f"{len(edges)} edges make {len(edges) + 1} bands; at most {MOST_BANDS} can be stored")
    if rule == QUANTILE and not 0 < edges[0] <= edges[-1] < 1:
        raise ValueError(f"edges of rule 'quantile' are ranks between 0 and 1, but are {edges}")
