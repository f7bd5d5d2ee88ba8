"""Which process this is among those that a launcher started."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env


def join_processes() -> PartialState:
    """Return accelerate's state, set up for several CPU processes too.

    `PartialState()` alone looks for accelerators only and takes each of several CPU processes for a single one.

    Raises:
        RuntimeError: if the state was set up before and does not know of the other processes: each would do all the
            work, in the same folder.
    """
    on_cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    state = PartialState(cpu=on_cpu)
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise RuntimeError(
            f"{launched} processes were launched but accelerate's state knows of {state.num_processes}; "
            "set it up with `Accelerator(cpu=True)` or `PartialState(cpu=True)`, or call `extract` first"
        )
    return state


def is_mine(number: int) -> bool:
    """Whether this process is to compute the shard of that number."""
    state = PartialState()
    return number % state.num_processes == state.process_index
