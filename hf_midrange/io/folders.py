"""Folders with one writer, temporary ones, and those that are whole or absent.

What is written stands beside its place until all of it is finished. What a process that died left there, the next one
clears away or goes on with.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, DatasetDict
from filelock import FileLock, Timeout

from hf_midrange.io.datasets import DATASET_MARKERS, files_of, one_split, read_dataset
from hf_midrange.io.files import explained, remove_unfinished, to_json, write_atomically


LOCK = ".in-use"
"""Name of the file that is locked; it says by whom."""

FINISHED = ".finished.json"
"""In an output: what it was made from, and its files with their sizes."""

_NEW, _INPUTS, _WORK = "new", "inputs", "work"


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
    try:
        with explained(folder):
            _sign(path)
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
    path.write_text(to_json(facts))


def _holder(path: Path) -> str:
    """Return who holds a lock, as its file says."""
    try:
        facts = json.loads(path.read_text())
        mine = (facts["pid"], facts["host"]) == (os.getpid(), socket.gethostname())
        return "this very process" if mine else f"process {facts['pid']} on {facts['host']} (since {facts['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # nobody does, or it is just being signed
        return "another process"


class AlreadyFinishedError(Exception):
    """The output was made before, from the same things."""


@dataclass(frozen=True)
class NewFolder:
    """A folder that is being written.

    Attributes:
        folder: where its files go; they are moved to their place at the end.
        work: folder that is deleted at the end, but kept when the process dies, so that the next can go on there.
        inputs: folder for what `datasets` caches of what is read.
    """

    folder: Path
    work: Path
    inputs: Path

    def read(self, path: str, split: str | None = None, encode: bool = True) -> Dataset | DatasetDict:
        """Return the dataset that `path` names; what `datasets` caches of it goes here, not beside it."""
        return read_dataset(path, split, links=self.inputs / str(len([*self.inputs.glob("*")])), encode=encode)

    def rows(self, path: str, split: str | None = None, encode: bool = True) -> Dataset:
        """Return the only split of what `path` names, or the one that is asked for."""
        return one_split(self.read(path, split, encode), path)


def written_once(place: Path, write: Callable[[Path], None]) -> None:
    """Have a folder written, whole or not at all, unless it is there; `write` is given the path to write to."""
    if place.is_dir():
        return
    part = place.with_name(f"{place.name}.part")
    _delete(part)  # of a process that died
    write(part)
    part.replace(place)


def unfinished(place: Path) -> Path:
    """Return the folder beside `place` that is there while it is being written; the name is of a bounded length."""
    place = place.resolve()
    return place.parent / f".unfinished-{hashlib.sha256(place.name.encode()).hexdigest()[:16]}"


@contextmanager
def new_folder(
    place: Path, *, key: str | None = None, overwrite: bool = False, leads: bool = True, option: str = "output_dir"
) -> Iterator[NewFolder]:
    """Hold the folder `place` for this process, and fill it when the block has been left without an error.

    Args:
        place: the folder to write.
        key: tells what it is made from, so that what is finished need not be made again; None: it always is.
        overwrite: write into a folder that has something in it already; nothing else there is deleted.
        leads: whether this process writes. What others of the same launch write is thrown away, but for what goes into
            `work`, which they share.
        option: what the caller calls `place`.

    Raises:
        AlreadyFinishedError: if the folder was made before, with this key.
        OSError: if the folder cannot be written.
        ValueError: if `place` is a file, has something in it and `overwrite` is false, or is being written by another
            process.
    """
    beside = unfinished(place)
    if not leads:
        _refuse(place, key, overwrite, option)
        with scratch_folder() as elsewhere:
            yield NewFolder(elsewhere / _NEW, beside / _WORK, elsewhere / _INPUTS)
        return
    made = NewFolder(beside / _NEW, beside / _WORK, beside / _INPUTS)
    _refuse_foreign(beside, option)
    try:
        with explained(place), only_writer(beside, option, place):
            _delete(made.folder)
            _delete(made.inputs)
            try:
                _refuse(place, key, overwrite, option)
                made.folder.mkdir()
                yield made
            except AlreadyFinishedError:
                _delete(made.work)  # its process died just after the end
                raise
            finally:
                _delete(made.inputs)
            if key is not None:
                facts = {"key": key, "files": _sizes(made.folder)}
                write_atomically(made.folder / FINISHED, to_json(facts, indent=1))
            _move(made.folder, place)
            _delete(made.work)
    finally:
        _delete(made.folder)
        with suppress(OSError):  # there is work to go on with, or another process came in between
            beside.rmdir()


def _refuse_foreign(beside: Path, option: str) -> None:
    """Raise where another user may have put links: in a folder for temporary files that all share, for example."""
    known = hasattr(os, "getuid") and beside.exists()
    if beside.is_symlink() or (known and beside.stat().st_uid != os.getuid()):
        raise ValueError(f"{beside} is a link or another user's; delete it, or give another `{option}`")


def _refuse(place: Path, key: str | None, overwrite: bool, option: str) -> None:
    if place.is_file():
        raise ValueError(f"{option} {place} is a file; give a folder")
    if place.is_symlink() and not place.exists():
        raise ValueError(f"{option} {place} is a link to what is not there; give a folder")
    if overwrite or not place.is_dir():
        return
    if key is not None and _is_finished(place, key):
        raise AlreadyFinishedError(f"{place} was made before, from the same files and options")
    if any(place.iterdir()):
        raise ValueError(f"{option} {place} is not empty; choose another folder or add --overwrite")


def _is_finished(place: Path, key: str) -> bool:
    """Whether a folder has all the files that were written with this key."""
    if not (place / FINISHED).is_file():
        return False
    try:
        told = json.loads((place / FINISHED).read_text())
    except ValueError:
        return False
    return isinstance(told, dict) and told.get("key") == key and told.get("files") == _sizes(place)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of each file below a folder, hidden ones at its top left out."""
    inside = (path for path in folder.rglob("*") if not path.relative_to(folder).parts[0].startswith("."))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(inside) if path.is_file()}


def _move(new: Path, place: Path) -> None:
    """Move what is finished to its place, at once if that is free; else, what makes a folder a dataset comes last."""
    with suppress(OSError):  # something is there, or it is a mounted disk
        new.replace(place)
        return
    for old in (place / FINISHED, *files_of(place)):
        old.unlink(missing_ok=True)
    _merge(new, place)


def _merge(new: Path, place: Path) -> None:
    last = (*DATASET_MARKERS, FINISHED)
    for path in sorted(new.iterdir(), key=lambda path: (path.name in last, path.name == FINISHED, path.name)):
        there = place / path.name
        if path.is_dir() and there.is_dir() and not there.is_symlink():
            _merge(path, there)
            continue
        if path.is_dir() or there.is_dir() or there.is_symlink():
            _delete(there)
        shutil.move(path, there)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
