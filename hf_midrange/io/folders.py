"""Folders with one writer, and temporary ones."""

from __future__ import annotations

import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from hf_midrange.io.files import explained, remove_unfinished


LOCK = ".in-use"
"""Name of the file that is locked; it says by whom."""


@contextmanager
def only_writer(folder: Path, option: str = "output_dir", named: Path | None = None) -> Iterator[None]:
    """Make the folder if need be and hold it against everyone else who asks, until the block is left.

    What a process that died was just writing there is deleted.

    The operating system keeps the lock and drops it when the process ends in whatever way, so there is never a stale
    one.

    Args:
        folder: what is written into.
        option: what the caller calls it.
        named: what messages name in its place.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if it is held; the message names process and machine.
    """
    path = folder / LOCK
    lock = FileLock(path)
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        holder = _holder(path)  # read first: older versions of filelock empty the file that they ask for
        _acquire(lock, path, option, holder, named or folder)
        _sign(path)
    try:
        remove_unfinished(folder)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder that no other user can enter, and delete it at the end."""
    with tempfile.TemporaryDirectory(prefix="hf-midrange-") as folder:
        yield Path(folder)


def _acquire(lock: FileLock, path: Path, option: str, holder: str, named: Path) -> None:
    if path.is_symlink():
        raise ValueError(f"{path} is a link, which no lock of ours is; delete it, or give another `{option}`")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise ValueError(
            f"{named} is being written by {holder}; wait until it has ended, or give another `{option}`. "
            "A process that died holds nothing"
        ) from error


def _sign(path: Path) -> None:
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    path.write_text(json.dumps(facts))


def _holder(path: Path) -> str:
    """Return who holds a lock, as its file says."""
    try:
        facts = json.loads(path.read_text())
        mine = (facts["pid"], facts["host"]) == (os.getpid(), socket.gethostname())
        return "this very process" if mine else f"process {facts['pid']} on {facts['host']} (since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # nobody does, or it is just being signed
        return "another process"
