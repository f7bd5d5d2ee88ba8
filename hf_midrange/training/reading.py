"""How the rows of any dataset that a Trainer takes are read: which columns, through which collator."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from datasets import Dataset, DatasetDict, IterableDatasetDict
from torch import nn

from hf_midrange.columns import IMAGE, TEXT
from hf_midrange.extraction.collated import Collated
from hf_midrange.extraction.inputs import Preparation, preparation
from hf_midrange.training.batches import EXTRAS, LABEL_COLUMNS, RAW, Batches


@dataclass(frozen=True)
class Reader:
    """How a trainer reads rows at the moment.

    Attributes:
        model: the model, for the names of its inputs.
        collate: the trainer's own collator.
        accepted: columns that it may see; None: all (`remove_unused_columns=False`).
        processing_class: the trainer's tokenizer or processor.
        length: column of lengths, which samplers may want.
    """

    model: nn.Module
    collate: Callable[[list[Any]], Any]
    accepted: frozenset[str] | None
    processing_class: Any
    length: str

    @property
    def main_input(self) -> str:
        """Name of the model's main input."""
        return getattr(self.model, "main_input_name", "pixel_values")

    @property
    def processor(self) -> Any:  # noqa: ANN401 - of many classes
        """What prepares raw rows; of a multimodal processor, the part that the model reads."""
        part = "tokenizer" if self.main_input == "input_ids" else "image_processor"
        return getattr(self.processing_class, part, self.processing_class)

    def batches(self, dataset: Any, extras: tuple[str, ...]) -> Batches:  # noqa: ANN401 - any dataset
        """Return the collator for a dataset, which adds the columns `extras` to each batch."""
        prepare = preparation(self.model, self.processor) if self._is_raw(dataset) else None
        return Batches(self.collate, self.accepted, extras, cast(Preparation | None, prepare))

    def narrowed(self, dataset: Any, extras: tuple[str, ...]) -> Any:  # noqa: ANN401 - any dataset
        """Return the dataset with the columns that are read, in which `extras` survive the user's transform."""
        if not isinstance(dataset, Dataset):
            return dataset
        here = tuple(name for name in extras if name in dataset.column_names)
        if has_own_transform(dataset):
            return _with_kept(dataset, here)
        if self.accepted is None:
            return dataset
        wanted = {*self.accepted, *LABEL_COLUMNS, self.length, *here, *(RAW if self._is_raw(dataset) else ())}
        return dataset.select_columns([name for name in dataset.column_names if name in wanted])

    def inputs(self, rows: Dataset) -> Collated | None:
        """Return the model inputs of rows that have them, by themselves or by their own transform."""
        if has_own_transform(rows) or self.main_input in rows.column_names:
            return Collated(self.narrowed(rows, ()), self.batches(rows, ()))
        return None

    def _is_raw(self, dataset: Any) -> bool:  # noqa: ANN401 - any dataset
        """Whether rows hold an image or a text where the model's input should be."""
        names = column_names(dataset)
        raw = TEXT if self.main_input == "input_ids" else IMAGE
        return raw in names and self.main_input not in names and not has_own_transform(dataset)


@dataclass(frozen=True)
class KeepColumns:
    """A dataset's own transform, which may return new columns only, with some of the old ones beside them."""

    transform: Callable[[dict[str, list]], Mapping[str, Sequence]]
    names: tuple[str, ...]

    def __call__(self, batch: dict[str, list]) -> dict[str, Sequence]:
        """Transform a batch of rows."""
        kept = {name: batch[name] for name in self.names}
        return {**self.transform(batch), **kept}


def accepted_columns(model: nn.Module, label_names: Sequence[str]) -> frozenset[str]:
    """Return the columns that a stock Trainer keeps: the arguments of the model's `forward`, and the labels."""
    unwrap = getattr(model, "get_base_model", None)  # of adapters
    base = unwrap() if callable(unwrap) else model
    return frozenset([*inspect.signature(base.forward).parameters, *LABEL_COLUMNS[1:], *label_names]) - {*EXTRAS}


def one_of(data: Any, argument: str) -> Any:  # noqa: ANN401 - any dataset
    """Return the only split of what `load_dataset` gave without naming one; anything else comes back as it is.

    Raises:
        ValueError: if there are several splits.
    """
    if not isinstance(data, DatasetDict | IterableDatasetDict):
        return data
    if len(data) == 1:
        return next(iter(data.values()))
    raise ValueError(f"`{argument}` has the splits {', '.join(data)}; choose one, such as data[{next(iter(data))!r}]")


def has_own_transform(dataset: Any) -> bool:  # noqa: ANN401 - any dataset
    """Whether rows are made by a function that the user gave to `set_transform` or `with_transform`."""
    return isinstance(dataset, Dataset) and dataset.format["type"] == "custom"


def column_names(dataset: Any) -> list[str]:  # noqa: ANN401 - any dataset
    """Return the columns of a dataset or stream of `datasets`; none where they are not known."""
    return list(getattr(dataset, "column_names", None) or [])


def _with_kept(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    """Return a dataset with a transform of its own in which the columns `names` stay beside what it returns."""
    if not names:
        return dataset
    transform = dataset.format["format_kwargs"]["transform"]
    columns = list(dict.fromkeys([*dataset.format["columns"], *names]))
    return dataset.with_transform(KeepColumns(transform, names), columns=columns)
