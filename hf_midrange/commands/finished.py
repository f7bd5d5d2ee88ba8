"""A command that is started again after it finished finds that out, and does nothing.

Whoever starts commands again, such as a scheduler, cannot know whether a process died just before or after its end.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from hf_midrange.io.datasets import CHECKSUMS
from hf_midrange.io.files import sha256_of, write_atomically


FINISHED = ".finished.json"
"""In an output: which command wrote it, and which files of what size."""

_MANY, _LARGE, _LONGEST = 1000, 50_000_000, 1000
"""Files in a folder, bytes in a file, and letters in a word, that are read to know them again."""

_words: ContextVar[tuple[str, ...]] = ContextVar("words of the command line", default=())


class AlreadyFinishedError(Exception):
    """The very same command has written this output before, from the same files."""


@contextmanager
def command(words: Sequence[str]) -> Iterator[None]:
    """Say for the duration of a block which command is running."""
    token = _words.set(tuple(words))
    try:
        yield
    finally:
        _words.reset(token)


def refuse_finished(output: Path) -> None:
    """Raise `AlreadyFinishedError` if the running command has written all of `output` before.

    It has if its words are the same, the files and folders that they name have not changed since, and the output has
    all its files.
    """
    if not _words.get() or not (output / FINISHED).is_file():
        return
    try:
        said = json.loads((output / FINISHED).read_text())
        whole = said["command"] == _fingerprint(output) and said["files"] == _sizes(output)
    except (ValueError, KeyError, TypeError):
        return
    if whole:
        raise AlreadyFinishedError(
            f"{output} was written by this very command before, from the same files; --overwrite does it again"
        )


def mark_finished(folder: Path, output: Path) -> None:
    """Write into `folder`, which is to become `output`, that the running command has finished."""
    if _words.get():
        facts = {"command": _fingerprint(output), "files": _sizes(folder)}
        write_atomically(folder / FINISHED, json.dumps(facts, indent=1, sort_keys=True))


def _fingerprint(output: Path) -> str:
    """Return a hash of the command's words, in which the output is left out and files stand for what is in them."""
    digest = hashlib.sha256()
    for word in _words.get():
        place = Path(word)
        named = len(word) < _LONGEST and place.exists() and place.resolve() != output.resolve()
        digest.update(_content(place).encode() if named else word.replace(str(output), "").encode() + b" ")
    return digest.hexdigest()


def _content(place: Path) -> str:
    """Return a hash of a file or folder; of large files and of many, size and time count for what is in them."""
    if (place / CHECKSUMS).is_file():  # of every file of a data set
        return sha256_of(place / CHECKSUMS)
    paths = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    few, digest = len(paths) <= _MANY, hashlib.sha256()
    for path in paths:
        facts = path.stat()
        told = sha256_of(path) if few and facts.st_size <= _LARGE else f"{facts.st_size} {facts.st_mtime_ns}"
        digest.update(f"{path.relative_to(place)} {told} ".encode())
    return digest.hexdigest()


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size of each file below a folder, hidden ones at its top left out."""
    inside = (path for path in folder.rglob("*") if not path.relative_to(folder).parts[0].startswith("."))
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in sorted(inside) if path.is_file()}
