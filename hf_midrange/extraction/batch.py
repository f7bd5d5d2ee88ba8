"""Rows on their way into the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass
class Batch:
    """Rows `first` to `first + count - 1`, ready for the model."""

    first: int
    count: int
    rows: np.ndarray
    """Numbers of the readable rows, in order."""
    inputs: Mapping[str, torch.Tensor] | None
    """Model inputs of the readable rows; None if there are none."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Row number -> what is wrong with it."""
