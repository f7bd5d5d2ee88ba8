"""Temporary folders that do not pile up where processes die."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hf_midrange.storage.locking import LOCK, only_writer


_PREFIX = "hf-midrange-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Yield an empty folder, which is deleted at the end; those that dead processes left are deleted first."""
    for left in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        if (left / LOCK).is_file():
            _delete_if_dead(left)
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as temporary, only_writer(Path(temporary)):
        folder = Path(temporary) / "files"
        folder.mkdir()
        yield folder


def _delete_if_dead(folder: Path) -> None:
    try:
        with only_writer(folder):
            for path in folder.iterdir():
                if path.name != LOCK:
                    shutil.rmtree(path)
        folder.rmdir()
    except (OSError, ValueError):  # it is in use, or of another user
        return
