"""One writer a folder: a lock that names its holder and that a dead process cannot keep."""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_midrange.storage.files import explained, remove_unfinished


LOCK = ".in-use"
"""Name of the file that is locked; it says by whom."""

_ALREADY_HELD = (errno.EACCES, errno.EAGAIN)
_held: set[str] = set()
_guard = threading.Lock()


@contextmanager
def only_writer(folder: Path, option: str = "output_dir") -> Iterator[None]:
    """Make the folder if need be and hold it against every other process that asks, until the block is left.

    What a process that died was just writing there is deleted.

    The operating system keeps the lock (POSIX record locks, which network file systems know too) and drops it when the
    process ends in whatever way, so there is never a stale one; workers that this process starts do not inherit it.

    Args:
        folder: what is written into.
        option: what the caller calls it.

    Raises:
        OSError: if the folder cannot be written.
        ValueError: if another process holds it; the message names process and machine.
    """
    with explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        name = str(folder.resolve())
        with _guard:
            if name in _held:
                raise ValueError(f"{folder} is being written by this very process; give another `{option}`")
            descriptor = _locked(folder / LOCK, option)
            _held.add(name)
    try:
        remove_unfinished(folder)
        yield
    finally:
        with _guard:
            _held.discard(name)
            (folder / LOCK).unlink(missing_ok=True)
            os.close(descriptor)


def _locked(path: Path, option: str) -> int:
    """Return an open descriptor of a lock file that this process holds, and whose content says so."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            _lock(descriptor, path, option)
            if _same_file(descriptor, path):  # else its last holder removed it in between
                _sign(descriptor)
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _lock(descriptor: int, path: Path, option: str) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _ALREADY_HELD:
            warnings.warn(
                f"{path.parent} cannot be locked ({error.strerror}); see to it that nothing else writes there",
                stacklevel=2,
            )
            return
        raise ValueError(
            f"{path.parent} is being written by {_holder(path)}; wait until it has ended, or give another `{option}`. "
            "A process that died holds nothing"
        ) from error


def _same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _sign(descriptor: int) -> None:
    facts = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    os.ftruncate(descriptor, 0)
    os.write(descriptor, json.dumps(facts).encode())


def _holder(path: Path) -> str:
    try:
        facts = json.loads(path.read_text())
        return f"process {facts['pid']} on {facts['host']} (since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is just being signed
        return "another process"
