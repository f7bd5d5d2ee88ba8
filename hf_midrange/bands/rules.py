"""The rules that turn a unit's fitted values into cut points between bands."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hf_midrange.bands.position import typical_values


DEFAULT_EDGES: dict[str, tuple[float, ...] | None] = {
    "class-relative": (0.0, 1.0),
    "quantile": (1 / 3, 2 / 3),
    "range": (1 / 3, 2 / 3),
    "std": (-1.0, 1.0),
    "edges": None,
}
"""Rule -> its own default edges. `edges` are plain values of the unit and have no default."""


def class_relative_cuts(typical: tuple[float, float], edges: Sequence[float]) -> tuple[float, ...] | None:
    """Return the unit's values at the class-relative positions `edges`; None where members stand no higher.

    Args:
        typical: medians over strangers and over members.
        edges: increasing positions, 0 the typical stranger and 1 the typical member.
    """
    low, high = typical
    return None if high <= low else tuple((1 - edge) * low + edge * high for edge in edges)


def unsupervised_cuts(rule: str, values: np.ndarray, edges: Sequence[float]) -> tuple[float, ...] | None:
    """Return the cut points of a rule that needs no labels; None for a constant unit, which has no range to divide.

    `quantile` cuts at quantiles, `range` at fractions of the way from the 1 % to the 99 % quantile, `std` at
    standard deviations from the mean, `edges` at plain values (constant units included).
    """
    exact = np.asarray(values, dtype=np.float64)
    if rule == "edges":
        return tuple(float(edge) for edge in edges)
    return None if exact.min() == exact.max() else tuple(_CUTS[rule](exact, np.asarray(edges)).tolist())


def _range_cuts(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    low, high = np.quantile(values, [0.01, 0.99])
    return low + edges * (high - low)


_CUTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "quantile": lambda values, edges: np.quantile(values, edges),
    "range": _range_cuts,
    "std": lambda values, edges: values.mean() + edges * values.std(),
}


__all__ = ["DEFAULT_EDGES", "class_relative_cuts", "typical_values", "unsupervised_cuts"]
