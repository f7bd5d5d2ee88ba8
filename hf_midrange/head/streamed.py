"""Embeddings as the solver reads them, without their being in memory: a block is read from disk when it is wanted."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from hf_midrange.io.blocks import Matrix


BLOCK = 1024


@dataclass(frozen=True)
class Streamed:
    """Some rows of a wide column, used like the tensor `(rows, d)` that they would be."""

    values: Matrix
    rows: np.ndarray
    """Row numbers, in order."""
    device: torch.device
    dtype: torch.dtype = torch.float32

    @property
    def shape(self) -> torch.Size:
        """Rows and width."""
        return torch.Size((len(self.rows), self.values.shape[1]))

    def __len__(self) -> int:
        return len(self.rows)

    def numel(self) -> int:
        """Return the number of values."""
        return self.shape.numel()

    def __getitem__(self, some: slice) -> torch.Tensor:
        """Return consecutive ones of the rows."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")  # nothing writes to it
            return torch.as_tensor(self.values[self.rows[some]], device=self.device).to(self.dtype)

    def split(self, size: int = BLOCK) -> Iterator[torch.Tensor]:
        """Yield the rows in order, `size` at a time."""
        for first in range(0, len(self), size):
            yield self[first : first + size]

    def __matmul__(self, other: torch.Tensor) -> torch.Tensor:
        return torch.cat([block @ other for block in self.split()])


Embeddings = torch.Tensor | Streamed
