"""The pipeline inside a trainer: from the rows held out to a repaired head, each step done once and kept."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import ClassLabel, Dataset
from datasets.fingerprint import Hasher
from torch import nn

import hf_midrange
from hf_midrange import columns
from hf_midrange.classifier import fingerprint, label_names, last_linear, number_of_labels
from hf_midrange.concepts.usual import usual_sources
from hf_midrange.extraction import extract
from hf_midrange.extraction.collated import Collated
from hf_midrange.extraction.inputs import Processor
from hf_midrange.head import LinearHead, retrain_head
from hf_midrange.pipeline import Steps, curated_from
from hf_midrange.training.row_inputs import LABEL_COLUMNS


logger = logging.getLogger(__name__)

STEPS = "_debias"
"""Folder of the steps inside the output folder. `Trainer.push_to_hub` leaves out names that begin with `_`."""
ADDED = (
    columns.EMBEDDING, columns.LOGITS, columns.PREDICTION, columns.QUANTILE, columns.POSITION, columns.BAND,
    columns.PSEUDO_GROUP, columns.KEEP, columns.WEIGHT, columns.CONFOUNDERS, columns.REASON,
)  # fmt: skip
"""Columns that the steps add."""
SHARD_ROWS = 4096
"""Rows that are extracted again at most when a process dies."""
SAME_MODEL = 0.02
"""How far embeddings may lie apart, relative to the largest entry, to be of the same model: bf16 rounds by .004."""


@dataclass(frozen=True)
class Debiasing:
    """A model and how its trainer reads rows.

    Attributes:
        model: the classifier, not wrapped.
        processor: makes inputs of raw rows: the trainer's `processing_class`, or None for the model's own.
        precision: the trainer's autocast.
        batch_size: rows a forward pass.
        workers: processes that read rows.
        seed: of the steps that choose at random.
        folder: where the steps are kept.
    """

    model: nn.Module
    processor: Processor | None
    precision: Callable[[], AbstractContextManager]
    batch_size: int
    workers: int
    seed: int
    folder: Path

    def run(
        self, table: Dataset, inputs: Collated | None, sources: Sequence[Any] | None
    ) -> tuple[Dataset | None, Dataset, LinearHead]:
        """Return findings, curated rows and the new head; the findings are None where the rows were curated before.

        Args:
            table: the rows, in plain format, with `label` as a `ClassLabel`.
            inputs: their model inputs, or None where the processor is to make them of an image or text.
            sources: concept sources; None: `usual_sources`.
        """
        if self._is_curated(table, inputs):
            steps = self._steps(table, "curated")
            return None, table, self._head(steps, table)
        table = table.remove_columns(_made_by_steps(table))
        chosen = usual_sources(table, self.model, self.processor) if sources is None else list(sources)
        steps = self._steps(table, [_told_apart(source) for source in chosen])
        extracted = self._extract(table, inputs, output_dir=steps.folder / "shards", run_id=steps.folder.name)
        repair = curated_from(extracted, chosen, self.seed, steps=steps)
        return repair.findings, repair.curated, self._head(steps, repair.curated)

    def _head(self, steps: Steps, curated: Dataset) -> LinearHead:
        make = lambda part: retrain_head(curated, self.model, seed=self.seed).save_pretrained(part)  # noqa: E731
        return LinearHead.from_pretrained(steps.written("head", make))

    def _steps(self, table: Dataset, sources: str | list[str]) -> Steps:
        facts = {"rows": table._fingerprint, "sources": sources, "seed": self.seed}
        version = hf_midrange.__version__
        return Steps.of(self.folder, {**facts, "model": fingerprint(self.model), "version": version})

    def _extract(self, table: Dataset, inputs: Collated | None, **where: Any) -> Dataset:  # noqa: ANN401
        with self.precision():
            return extract(
                table,
                self.model,
                inputs or self.processor,
                batch_size=self.batch_size,
                num_workers=self.workers,
                shard_size=SHARD_ROWS,
                **where,
            )

    def _is_curated(self, table: Dataset, inputs: Collated | None) -> bool:
        """Whether the rows are curated, with embeddings of this very model as far as that can be seen."""
        if not {columns.EMBEDDING, columns.WEIGHT} <= {*table.column_names}:
            return False
        some = table.select(range(min(8, len(table))))
        if inputs is not None:
            inputs = Collated(inputs.rows.select(range(len(some))), inputs.collate)
        elif not {columns.IMAGE, columns.TEXT} & {*table.column_names}:
            return True
        there = columns.matrix(some, columns.EMBEDDING)
        here = columns.matrix(self._extract(some, inputs), columns.EMBEDDING)
        if here.shape == there.shape and np.abs(here - there).max() <= SAME_MODEL * np.abs(here).max():
            return True
        logger.warning("the curated rows have embeddings of another model; they are extracted and curated anew")
        return False


def plain_table(rows: Dataset, model: nn.Module) -> Dataset:
    """Return rows without format or transform, whose `label` is a `ClassLabel`, as every step wants them.

    Raises:
        KeyError: if there is no `label`, `labels` or `label_ids`.
        TypeError: if they are not class ids.
    """
    table = rows.with_format(None)
    name = next((name for name in (columns.LABEL, *LABEL_COLUMNS) if name in table.column_names), None)
    if name is None:
        raise KeyError(f"rows for curation need a column 'label' or 'labels', but have {table.column_names}")
    feature = table.features[name]
    if not isinstance(feature, ClassLabel):
        count = number_of_labels(model)
        names = label_names(model)
        if not str(getattr(feature, "dtype", "")).startswith(("int", "uint")) or count is None:
            raise TypeError(f"column {name!r} must hold class ids, but is {feature}")
        fits = names is not None and len({*names}) == count
        table = table.cast_column(name, ClassLabel(names=names) if fits else ClassLabel(num_classes=count))
    return table if name == columns.LABEL else table.rename_column(name, columns.LABEL)


def put_head(model: nn.Module, head: LinearHead) -> None:
    """Give a model another last layer, in place."""
    _, linear = last_linear(model)
    with torch.no_grad():
        linear.weight.copy_(head.weight)
        if linear.bias is None:
            linear.bias = nn.Parameter(linear.weight.new_zeros(head.num_classes))
        linear.bias.copy_(head.bias)


def untimed(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Return the metrics of an evaluation by their names without prefix, and without how long it took."""
    timing = ("epoch", "_runtime", "_per_second", "_time")
    named = {name.removeprefix(f"{prefix}_"): value for name, value in metrics.items()}
    return {name: value for name, value in named.items() if not name.endswith(timing) and name != "runtime"}


def _told_apart(source: Any) -> str:  # noqa: ANN401 - a source, or any callable
    """Return a text that is another one for another source; a model in it counts by its weights."""
    return Hasher.hash(source.identity() if hasattr(source, "identity") else source)


def _made_by_steps(table: Dataset) -> list[str]:
    """Return the columns of an earlier run, which the steps would refuse to overwrite."""
    prefixes = (columns.CONCEPTS_PREFIX, columns.VIEW_PREFIX)
    return [name for name in table.column_names if name in ADDED or name.startswith(prefixes)]
