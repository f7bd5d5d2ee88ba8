"""How the rows of any dataset that a Trainer takes become model inputs, with group and weight beside them.

Of a training set that `curate` made: which rows are trained on, and how much each counts in the loss.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Container, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict, IterableDataset, IterableDatasetDict, Value
from torch import nn
from torch.nn import functional
from transformers import DataCollatorWithPadding, default_data_collator

from hf_midrange.columns import GROUP, IMAGE, KEEP, LABEL, PSEUDO_GROUP, TEXT, TEXT_PAIR, WEIGHT, numbers
from hf_midrange.extraction.inputs import Collated, Preparation, preparation, refuse_unreadable
from hf_midrange.input_columns import encoded_groups, encoded_labels, is_text


EXTRAS = (GROUP, PSEUDO_GROUP, WEIGHT)
"""Columns that belong to the trainer and never reach the model."""
LABEL_COLUMNS = ("labels", LABEL, "label_ids")
FLOATS = ("float16", "float32", "float64")

Row = Mapping[str, Any]


@dataclass(frozen=True)
class RowCollator:
    """A collator around the trainer's own, which sees what it would see without this one.

    It makes model inputs of rows that have an image or text instead, and adds group and weight to each batch.

    Attributes:
        model: for the names of its inputs.
        collate: the trainer's own collator.
        accepted: columns that it may see; None: all (`remove_unused_columns=False`).
        processing_class: the trainer's tokenizer or processor.
        length: column of lengths, which samplers may want.
        extras: columns of the trainer to add to each batch.
    """

    model: nn.Module
    collate: Callable[[list[Any]], Any]
    accepted: frozenset[str] | None
    processing_class: Any = None
    length: str = "length"
    extras: tuple[str, ...] = EXTRAS

    def __call__(self, rows: list[Any]) -> Any:  # noqa: ANN401 - what the collator gives
        """Return the batch of some rows."""
        if not isinstance(rows[0], Mapping):
            return self.collate(rows)
        batch = self._prepared(rows) if self._is_raw(rows[0]) else self.collate([self._seen(row) for row in rows])
        if isinstance(batch, MutableMapping):
            for name in EXTRAS:
                batch.pop(name, None)
            # Without labels nothing is scored or weighed, and the model is called with the batch as it is.
            if any(name in batch for name in LABEL_COLUMNS):
                batch.update({name: _column(rows, name) for name in self.extras if _is_number(rows[0].get(name, ""))})
        return batch

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401 - of many classes
        """That of the trainer's own collator, which `Trainer` saves beside the model; None if it has none."""
        return getattr(self.collate, "tokenizer", None)

    @property
    def processor(self) -> Any:  # noqa: ANN401 - of many classes
        """What prepares raw rows; of a multimodal processor, the part that the model reads."""
        part = "tokenizer" if self._main_input == "input_ids" else "image_processor"
        return getattr(self.processing_class, part, self.processing_class)

    def narrowed(self, dataset: Dataset) -> Dataset:
        """Return the dataset with the columns that are read, in which the extras survive the user's transform."""
        features = dataset.features
        here = tuple(name for name in self.extras if name in features and _is_extra(name, features[name]))
        if has_own_transform(dataset):
            return _with_kept(dataset, here)
        if self.accepted is None:
            return dataset
        read = (IMAGE, TEXT, TEXT_PAIR) if self._is_raw(features) else ()
        wanted = {*self.accepted, *LABEL_COLUMNS, self.length, *here, *read}
        return dataset.select_columns([name for name in dataset.column_names if name in wanted])

    def inputs(self, rows: Dataset) -> Collated | None:
        """Return the model inputs of rows that have them, by themselves or by their own transform."""
        if has_own_transform(rows) or self._main_input in rows.column_names:
            alone = replace(self, extras=())
            return Collated(alone.narrowed(rows), alone)
        return None

    @property
    def _main_input(self) -> str:
        return getattr(self.model, "main_input_name", "pixel_values")

    @property
    def _raw(self) -> str:
        """The column of rows from which the model's main input can be made."""
        return TEXT if self._main_input == "input_ids" else IMAGE

    def _is_raw(self, names: Container[str]) -> bool:
        """Whether inputs are made of such rows here; a collator of the user that sees all columns does it itself."""
        theirs = self.accepted is None and not isinstance(self.collate, DataCollatorWithPadding)
        theirs = theirs and self.collate is not default_data_collator
        return self._raw in names and self._main_input not in names and not theirs

    @cached_property
    def _prepare(self) -> Preparation:
        return cast(Preparation, preparation(self.model, self.processor))

    def _seen(self, row: Row) -> Row:
        return row if self.accepted is None else {name: row[name] for name in row if name in self.accepted}

    def _prepared(self, rows: list[Row]) -> dict[str, torch.Tensor]:
        of_images = self._raw == IMAGE
        names = [name for name in ((IMAGE,) if of_images else (TEXT, TEXT_PAIR)) if name in rows[0]]
        read = self._prepare(0, {name: [row[name] for row in rows] for name in names})
        if read.unreadable or read.inputs is None:
            refuse_unreadable(read.unreadable)
        batch: dict[str, torch.Tensor] = dict(read.inputs or {})
        for name, value in batch.items():
            if value.is_floating_point():  # pixels come in float32
                batch[name] = value.to(next(self.model.parameters()).dtype)
        label = next((name for name in LABEL_COLUMNS if name in rows[0]), None)
        if label is not None:
            batch["labels"] = torch.as_tensor([row[label] for row in rows])
        return batch


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
    whole = uncompiled(model)
    unwrap = getattr(whole, "get_base_model", None)  # of adapters
    base = unwrap() if callable(unwrap) else whole
    return frozenset([*inspect.signature(base.forward).parameters, *LABEL_COLUMNS[1:], *label_names]) - {*EXTRAS}


