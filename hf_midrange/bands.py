"""Bands: where in its range each unit stands on each row."""

from __future__ import annotations

import numpy as np


def class_relative_position(values: np.ndarray, ids: np.ndarray, unit_class: int) -> np.ndarray:
    """Return the class-relative position of one unit: 0 is a typical stranger, 1 a typical member.

    `T = (value - m0) / (m1 - m0)`, with m1 the median over rows of class `unit_class`, m0 over all other rows.
    """
    member = ids == unit_class
    m0, m1 = np.median(values[~member]), np.median(values[member])
    return (values - m0) / (m1 - m0)
