"""The rules that turn what is known of a unit's values into cut points between bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hf_midrange.bands.unit import UnitValues


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
