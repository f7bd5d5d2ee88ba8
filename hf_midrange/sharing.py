"""Work divided among the processes that a launcher started; a single process is the plain case."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np


T = TypeVar("T")


class Share(NamedTuple):
    """Which part of some work is this process's."""

    number: int = 0
    processes: int = 1

    def part(self, items: Sequence[T] | np.ndarray) -> list[T]:
        """Return this process's items: consecutive ones, as many as any other process has, or one more."""
        first, stop = (len(items) * k // self.processes for k in (self.number, self.number + 1))
        return list(items[first:stop])

    def gathered(self, value: T) -> list[T]:
        """Return what every process found, in their order. All must call this, or none returns."""
        if self.processes == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Return the sum of what every process has, of the same shape in all. All must call this, or none returns."""
        if self.processes == 1:
            return values
        import torch
        from accelerate import PartialState
        from accelerate.utils import reduce

        return reduce(torch.as_tensor(values, device=PartialState().device), reduction="sum").cpu().numpy()


ALONE = Share()


def share(distributed: bool) -> Share:
    """Return this process's share of work that all launched processes do together, or else all of it.

    Raises:
        RuntimeError: if accelerate's state does not know of the other processes; see `join_processes`.
    """
    if not distributed:
        return ALONE
    from hf_midrange.extraction.processes import join_processes

    state = join_processes()
    return Share(state.process_index, state.num_processes)
