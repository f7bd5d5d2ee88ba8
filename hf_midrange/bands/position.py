"""The class-relative position: how far a value has come from the typical stranger to the typical member."""

from __future__ import annotations

import numpy as np


def typical_values(values: np.ndarray, ids: np.ndarray, unit_class: int) -> tuple[float, float]:
    """Return the medians `(m0, m1)` of one unit over strangers and over members of its class.

    Raises:
        ValueError: if the class has no member or no stranger.
    """
    member = np.asarray(ids) == unit_class
    if member.all() or not member.any():
        raise ValueError(
            f"class {unit_class} has {int(member.sum())} of {len(member)} rows; a class-relative position needs "
            "rows of the class and rows of another"
        )
    exact = np.asarray(values, dtype=np.float64)
    return float(np.median(exact[~member])), float(np.median(exact[member]))


def class_relative_position(values: np.ndarray, ids: np.ndarray, unit_class: int) -> np.ndarray:
    """Return the class-relative position of one unit: 0 is a typical stranger, 1 a typical member.

    `T = (value - m0) / (m1 - m0)`, with m1 the median over rows of class `unit_class` and m0 over all other rows.

    Args:
        values: the unit's value on each row, of shape `(n,)`.
        ids: class ids, of shape `(n,)`.
        unit_class: the class that the unit stands for.

    Returns:
        T of shape `(n,)`, float64; all NaN where `m1 <= m0`, since such a unit does not know its class.

    Raises:
        ValueError: if the class has no member or no stranger.

    Example:
        >>> class_relative_position(np.array([-2.0, 0.0, 4.0, 8.0]), np.array([0, 0, 1, 1]), 1).tolist()
        [-0.14285714285714285, 0.14285714285714285, 0.7142857142857143, 1.2857142857142858]
    """
    low, high = typical_values(values, ids, unit_class)
    if high <= low:
        return np.full(len(values), np.nan)
    return (np.asarray(values, dtype=np.float64) - low) / (high - low)
