"""From rows to batches of model inputs: decoded, in RGB, transformed or tokenised; or collated, if inputs already.

A row that cannot be read is named, never lost. No batch reaches across the border of a shard.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, islice
from os import PathLike, fspath
from typing import Any

import numpy as np
import timm.data
import torch
from datasets import Dataset, Features, IterableDataset, Value
from datasets import Image as ImageFeature
from datasets.fingerprint import Hasher
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor

from hf_midrange.classifier import Modality, main_input, modality, unwrap_timm, unwrapped
from hf_midrange.columns import IMAGE, TEXT, TEXT_PAIR
from hf_midrange.extraction.images import UNREADABLE, decode, fault, less_elongated, rgb
from hf_midrange.extraction.shards import Start


Processor = BaseImageProcessor | PreTrainedTokenizerBase | Callable[[Image.Image], torch.Tensor]

Wanted = Callable[[int], bool]
"""Whether this process is to compute the shard of that number."""

NOT_INPUTS = ("labels", "label", "label_ids")
"""What a collator's batch holds that the model's logits do not depend on."""


@dataclass
class Batch:
    """Rows `first` to `first + count - 1`, ready for the model."""

    first: int
    count: int
    rows: np.ndarray
    """Numbers of the readable rows, in order."""
    inputs: Mapping[str, torch.Tensor] | None
    """Model inputs of the readable rows; None if there are none."""
    unreadable: dict[int, str] = field(default_factory=dict)
    """Row number -> what is wrong with it."""


def refuse_unreadable(rows: Mapping[int, str]) -> None:
    """Raise `ValueError` naming the first of some unreadable rows."""
    row = min(rows)
    raise ValueError(f"row {row} cannot be read: {rows[row]}; repair it, or drop such rows with on_error='skip'")


@dataclass(frozen=True)
class Preparation:
    """How rows become model inputs.

    Attributes:
        processor: an image processor, a tokenizer, or a callable from a PIL image to a tensor of shape `(3, h, w)`.
        input_name: the model's name for its main input.
        max_length: most tokens of a text; longer ones are cut.
    """

    processor: Processor
    input_name: str
    modality: Modality
    max_length: int | None = None

    def columns(self, features: Features) -> list[str]:
        """Return the columns that are read.

        Raises:
            KeyError: if the image or text column is missing.
            TypeError: if it holds something else.
        """
        if self.modality == "image":
            _require_feature(features, IMAGE, ImageFeature, "datasets.Image()")
            return [IMAGE]
        _require_feature(features, TEXT, Value, "datasets.Value('string')")
        return [TEXT, TEXT_PAIR] if TEXT_PAIR in features else [TEXT]

    def __call__(self, first_row: int, values: Mapping[str, Sequence[Any]]) -> Batch:
        """Prepare rows `first_row`, `first_row + 1`, ... given as undecoded columns."""
        items, unreadable = self._read(first_row, values)
        inputs = None
        if items:
            try:
                inputs = self._transform(list(items.values()))
            except UNREADABLE:
                # One row spoils the batch; find which. A fault of the processor itself hits every row alike.
                failing = self._failing(items)
                if not failing or 1 < len(items) == len(failing):
                    raise
                unreadable |= failing
                items = {row: item for row, item in items.items() if row not in failing}
                inputs = self._transform(list(items.values())) if items else None
        count = len(items) + len(unreadable)
        return Batch(first_row, count, np.fromiter(items, np.int64, len(items)), inputs, unreadable)

    @property
    def pad_token(self) -> int | None:
        """Token that fills up texts in a batch."""
        return getattr(self.processor, "pad_token_id", None)

    def view(self, dataset: Dataset) -> Dataset:
        """Return only the columns that are read, images still as bytes: decoding is where a row can fail."""
        columns = self.columns(dataset.features)
        selected = dataset.with_format(None).select_columns(columns)
        return selected.cast_column(IMAGE, ImageFeature(decode=False)) if IMAGE in columns else selected

    def key(self) -> str:
        """Return a text that changes when the preprocessing changes."""
        if isinstance(self.processor, PreTrainedTokenizerBase):
            vocabulary = self.processor.get_vocab()
            facts = (sorted(vocabulary, key=vocabulary.__getitem__), self.processor.special_tokens_map,
                     self.processor.padding_side, self.processor.truncation_side, self.max_length)  # fmt: skip
            digest = hashlib.sha256(repr(facts).encode(errors="replace")).hexdigest()  # `Hasher` takes seconds
            return f"{type(self.processor).__name__} {digest[:16]}"
        if isinstance(self.processor, BaseImageProcessor):
            return f"{type(self.processor).__name__} {Hasher.hash(repr(self.processor))}"
        described = repr(self.processor)
        return described if " at 0x" not in described else f"callable {Hasher.hash(self.processor)}"

    def _read(self, first_row: int, values: Mapping[str, Sequence[Any]]) -> tuple[dict[int, Any], dict[int, str]]:
        items: dict[int, Any] = {}
        unreadable: dict[int, str] = {}
        for row, value in enumerate(zip(*values.values(), strict=True), start=first_row):
            try:
                items[row] = _image(value[0]) if self.modality == "image" else _texts(value, list(values))
            except UNREADABLE as error:
                unreadable[row] = fault(value[0], error)
        return items, unreadable

    def _transform(self, items: list[Any]) -> dict[str, torch.Tensor]:
        if isinstance(self.processor, PreTrainedTokenizerBase):
            columns = [list(column) for column in zip(*items, strict=True)]
            return dict(
                self.processor(
                    *columns, padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
                )
            )
        if isinstance(self.processor, BaseImageProcessor):
            made = dict(self.processor(images=items, return_tensors="pt"))
            tensors = {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}
            return {self.input_name: tensors.pop("pixel_values"), **tensors} if "pixel_values" in tensors else tensors
        return {self.input_name: torch.stack([self.processor(item) for item in items])}

    def _failing(self, items: Mapping[int, Any]) -> dict[int, str]:
        failing = {}
        for row, item in items.items():
            try:
                self._transform([item])
            except UNREADABLE as error:
                failing[row] = f"cannot be transformed: {error}"
        return failing


@dataclass(frozen=True)
class Collated:
    """Model inputs of the rows of a dataset, batched by a collator; given to `extract` in place of a processor.

    Attributes:
        rows: as many rows as the dataset to be extracted, in the same order, read in their own format: with its
            transform, if `set_transform` gave it one.
        collate: makes model inputs of a list of rows, as the collator of a Trainer.
    """

    rows: Dataset
    collate: Callable[[list[dict[str, Any]]], Mapping[str, Any]]

    def columns(self, features: Features) -> list[str]:
        """Return the columns read of the dataset to be extracted: none, as `rows` has them."""
        return []

    def view(self, dataset: Dataset) -> Dataset:
        """Return `rows`, refusing a dataset of another length."""
        if len(dataset) != len(self.rows):
            raise ValueError(f"there are model inputs of {len(self.rows)} rows for a dataset of {len(dataset)}")
        return self.rows

    def __call__(self, first_row: int, values: Mapping[str, Sequence[Any]]) -> Batch:
        """Collate rows `first_row`, `first_row + 1`, ... given as columns."""
        count = len(next(iter(values.values())))
        batch = self.collate([{name: column[i] for name, column in values.items()} for i in range(count)])
        inputs = {name: value for name, value in batch.items() if name not in NOT_INPUTS}
        odd = [name for name, value in inputs.items() if not isinstance(value, torch.Tensor)]
        if odd or not inputs:
            raise TypeError(f"the collator must make a dictionary of tensors, but {odd or 'it'} is none")
        return Batch(first_row, count, np.arange(first_row, first_row + count), inputs)

    def key(self) -> str:
        """Return a text that changes when the rows or the name of the collator change."""
        name = getattr(self.collate, "__qualname__", type(self.collate).__qualname__)
        return f"collated {self.rows._fingerprint} {name}"


def preparation(
    model: nn.Module,
    processor: Processor | Collated | str | PathLike[str] | None,
    *,
    source: str | None = None,
    max_length: int | None = None,
    trust_remote_code: bool = False,
) -> Preparation | Collated:
    """Return how rows become inputs of `model`.

    Args:
        model: the classifier.
        processor: an image processor, tokenizer, callable, or the id or folder of one; rows that are `Collated`
            already; None loads the model's own.
        source: the id or folder the model was loaded from, if any.
        max_length: most tokens of a text; None takes the tokenizer's or the model's own limit.
        trust_remote_code: run processing code that comes with the model.

    Raises:
        ValueError: if no processor is given and the model has none.
    """
    if isinstance(processor, Collated):
        return processor
    kind = modality(model)
    if processor is None or isinstance(processor, str | PathLike):
        own = source or str(getattr(unwrapped(model), "name_or_path", ""))
        origin = own if processor is None else fspath(processor)
        processor = _load_processor(model, kind, origin, trust_remote_code)
    if isinstance(processor, PreTrainedTokenizerBase):
        if processor.pad_token is None:
            raise ValueError(
                "the tokenizer has no padding token; set `tokenizer.pad_token = tokenizer.eos_token` and "
                "`model.config.pad_token_id = tokenizer.pad_token_id`, and pass the tokenizer as `processor`"
            )
        max_length = max_length or _longest(model, processor)
    return Preparation(processor, main_input(model), kind, max_length)


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
        ranges: Any = [
            rows
            for number in range(self.cut.shards(self.total))
            if wanted(number)
            for rows in self.cut.batches(number * size, min((number + 1) * size, self.total))
        ]
        prepared = partial(_prepared, self.prepare.view(self.dataset), self.prepare)
        yield from DataLoader(ranges, batch_size=None, num_workers=self.num_workers, collate_fn=prepared)


@dataclass
class StreamRows:
    """Rows of a stream, read and prepared in this process; `total` is known once they have all been read."""

    dataset: IterableDataset
    prepare: Preparation | Collated
    cut: Cut
    start: Start = Start()
    """Where reading begins: after shards that are finished."""
    total: int = field(default=0, init=False)
    passed: dict[int, dict[str, Any]] = field(default_factory=dict, init=False)
    """The state of the stream after a shard, by its number, until someone takes it out."""

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
                state = _state_of(stream)
                if state is not None:
                    self.passed[number] = state
            else:
                self.total += sum(1 for _ in islice(rows, size))
            if self.total < (number + 1) * size:
                return


def _prepared(rows: Dataset, prepare: Preparation | Collated, numbers: range) -> Batch:
    return prepare(numbers.start, rows[numbers.start : numbers.stop])


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


def _load_processor(model: nn.Module, kind: Modality, origin: str, trust_remote_code: bool) -> Processor:
    auto = AutoTokenizer if kind == "text" else AutoImageProcessor
    reason = "the model object does not say where it came from"
    if origin:
        try:
            return auto.from_pretrained(origin, trust_remote_code=trust_remote_code)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[0]
    timm_model = unwrap_timm(model)
    if hasattr(timm_model, "pretrained_cfg"):  # a timm model knows its transform, with or without published weights
        config = timm.data.resolve_model_data_config(timm_model)
        return timm.data.create_transform(**config, is_training=False)
    wanted = "a tokenizer" if kind == "text" else "an image processor, or a callable from PIL image to tensor"
    raise ValueError(f"found no processor for {type(model).__name__} ({reason}); pass `processor=`: {wanted}")


def _longest(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the most tokens a text may have: tokenizers without a limit declare an astronomic one."""
    inner = unwrapped(model)
    positions = getattr(inner.config, "max_position_embeddings", None) if isinstance(inner, PreTrainedModel) else None
    return tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else positions


def _require_feature(features: Features, column: str, kind: type, call: str) -> None:
    if column not in features:
        raise KeyError(
            f"the dataset has no column {column!r}; it has {list(features)}; rename yours with `rename_column`"
        )
    if not isinstance(features[column], kind):
        raise TypeError(
            f"column {column!r} is {features[column]}; make it one with `ds.cast_column({column!r}, {call})`"
        )


def _image(cell: Any) -> Image.Image:  # noqa: ANN401 - an undecoded cell
    return less_elongated(rgb(decode(cell)))


def _texts(value: tuple[Any, ...], names: Sequence[str]) -> tuple[str, ...]:
    for name, text in zip(names, value, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"column {name!r} is {'null' if text is None else f'of type {type(text).__name__}'}")
    return value
