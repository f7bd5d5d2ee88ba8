"""What a command writes: a folder that is whole or absent, and that the very same command need not write again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import typer
from huggingface_hub.constants import HF_HUB_CACHE
from typer.core import TyperCommand

from hf_midrange import __version__
from hf_midrange.io.files import sha256_of
from hf_midrange.io.folders import NewFolder, new_folder
from hf_midrange.processes import is_main


_MANY, _LARGE, _LONGEST = 1000, 50_000_000, 1000
"""Files in a folder, bytes in a file, and letters in a word, that are read to know them again."""

_NOT_MADE_FROM = ("output", "overwrite", "config")
"""Parameters that say nothing of what an output is made from; a file of flags does by the flags."""

_running: ContextVar[typer.Context | None] = ContextVar("the command that is running", default=None)


class Command(TyperCommand):
    """A command that its outputs know."""

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401 - versions of typer have contexts of different classes
        """Run the command."""
        token = _running.set(ctx)
        try:
            return super().invoke(ctx)
        finally:
            _running.reset(token)


@contextmanager
def new_output(output: Path, source: str, overwrite: bool = False) -> Iterator[NewFolder]:
    """Hold the folder `output` for the command that is running; see `new_folder`.

    It was finished before if the same command of the same version of this package had the same parameters, wherever
    they were given, and every file and folder that they name is unchanged.

    Args:
        output: the folder to write.
        source: what is read, which must not be written.
        overwrite: write into a folder that has something in it already.

    Raises:
        AlreadyFinishedError: if this very command has written the folder before.
        OSError: if the folder cannot be written.
        ValueError: if `output` is the source itself, and as `new_folder` does.
    """
    if Path(source).exists() and output.resolve() == Path(source).resolve():
        raise ValueError(f"--output {output} is the dataset that is read; choose another folder")
    with new_folder(output, key=_key(), overwrite=overwrite, leads=is_main(), option="--output") as new:
        yield new


def _key() -> str | None:
    """Return a hash of what the command that is running makes its output from."""
    context = _running.get()
    if context is None:
        return None
    parameters = {name: value for name, value in context.params.items() if name not in _NOT_MADE_FROM}
    facts = [__version__, context.command.name, _known(parameters)]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _known(value: Any) -> Any:  # noqa: ANN401 - any parameter; JSON comes back
    """Return a value beside the content of every file and folder that it names."""
    if isinstance(value, Mapping):
        return {str(name): _known(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_known(one) for one in value]
    if not isinstance(value, str | Path):
        return value
    parts = {str(value), *re.split("[:,=]", str(value))}  # as in SOURCE:MODEL
    places = sorted(part for part in parts if 0 < len(part) < _LONGEST and Path(part).exists())
    return [str(value), [_content(Path(place)) for place in places], [_revision(part) for part in sorted(parts)]]


def _revision(name: str) -> list[str]:
    """Return the commits at which the cache of the Hub holds a model or dataset."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name):
        return []
    folders = (Path(HF_HUB_CACHE) / f"{kind}--{name.replace('/', '--')}" for kind in ("models", "datasets"))
    return [ref.read_text() for folder in folders if (ref := folder / "refs" / "main").is_file()]


def _content(place: Path) -> str:
    """Return a hash of a file or folder; of large files and of many, size and time count for what is in them."""
    paths = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    few, digest = len(paths) <= _MANY, hashlib.sha256()
    for path in paths:
        facts = path.stat()
        told = sha256_of(path) if few and facts.st_size <= _LARGE else f"{facts.st_size} {facts.st_mtime_ns}"
        digest.update(f"{path.relative_to(place)} {told} ".encode())
    return digest.hexdigest()
