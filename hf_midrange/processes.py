"""Which process this is among those that a launcher started, and how work is divided among them."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from hf_midrange.io.folders import only_writer


if TYPE_CHECKING:  # accelerate imports torch, which the steps after extraction do without
    import torch
    from accelerate import PartialState

T = TypeVar("T")


def is_main() -> bool:
    """Whether this process is the one, among those that a launcher started, that writes."""
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Whether a launcher started more processes than this one."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def device() -> torch.device:
    """Return where this process computes: its accelerator (CUDA, XPU, MPS, NPU ...), or else the CPU.

    The CPU too where `ACCELERATE_USE_CPU` asks for it. Of several accelerators it is the one that torch has as its
    current one, which is that of the process once `join_processes` was called.
    """
    import torch
    from accelerate.utils import parse_flag_from_env

    found = torch.accelerator.current_accelerator(check_available=True)
    return torch.device("cpu") if found is None or parse_flag_from_env("ACCELERATE_USE_CPU") else found


def join_processes() -> PartialState:
    """Return accelerate's state, set up for several CPU processes too.

    `PartialState()` alone looks for accelerators only and takes each of several CPU processes for a single one.

    Raises:
        RuntimeError: if the state was set up before and does not know of the other processes: each would do all the
            work, in the same folder.
    """
    from accelerate import PartialState

    state = PartialState(cpu=device().type == "cpu")
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if state.num_processes != launched:
        raise RuntimeError(
            f"{launched} processes were launched but accelerate's state knows of {state.num_processes}; "
            "set it up with `Accelerator(cpu=True)` or `PartialState(cpu=True)`, or call `extract` first"
        )
    return state


def gathered(values: list[T]) -> list[T]:
    """Return the values of all processes in their order. All must call this, or none returns."""
    from accelerate.utils import gather_object

    return gather_object(values)


def is_mine(number: int) -> bool:
    """Whether this process is to compute the shard of that number."""
    from accelerate import PartialState

    state = PartialState()
    return number % state.num_processes == state.process_index


@contextmanager
def writing_together(folder: Path, option: str = "output_dir", leads: bool | None = None) -> Iterator[None]:
    """Hold a folder for all processes of this launch, against those of any other.

    Args:
        folder: what is written into.
        option: what the caller calls it.
        leads: whether this process holds it for the others; None: the main one does.

    Raises:
        OSError, ValueError: in every process, if one that leads cannot have its folder.
    """
    with ExitStack() as stack:
        on_leaders(lambda: stack.enter_context(only_writer(folder, option)), leads)
        yield
        join_processes().wait_for_everyone()  # nobody lets go of the folder while another still reads or writes there


def on_leaders(action: Callable[[], object], leads: bool | None = None) -> None:
    """Do something on the main process, or those that lead; where it fails, all processes raise, and none waits."""
    state = join_processes()
    failed: list[BaseException | None] = [None]
    if state.is_main_process if leads is None else leads:
        try:
            action()
        except (OSError, ValueError) as error:
            failed = [error]
    if state.num_processes > 1:
        failed = gathered(failed)
    first = next((error for error in failed if error is not None), None)
    if first is not None:
        raise first


def leads_folder(folder: Path, alone: bool) -> bool:
    """Return whether this process is the first of those that write into its folder; folders may differ.

    Args:
        folder: what this process writes into.
        alone: whether no other process may write there.

    Raises:
        ValueError: in every process, if two write into one folder and should not.
    """
    state = join_processes()
    if state.num_processes == 1:
        return True
    mine = (socket.gethostname(), str(folder.resolve()))
    places = gathered([mine])
    if alone and len(set(places)) < len(places):
        raise ValueError(
            f"each process reads a part of the stream of its own and needs an `output_dir` of its own, but several "
            f"are given {folder}; put the rank into its name"
        )
    return places.index(mine) == state.process_index


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
        return gathered([value])


ALONE = Share()


def share(distributed: bool) -> Share:
    """Return this process's share of work that all launched processes do together, or else all of it.

    Raises:
        RuntimeError: if accelerate's state does not know of the other processes; see `join_processes`.
    """
    if not distributed:
        return ALONE
    state = join_processes()
    return Share(state.process_index, state.num_processes)
