"""Folders that commands write: nothing is in its place before all of it is finished.

What a command that died left there, the next command clears away or goes on with.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset, DatasetDict

from hf_midrange.commands.finished import FINISHED, AlreadyFinishedError, mark_finished, refuse_finished
from hf_midrange.io.datasets import DATASET_MARKERS, files_of, one_split, read_dataset, write_dataset
from hf_midrange.io.files import explained, write_atomically
from hf_midrange.io.folders import LOCK, only_writer, scratch_folder


UNFINISHED = ".unfinished"
"""Folder inside the output that everything is written into before it is moved to its place."""

_NEW, _INPUTS, _MOVED = "new", "inputs", "moved.json"


@dataclass(frozen=True)
class NewOutput:
    """The folder that a command is writing.

    Attributes:
        folder: where its files go; they are moved to their place at the end.
        place: where they will be.
        work: folder that is deleted at the end, but kept when the command dies, so that it can go on there.
    """

    folder: Path
    place: Path
    work: Path

    def read(self, path: str, split: str | None = None) -> Dataset | DatasetDict:
        """Return the dataset that `path` names; what `datasets` caches of it goes to this output, not beside it."""
        inputs = self.place / UNFINISHED / _INPUTS
        return read_dataset(path, split, links=inputs / str(len([*inputs.glob("*")])))


@dataclass(frozen=True)
class KeptSteps:
    """A folder of finished steps, whose name tells what they are made from; what is there is not done again."""

    folder: Path

    def dataset(self, name: str, make: Callable[[], Dataset]) -> Dataset:
        """Return the dataset of a step."""
        place, part = self.folder / name, self.folder / f"{name}.part"
        if not place.is_dir():
            _delete(part)
            write_dataset(make(), part)
            part.replace(place)
        return one_split(read_dataset(str(place)), str(place))


@contextmanager
def new_output(output: Path, source: str, overwrite: bool = False) -> Iterator[NewOutput]:
    """Hold the folder `output` for this command, and fill it when the block has been left without an error.

    Of several processes that a launcher started, the main one does that; what the others write is thrown away, but for
    what goes into `work`, which they share.

    Args:
        output: the folder to write.
        source: what is read, which must not be written.
        overwrite: write into a folder that has something in it already; nothing else there is deleted.

    Raises:
        AlreadyFinishedError: if this very command has written the folder before.
        OSError: if the folder cannot be written.
        ValueError: if `output` is the source itself, a file, a folder with something in it and `overwrite` is false,
            or is being written by another process.
    """
    unfinished = output / UNFINISHED
    made = NewOutput(unfinished / _NEW, output, unfinished / "work")
    if not overwrite:
        _refuse_finished(output)
    if not is_main():
        with scratch_folder() as elsewhere:
            yield NewOutput(elsewhere / _NEW, elsewhere, made.work)
        return
    _refuse_source_or_file(output, source)
    is_new = not output.exists()
    try:
        with only_writer(output, "--output"), explained(output):
            _clear_remains(output)
            _refuse_filled(output, overwrite)
            made.folder.mkdir(parents=True, exist_ok=True)
            try:
                yield made
            except BaseException:
                _clear_remains(output)
                raise
            mark_finished(made.folder, output)
            _move(made.folder, output)
            shutil.rmtree(unfinished)
    finally:
        if is_new and output.is_dir() and not any(output.iterdir()):
            output.rmdir()


def _refuse_finished(output: Path) -> None:
    """Refuse what this command has finished before; where it was killed just after, its remains are cleared first."""
    try:
        refuse_finished(output)
    except AlreadyFinishedError:
        if is_main() and ((output / UNFINISHED).exists() or (output / LOCK).exists()):
            with only_writer(output, "--output"):
                _delete(output / UNFINISHED)
        raise


def is_main() -> bool:
    """Whether this process is the one, among those that a launcher started, that writes."""
    return os.environ.get("RANK", "0") == "0"


def is_one_of_several() -> bool:
    """Whether a launcher started more processes than this one."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def _refuse_source_or_file(output: Path, source: str) -> None:
    if Path(source).exists() and output.resolve() == Path(source).resolve():
        raise ValueError(f"--output {output} is the dataset that is read; choose another folder")
    if output.is_file():
        raise ValueError(f"--output {output} is a file; give a folder")


def _refuse_filled(output: Path, overwrite: bool) -> None:
    if not overwrite and any(path.name not in (LOCK, UNFINISHED, FINISHED) for path in output.iterdir()):
        raise ValueError(f"--output {output} is not empty; choose another folder or add --overwrite")


def _clear_remains(output: Path) -> None:
    """Delete what a command that died left, but for what it can go on with."""
    unfinished = output / UNFINISHED
    if (unfinished / _MOVED).is_file():  # it died while it moved what is finished
        for name in json.loads((unfinished / _MOVED).read_text()):
            _delete(output / name)
        (unfinished / _MOVED).unlink()
    _delete(unfinished / _INPUTS)
    _delete(unfinished / _NEW)
    for path in (unfinished / "work", unfinished):
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()


def _move(new: Path, output: Path) -> None:
    """Move what is finished to its place; what makes a folder a dataset goes first and comes last."""
    added = [path.name for path in new.iterdir() if not (output / path.name).exists()]
    write_atomically(new.parent / _MOVED, json.dumps(added))
    for old in (output / FINISHED, *files_of(output)):
        old.unlink(missing_ok=True)
    for path in _ordered(new):
        _put(path, output / path.name)


def _ordered(folder: Path) -> list[Path]:
    last = (*DATASET_MARKERS, FINISHED)
    return sorted(folder.iterdir(), key=lambda path: (path.name in last, path.name == FINISHED, path.name))


def _put(path: Path, place: Path) -> None:
    if path.is_dir() and place.is_dir():
        for inner in _ordered(path):
            _put(inner, place / inner.name)
        return
    if path.is_dir() != place.is_dir():
        _delete(place)
    path.replace(place)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
