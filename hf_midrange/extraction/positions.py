"""Where a stream stood after each finished shard, so that a run that goes on reads no row again before that."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from datasets import IterableDataset

from hf_midrange.extraction.shards import ShardFolder
from hf_midrange.io.files import from_json, intact, read_json, sealed, write_atomically


class Position(NamedTuple):
    """A place between two shards."""

    shard: int
    """The next shard."""
    rows: int
    """Rows before it."""
    state: dict[str, Any]
    """What `IterableDataset.load_state_dict` takes."""


START = Position(0, 0, {})


@dataclass(frozen=True)
class Positions:
    """The file `shard-000007.position` beside shard 7 says where the stream stood after it."""

    store: ShardFolder

    def write(self, position: Position) -> None:
        """Remember where the stream stands."""
        write_atomically(self._path(position.shard - 1), sealed(position._asdict()))

    def last(self) -> Position:
        """Return the furthest position before which all shards are finished; the start if there is none."""
        found, number = START, 0
        while self.store.is_finished(number):
            found = self._read(number) or found
            number += 1
        return found

    def _read(self, number: int) -> Position | None:
        path = self._path(number)
        if not path.is_file():
            return None
        what, remedy = "position of a stream", "delete it: rows are then read again, and nothing is lost"
        kept = read_json(path, what, remedy)
        with intact(path, what, remedy):
            return Position(
                number + 1, from_json(int, kept["rows"], "rows"), from_json(dict[str, Any], kept["state"], "state")
            )

    def _path(self, number: int) -> Path:
        return self.store.folder / f"shard-{number:06d}.position"


def state_of(stream: IterableDataset) -> dict[str, Any] | None:
    """Return where a stream that is being read stands; None where going on from there would lose or change rows."""
    if _buffered(stream._ex_iterable):
        return None
    try:
        return json.loads(json.dumps(stream.state_dict()))
    except TypeError:  # the state of a source that is not made of numbers and texts
        return None


def _buffered(source: object) -> bool:
    """Whether rows wait in the buffer of a shuffle, which is no part of a stream's state."""
    if type(source).__name__ == "BufferShuffledExamplesIterable":
        return True
    inner = [getattr(source, "ex_iterable", None), *(getattr(source, "ex_iterables", None) or ())]
    return any(_buffered(each) for each in inner if each is not None)