def uncompiled(model: nn.Module) -> nn.Module:
    """Return the model inside what `torch.compile` returns; any other model comes back as it is."""
    return getattr(model, "_orig_mod", model)


def with_classes(dataset: Any, class_names: Sequence[str] | None) -> Any:  # noqa: ANN401 - any dataset
    """Return rows whose labels and groups, where they are text, are classes; anything else comes back as it is.

    Raises:
        ValueError: if a label is not one of `class_names`; both are listed.
    """
    if isinstance(dataset, dict):
        return {name: with_classes(one, class_names) for name, one in dataset.items()}
    if not isinstance(dataset, Dataset) or has_own_transform(dataset):
        return dataset
    label = next((name for name in LABEL_COLUMNS if name in dataset.features), None)
    if label is not None and is_text(dataset.features[label]):
        dataset = encoded_labels(dataset, class_names, label)
    return encoded_groups(dataset)


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


def is_weight(feature: Any) -> bool:  # noqa: ANN401 - any feature
    """Whether a column of this feature can weigh rows: whole numbers are someone else's column of that name."""
    return isinstance(feature, Value) and feature.dtype in FLOATS


@dataclass(frozen=True)
class RowsUsed:
    """What became of the rows of a curated training set; printed, it is a sentence."""

    by: str
    """`weight` or `keep`."""
    scale: float
    """Factor that brings the mean weight of the rows used to 1."""
    told: str

    def __str__(self) -> str:
        return self.told


