"""Where rows come from: batches of a map-style dataset or of a stream, never across the border of a shard."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

from datasets import Dataset, IterableDataset
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from hf_midrange.extraction.inputs import Batch, Collated, Preparation
from hf_midrange.extraction.shards import START, Position


Wanted = Callable[[int], bool]
"""Whether this process is to compute the shard of that number."""


@dataclass(frozen=True)
class Cut:
    """How rows are cut."""

    shard_size: int
    batch_size: int

    def batches(self, start: int, stop: int) -> Iterator[range]:
        """Cut one shard, the rows `start` to `stop - 1`, into batches."""
        for first in range(start, stop, self.batch_size):
            yield range(first, min(first + self.batch_size, stop))

    def shards(self, rows: int) -> int:
        """Return how many shards hold `rows` rows."""
        return -(-rows // self.shard_size)


@dataclass(frozen=True)
class TableRows:
    """Rows of a map-style dataset, read and prepared in `num_workers` worker processes."""

    dataset: Dataset
    prepare: Preparation | Collated
    cut: Cut
    num_workers: int = 0

    @property
    def total(self) -> int:
        """Number of rows."""
        return len(self.dataset)

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Yield the batches of the wanted shards, in row order."""
        size = self.cut.shard_size
        ranges = [
            rows
            for number in range(self.cut.shards(self.total))
            if wanted(number)
            for rows in self.cut.batches(number * size, min((number + 1) * size, self.total))
        ]
        prepared = _Prepared(self.prepare.view(self.dataset), self.prepare, ranges)
        yield from DataLoader(prepared, batch_size=None, num_workers=self.num_workers, collate_fn=_as_is)


@dataclass
class StreamRows:
    """Rows of a stream, read and prepared in this process; `total` is known once they have all been read."""

    dataset: IterableDataset
    prepare: Preparation | Collated
    cut: Cut
    start: Position = START
    """Where reading begins: after shards that are finished."""
    total: int = field(default=0, init=False)
    passed: dict[int, Position] = field(default_factory=dict, init=False)
    """Where the stream stood after a shard, by its number, until someone takes it out."""

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Yield the batches of the wanted shards, in row order; the rows of other shards are read past."""
        columns = self.prepare.columns(self.dataset.features)
        stream = self.dataset.decode(False).select_columns(columns)
        if self.start.state:
            stream.load_state_dict(self.start.state)
        rows, size = iter(stream), self.cut.shard_size
        self.total = self.start.rows
        for number in count(self.start.shard):
            if wanted(number):
                for limits in self.cut.batches(number * size, (number + 1) * size):
                    values = list(islice(rows, len(limits)))
                    self.total += len(values)
                    if values:
                        yield self.prepare(limits.start, {name: [row[name] for row in values] for name in columns})
                self._remember(number, stream)
            else:
                self.total += sum(1 for _ in islice(rows, size))
            if self.total < (number + 1) * size:
                return

    def _remember(self, number: int, stream: IterableDataset) -> None:
        state = _state_of(stream)
        if state is not None:
            self.passed[number] = Position(number + 1, self.total, state)


@dataclass(frozen=True)
class _Prepared(TorchDataset):
    """Batches by number, as a DataLoader wants them."""

    dataset: Dataset
    prepare: Preparation | Collated
    ranges: list[range]

    def __len__(self) -> int:
        return len(self.ranges)

    def __getitem__(self, number: int) -> Batch:
        rows = self.ranges[number]
        return self.prepare(rows.start, self.dataset[rows.start : rows.stop])


def _state_of(stream: IterableDataset) -> dict[str, Any] | None:
    """Return where a stream that is being read stands; None where going on from there would lose or change rows."""
    if _buffered(stream._ex_iterable):
        return None
    try:
        return json.loads(json.dumps(stream.state_dict()))
    except TypeError:  # the state of a source that is not made of numbers and texts
        return None


def _buffered(source: object) -> bool:
    """Whether rows wait in the buffer of a shuffle, which is no part of a stream's state."""
    from datasets.iterable_dataset import BufferShuffledExamplesIterable  # an error where a release moves it

    if isinstance(source, BufferShuffledExamplesIterable):
        return True
    inner = [getattr(source, "ex_iterable", None), *(getattr(source, "ex_iterables", None) or ())]
    return any(_buffered(each) for each in inner if each is not None)


def _as_is(batch: Any) -> Any:  # noqa: ANN401 - a Batch; DataLoader believes it is a list
    return batch
