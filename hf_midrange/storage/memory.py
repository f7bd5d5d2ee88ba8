"""How much of a data set is held at a time, and how pages of files that were read are given back.

A step reads a column block by block, so what it allocates does not grow with the rows. A memory-mapped file is another
matter: pages that were read count as resident until the system needs the room. They are given back as they pile up, so
that the peak a machine reports is what a step needs.
"""

from __future__ import annotations

import bisect
import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from datasets import Dataset, DatasetDict


WORKING_SET = "HF_MIDRANGE_WORKING_SET"
"""Environment variable: megabytes of a data set's columns that a step holds at once; 400 where it is not set."""

_DEFAULT_MEGABYTES = 400
_DONT_NEED = 4
"""MADV_DONTNEED of Linux: pages of a file that was only read are dropped, and read again where they are wanted."""
_SECONDS = 0.004

P = ParamSpec("P")
T = TypeVar("T")


def working_set() -> int:
    """Return how many bytes of a data set's columns a step may hold at once.

    Raises:
        ValueError: if the environment variable is no positive number.
    """
    text = os.environ.get(WORKING_SET, str(_DEFAULT_MEGABYTES))
    try:
        megabytes = float(text)
    except ValueError:
        megabytes = 0.0
    if not megabytes >= 1:
        raise ValueError(f"{WORKING_SET} must be a number of megabytes, at least 1, but is {text!r}")
    return int(megabytes * 1e6)


@contextmanager
def pages_returned(*datasets: object) -> Iterator[None]:
    """While inside, give back the pages of these data sets' mapped files when they exceed half of the working set.

    Does nothing for data in memory, and on systems other than Linux.
    """
    tables = [split for ds in datasets for split in _splits(ds) if split.cache_files]
    regions = _regions(tables) if sys.platform == "linux" and tables else []
    if not regions:
        yield
        return
    mapped, done = _Mapped(regions, working_set() // 2), threading.Event()
    watch = threading.Thread(target=_watch, args=(mapped, done), daemon=True)
    watch.start()
    _in_use.append(mapped)
    try:
        yield
    finally:
        with _lock:
            _in_use.remove(mapped)
        done.set()
        watch.join()  # the data sets must outlive the thread: their files may be unmapped afterwards
        del tables


def give_back() -> None:
    """Give back pages now, inside `pages_returned`: where much is read at once its watcher may come too late."""
    with _lock:  # none may leave, and its files be unmapped, while its pages are given back
        for mapped in _in_use:
            mapped.give_back_beyond_limit()


def returns_pages(step: Callable[P, T]) -> Callable[P, T]:
    """Run a step that takes data sets inside `pages_returned`."""

    @wraps(step)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> T:
        with pages_returned(*args, *kwargs.values()):
            return step(*args, **kwargs)

    return wrapped


class _Region(NamedTuple):
    """Addresses at which a file is mapped."""

    start: int
    stop: int


def _splits(ds: object) -> list[Dataset]:
    if isinstance(ds, DatasetDict):
        return list(ds.values())
    return [ds] if isinstance(ds, Dataset) else []


class _Mapped:
    """Regions of files whose pages are given back when they exceed a limit."""

    def __init__(self, regions: list[_Region], limit: int) -> None:
        self.regions, self.limit, self.floor = regions, limit, _resident_of_files()
        self.advise = ctypes.CDLL(None).madvise
        self.advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]

    def give_back_beyond_limit(self) -> None:
        if _resident_of_files() - self.floor > self.limit:
            self.give_back()
            self.floor = _resident_of_files()

    def give_back(self) -> None:
        for start, stop in self.regions:
            self.advise(start, stop - start, _DONT_NEED)


_in_use: list[_Mapped] = []
"""What the steps that are running give back."""

_lock = threading.Lock()


def _watch(mapped: _Mapped, done: threading.Event) -> None:
    while not done.wait(_SECONDS):
        mapped.give_back_beyond_limit()
    mapped.give_back()


def _resident_of_files() -> int:
    """Return the bytes of files that this process has in memory, libraries among them."""
    return int(Path("/proc/self/statm").read_text().split()[2]) * os.sysconf("SC_PAGE_SIZE")


def _regions(datasets: list[Dataset]) -> list[_Region]:
    """Return where the buffers of data sets lie in files that are mapped to be read only.

    The data sets hold these buffers, so nothing else can come to lie there while they live.
    """
    addresses = {
        buffer.address
        for ds in datasets
        for column in ds.data.table.columns
        for chunk in column.chunks
        for buffer in chunk.buffers()
        if buffer is not None and buffer.size
    }
    mapped = _mapped_files()
    starts = [region.start for region in mapped]
    found = set()
    for address in addresses:
        place = bisect.bisect_right(starts, address) - 1
        if place >= 0 and address < mapped[place].stop:
            found.add(mapped[place])
    return sorted(found)


def _mapped_files() -> list[_Region]:
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, mode, _, _, inode, *_ = line.split(maxsplit=5)
        if mode.startswith("r--") and inode != "0":
            start, _, stop = addresses.partition("-")
            found.append(_Region(int(start, 16), int(stop, 16)))
    return found