def used_rows(dataset: Any, by: str) -> tuple[Any, RowsUsed | None]:  # noqa: ANN401 - any dataset
    """Return the rows to train on and an account of them; a set that was not curated comes back as it is.

    Args:
        dataset: the training set.
        by: `"weight"` or `"keep"`; where the set has only one of the columns, that one counts.

    Raises:
        ValueError: if a weight is negative, NaN or infinite, or no row is left.
    """
    features = getattr(dataset, "features", None) or {}
    fits = {WEIGHT: is_weight(features.get(WEIGHT)), KEEP: features.get(KEEP) == Value("bool")}
    found = [name for name in fits if fits[name]]
    if not isinstance(dataset, Dataset | IterableDataset) or not found:
        return dataset, None
    chosen = by if by in found else found[0]
    why = "whose `keep` is false" if chosen == KEEP else "of weight 0"
    how = "weighted by column `weight`" if chosen == WEIGHT else "unweighted"
    other = "".join(
        f"; column `{name}` is another choice and not used (see `curated_rows`)" for name in found if name != chosen
    )
    if isinstance(dataset, IterableDataset):
        told = f"the training stream leaves out rows {why}; the others are {how}{other}"
        return dataset.filter(_is_positive, input_columns=[chosen]), RowsUsed(chosen, 1.0, told)
    values = numbers(dataset, chosen)
    bad = np.flatnonzero(~np.isfinite(values) | (values < 0))
    if bad.size:
        raise ValueError(f"column {chosen!r} must be finite and not negative, but row {bad[0]} has {values[bad[0]]}")
    rows = np.flatnonzero(values > 0)
    if not rows.size:
        raise ValueError(f"column {chosen!r} leaves no row to train on")
    left = len(values) - len(rows)
    told = f"training on {len(rows)} of {len(values)} rows, {how}; {left} rows {why} are left out{other}"
    return dataset.select(rows) if left else dataset, RowsUsed(chosen, float(1 / values[rows].mean()), told)


def _is_positive(value: float) -> bool:
    return value > 0


@dataclass
class WeightedLoss:
    """The `compute_loss_func` of weighted rows: the sum of weight times cross-entropy, over the number of rows.

    The divisor is the number of rows of the whole step, over accumulated batches and processes, and not the sum of
    their weights: so the gradient is on average that of the weighted loss of the whole set, however rows fall into
    batches.

    Attributes:
        scale: factor on every weight.
        smoothing: label smoothing, as `label_smoothing_factor`.
        weights: of the batch at hand, of shape `(n,)`; None: all 1.
    """

    scale: float
    smoothing: float = 0.0
    weights: torch.Tensor | None = None

    def __call__(
        self,
        outputs: Any,  # noqa: ANN401 - what the model returned
        labels: torch.Tensor,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """Return the loss of a batch."""
        logits = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        each = functional.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=self.smoothing)
        if self.weights is not None:
            each = each * (self.weights * self.scale)
        total = (labels != -100).sum() if num_items_in_batch is None else num_items_in_batch
        return each.sum() / total


def weighted_loss(rows: RowsUsed | None, given: Callable | None, smoothing: float) -> Callable | None:
    """Return the loss function of the trainer: the user's own, or for weighted rows `WeightedLoss`.

    Raises:
        ValueError: if there are both: a user's function gives one figure a batch, in which rows cannot be weighed.
    """
    if rows is None or rows.by != WEIGHT:
        return given
    if given is not None:
        raise ValueError(
            "the training set has a `weight` column and the trainer a `compute_loss_func`, which cannot weigh rows; "
            "leave one out (`remove_columns('weight')`), or train by `curated_rows='keep'`"
        )
    return WeightedLoss(rows.scale, smoothing)


def _is_extra(name: str, feature: Any) -> bool:  # noqa: ANN401 - any feature
    return is_weight(feature) if name == WEIGHT else isinstance(feature, ClassLabel)


def _with_kept(dataset: Dataset, names: tuple[str, ...]) -> Dataset:
    """Return a dataset with a transform of its own in which the columns `names` stay beside what it returns."""
    if not names:
        return dataset
    transform = dataset.format["format_kwargs"]["transform"]
    columns = list(dict.fromkeys([*dataset.format["columns"], *names]))
    return dataset.with_transform(KeepColumns(transform, names), columns=columns)


def _is_number(value: Any) -> bool:  # noqa: ANN401 - anything a row holds
    return value is None or (np.ndim(value) == 0 and not isinstance(value, str))


def _column(rows: list[Row], name: str) -> torch.Tensor:
    if name == WEIGHT:
        return torch.tensor([float(row[name]) for row in rows], dtype=torch.float32)
    return torch.tensor([-1 if row[name] is None else int(row[name]) for row in rows])
