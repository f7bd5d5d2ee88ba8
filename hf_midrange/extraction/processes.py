"""Which process this is among those that a launcher started."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, parse_flag_from_env

from hf_midrange.locking import only_writer


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


@contextmanager
def writing_together(folder: Path, option: str = "output_dir") -> Iterator[None]:
    """Hold a folder for all processes of this launch, against those of any other.

    Raises:
        OSError, ValueError: in every process, if the main one cannot have the folder.
    """
    with ExitStack() as stack:
        on_main(lambda: stack.enter_context(only_writer(folder, option)))
        yield


def on_main(action: Callable[[], object]) -> None:
    """Do something on the main process; where it fails, all processes raise, and none waits for the others."""
    state = join_processes()
    failed: list[BaseException | None] = [None]
    if state.is_main_process:
        try:
            action()
        except (OSError, ValueError) as error:
            failed = [error]
    if state.num_processes > 1:
        broadcast_object_list(failed)
    if failed[0] is not None:
        raise failed[0]
