"""Files that are whole or absent, and that say when they are no longer what was written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, overload

from pydantic import TypeAdapter, ValidationError


Made = TypeVar("Made")

FORMAT = "format"
"""The key under which every JSON file of ours holds the number of its format."""

_OLD_CHECKSUM = "checksum"
_UNFINISHED = "unfinished.tmp"
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a disk without room."""
_IS_FULL = "the disk is full"


class DamagedFileError(ValueError):
    """A file is not what was written: cut short, changed, or of another kind."""


def write_atomically(path: Path, content: bytes | str) -> str:
    """Write a file that is either absent or whole, also after a power cut; return its sha256.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the message says what to do.
    """
    content = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{_UNFINISHED}")
    with explained(path):
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return hashlib.sha256(content).hexdigest()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Say of a full disk or a folder that cannot be written what can be done, also where a library hides the error."""
    try:
        yield
    except (OSError, ValueError) as error:
        hidden = next((each for each in _chain(error) if isinstance(each, OSError) and each.errno in FULL), None)
        if hidden is not None and _IS_FULL not in str(error):
            raise OSError(
                hidden.errno,
                f"{_IS_FULL} ({hidden.strerror}); free some space and run the same command or call again: what was "
                "finished is kept",
                str(path),
            ) from error
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            raise OSError(
                error.errno, f"cannot be written ({error.strerror}); choose a folder that can", str(path)
            ) from error
        raise


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that stand behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def remove_unfinished(folder: Path) -> None:
    """Delete what processes that died left of `write_atomically`, in a folder and the folders in it.

    Nobody else may be writing there.
    """
    for pattern in (f"*.{_UNFINISHED}", f"*/*.{_UNFINISHED}"):
        for path in folder.glob(pattern):
            if not path.parent.is_symlink():
                path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Return the checksum of a file, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_json(facts: Mapping[str, Any], *, number: int = 1, indent: int | None = None, allow_nan: bool = True) -> str:
    """Return JSON text of `facts` with the number of their format, which `read_json` looks at."""
    return json.dumps({FORMAT: number, **facts}, indent=indent, allow_nan=allow_nan)


def read_json(path: Path, what: str, remedy: str, *, reads: Collection[int] = (1,)) -> dict[str, Any]:
    """Return the mapping in a JSON file, without the number of its format.

    Version 0.1.0 wrote no number into most files, and a checksum of the file into itself: these count as format 1.

    Args:
        path: the file.
        what: what it should be, such as "file of bands".
        remedy: what to do if it is not.
        reads: the formats that can be read; the highest is the one that is written.

    Raises:
        DamagedFileError: if the file holds anything else.
        ValueError: if it is of another format.
    """
    found = _mapping_in(path, what, remedy)
    number = found.pop(FORMAT, 1)
    if number in reads:
        return found
    is_newer = isinstance(number, int) and number > max(reads)
    known = " and ".join(str(one) for one in sorted(reads))
    way = "upgrade hf_midrange to read it" if is_newer else remedy
    raise ValueError(f"{path} is a {what} of format {number!r}; this version reads format {known}; {way}")


def _mapping_in(path: Path, what: str, remedy: str) -> dict[str, Any]:
    with intact(path, what, remedy):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except RecursionError as error:
            raise ValueError("it is nested too deeply") from error
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__} where a mapping is expected")
        found.pop(_OLD_CHECKSUM, None)
        return found


@contextmanager
def intact(path: object, what: str, remedy: str) -> Iterator[None]:
    """Turn a value or key that a file should not hold, or lacks, into one line that says what to do."""
    try:
        yield
    except DamagedFileError:
        raise
    except (ValueError, KeyError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise DamagedFileError(f"{path} is no whole {what} ({' '.join(reason.split())[:300]}); {remedy}") from error


@overload
def from_json(kind: type[Made], plain: object, name: str = "") -> Made: ...
@overload
def from_json(kind: UnionType, plain: object, name: str = "") -> Any: ...  # noqa: ANN401 - one of several types
def from_json(kind: Any, plain: object, name: str = "") -> Any:  # noqa: ANN401
    """Return the object of a class or annotation that JSON gave `plain` for; every value is checked against its type.

    It takes what `dataclasses.asdict` and JSON make of a dataclass; lists become tuples where a tuple is declared.

    Args:
        kind: a dataclass, or any annotation, such as `tuple[str, ...] | None`.
        plain: JSON values.
        name: what the value is called in messages, where it is not a dataclass.

    Raises:
        ValueError: if a value is of another type than declared, missing or unknown, or the class refuses it; the
            message names the field.
    """
    if is_dataclass(kind) and isinstance(plain, Mapping):
        unknown = sorted(set(plain) - {field.name for field in fields(kind)})
        if unknown:
            raise ValueError(f"{getattr(kind, '__name__', kind)} has no field {unknown[0]!r}")
    try:
        return _adapter(kind).validate_json(json.dumps(plain), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or name
        told = f"{where!r}: {first['msg']}" if where else first["msg"]
        raise ValueError(f"{told} (it is {str(first['input'])[:50]!r})") from error


@lru_cache
def _adapter(kind: Any) -> TypeAdapter[Any]:  # noqa: ANN401 - any annotation
    return TypeAdapter(kind)
