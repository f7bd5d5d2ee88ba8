"""What costly sources measured, on disk: rows by rows, each part whole or absent, and never computed twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from hf_midrange.storage.files import (
    DamagedFileError,
    intact,
    read_sealed,
    sealed,
    sha256_of,
    write_atomically,
)


_AGAIN = "call `annotate` again with the same arguments: it measures what is missing and nothing else"


@dataclass(frozen=True)
class MeasuredRows:
    """A folder with the columns measured of one dataset by one source.

    The part that begins with row 2048 is the table `rows-000002048.arrow` and, written after it, `rows-000002048.json`
    with the checksum of the table.
    """

    folder: Path

    def write(self, first: int, table: pa.Table) -> None:
        """Write the rows from number `first` on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path, record = self._paths(first)
        facts = {"first": first, "rows": table.num_rows, "sha256": write_atomically(path, _stream(table))}
        write_atomically(record, sealed(facts))

    def is_finished(self, first: int) -> bool:
        """Whether the rows from number `first` on are there, as they were written."""
        try:
            self._verify(first)
        except (FileNotFoundError, DamagedFileError):
            return False
        return True

    def read(self, first: int, processes: int) -> pa.Table:
        """Return the rows from number `first` on, memory-mapped.

        Raises:
            FileNotFoundError: if they are not there; another of `processes` was to measure them.
            DamagedFileError: if they are not what was written.
        """
        path, record = self._paths(first)
        if not (path.is_file() and record.is_file()):
            raise FileNotFoundError(
                f"{path}, a part of another of {processes} processes, is missing; all processes must be given the "
                f"same rows and sources, and an `output_dir` that they share; then {_AGAIN}"
            )
        with intact(path, "table of measured rows", f"delete it, and {_AGAIN}"):
            return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()

    def _verify(self, first: int) -> None:
        path, record = self._paths(first)
        what, remedy = "record of measured rows", f"delete it, and {_AGAIN}"
        if not (path.is_file() and record.is_file()):
            raise FileNotFoundError(f"{path} is missing; {_AGAIN}")
        with intact(record, what, remedy):
            if read_sealed(record, what, remedy)["sha256"] != sha256_of(path):
                raise DamagedFileError(f"{path} is not what was written; delete it, and {_AGAIN}")

    def _paths(self, first: int) -> tuple[Path, Path]:
        stem = self.folder / f"rows-{first:09d}"
        return stem.with_suffix(".arrow"), stem.with_suffix(".json")


def _stream(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
