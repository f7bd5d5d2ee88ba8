"""The class-relative position: how far a value has come from the typical stranger to the typical member."""

from __future__ import annotations

import numpy as np


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

    Example:
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
