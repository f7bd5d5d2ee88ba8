"""Folders that are whole or absent: nothing is in its place before all of it is finished.

What a process that died left there, the next one clears away or goes on with.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, DatasetDict

from hf_midrange.io.datasets import DATASET_MARKERS, files_of, one_split, read_dataset, write_dataset
from hf_midrange.io.files import explained, write_atomically
from hf_midrange.io.folders import LOCK, only_writer, scratch_folder


UNFINISHED = ".unfinished"
"""Folder inside the output that everything is written into before it is moved to its place."""

FINISHED = ".finished.json"
"""In an output: what it was made from, and its files with their sizes."""

_NEW, _INPUTS, _WORK, _MOVED = "new", "inputs", "work", "moved.json"


class AlreadyFinishedError(Exception):
    """The output was made before, from the same things."""


@dataclass(frozen=True)
class NewFolder:
    """A folder that is being written.

    Attributes:
        folder: where its files go; they are moved to their place at the end.
        place: where they will be.
        work: folder that is deleted at the end, but kept when the process dies, so that the next can go on there.
    """

    folder: Path
    place: Path
    work: Path

    def read(self, path: str, split: str | None = None) -> Dataset | DatasetDict:
        """Return the dataset that `path` names; what `datasets` caches of it goes to this folder, not beside it."""
        inputs = self.place / UNFINISHED / _INPUTS
        return read_dataset(path, split, links=inputs / str(len([*inputs.glob("*")])))


def kept(place: Path, make: Callable[[], Dataset]) -> Dataset:
    """Return the dataset saved in a folder whose name tells what it is made from; it is made if it is not there."""
    written_once(place, lambda part: write_dataset(make(), part))
    return one_split(read_dataset(str(place)), str(place))


def written_once(place: Path, write: Callable[[Path], None]) -> None:
    """Have a folder written, whole or not at all, unless it is there; `write` is given the path to write to."""
    if place.is_dir():
        return
    part = place.with_name(f"{place.name}.part")
    _delete(part)  # of a process that died
    write(part)
    part.replace(place)


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
        ValueError: if `place` is a file, has something in it and `overwrite` is false, has links where this package
            keeps its own files, or is being written by another process.
    """
    unfinished = place / UNFINISHED
    made = NewFolder(unfinished / _NEW, place, unfinished / _WORK)
    if place.is_file():
        raise ValueError(f"{option} {place} is a file; give a folder")
    finished = not overwrite and _is_finished(place, key)
    if not leads and not finished:
        with scratch_folder() as elsewhere:
            yield NewFolder(elsewhere / _NEW, elsewhere, made.work)
        return
    is_new = not place.exists()
    try:
        if leads:
            with only_writer(place, option), explained(place):
                _refuse_links(place)
                if not finished:
                    _refuse_filled(place, overwrite, option)
                    yield from _filled(made, key)
                else:
                    _delete(unfinished)  # it died just after its end
    finally:
        if is_new and place.is_dir() and not any(place.iterdir()):
            place.rmdir()
    if finished:
        raise AlreadyFinishedError(f"{place} was made before, from the same files and options")


def _filled(made: NewFolder, key: str | None) -> Iterator[NewFolder]:
    _clear_remains(made.place)
    made.folder.mkdir(parents=True, exist_ok=True)
    try:
        yield made
    except BaseException:
        _clear_remains(made.place)
        raise
    if key is not None:
        facts = {"key": key, "files": _sizes(made.folder)}
        write_atomically(made.folder / FINISHED, json.dumps(facts, indent=1, sort_keys=True))
    _move(made.folder, made.place)
    shutil.rmtree(made.place / UNFINISHED)


def _is_finished(place: Path, key: str | None) -> bool:
    """Whether a folder has all the files that were written with this key."""
    if key is None or not (place / FINISHED).is_file():
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


def _refuse_links(place: Path) -> None:
    """Raise where a link stands for one of our own files: what it leads to is not ours to delete or to write."""
    unfinished = place / UNFINISHED
    ours = (place / FINISHED, unfinished, *(unfinished / name for name in (_NEW, _INPUTS, _WORK, _MOVED)))
    for path in ours:
        if path.is_symlink():
            raise ValueError(f"{path} is a link, which no output of ours has; delete it")


def _refuse_filled(place: Path, overwrite: bool, option: str) -> None:
    ours = (LOCK, UNFINISHED, FINISHED, *_moved(place))
    if not overwrite and any(path.name not in ours for path in place.iterdir()):
        raise ValueError(f"{option} {place} is not empty; choose another folder or add --overwrite")


def _moved(place: Path) -> list[str]:
    """Return the names that a process that died had begun to move to their place.

    Raises:
        ValueError: if the list is not one of plain names; nothing is deleted then.
    """
    path = place / UNFINISHED / _MOVED
    if not path.is_file():
        return []
    names = json.loads(path.read_text())
    if not isinstance(names, list) or not all(_is_plain(name) for name in names):
        raise ValueError(f"{path} is not a list of names in {place}; delete {path.parent}")
    return names


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


def _clear_remains(place: Path) -> None:
    """Delete what a process that died left, but for what the next can go on with."""
    unfinished = place / UNFINISHED
    for name in _moved(place):
        _delete(place / name)
    for name in (_MOVED, _INPUTS, _NEW):
        _delete(unfinished / name)
    for path in (unfinished / _WORK, unfinished):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _move(new: Path, place: Path) -> None:
    """Move what is finished to its place; what makes a folder a dataset goes first and comes last."""
    added = [path.name for path in new.iterdir() if not (place / path.name).exists()]
    write_atomically(new.parent / _MOVED, json.dumps(added))
    for old in (place / FINISHED, *files_of(place)):
        old.unlink(missing_ok=True)
    for path in _ordered(new):
        _put(path, place / path.name)


def _ordered(folder: Path) -> list[Path]:
    last = (*DATASET_MARKERS, FINISHED)
    return sorted(folder.iterdir(), key=lambda path: (path.name in last, path.name == FINISHED, path.name))


def _put(path: Path, place: Path) -> None:
    if path.is_dir() and place.is_dir() and not place.is_symlink():
        for inner in _ordered(path):
            _put(inner, place / inner.name)
        return
    if path.is_dir() != place.is_dir() or place.is_symlink():
        _delete(place)
    path.replace(place)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
