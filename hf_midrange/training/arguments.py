"""What `MidRangeTrainer` can be told beyond the arguments of every `Trainer`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import TrainingArguments


CURATED_ROWS = ("weight", "keep")


@dataclass
class MidRangeArguments(TrainingArguments):
    """`TrainingArguments` and what debiasing needs; all defaults leave an ordinary training as it is.

    Args:
        curation_fraction: share of the training rows to hold out for `debias()`, from 0 (none) to below 1: stratified
            by label, rows of one `source_id` together. Which rows is written to `curation_rows.json` in the output
            folder and in every checkpoint. Not used where the trainer is given a `curation_dataset`.
        curation_seed: of that choice and of every random choice of `debias()`; None takes `seed`.
        debias_after_training: call `debias()` at the end of `train()`.
        concept_sources: concepts that `debias()` may look for, such as `["thumbnail", "image-properties"]`, in the
            words of `hf-midrange annotate --source`; None takes those that the columns allow.
        head: name of the classifier's last linear layer, where it has several, as `extract` takes it.
        curated_rows: what a training set made by `curate` is trained by. `"weight"`: all rows of positive weight, each
            weighted in the loss. `"keep"`: only the rows marked `keep`, unweighted. The two are alternatives, since
            `keep` marks a subset that is already balanced.

    Raises:
        ValueError: for a fraction outside [0, 1) or another word in `curated_rows`.
    """

    curation_fraction: float = field(
        default=0.0, metadata={"help": "Share of the training rows to hold out for debiasing."}
    )
    curation_seed: int | None = field(
        default=None, metadata={"help": "Seed of the held-out rows and of debiasing; by default `seed`."}
    )
    debias_after_training: bool = field(default=False, metadata={"help": "Debias at the end of training."})
    concept_sources: list[str] | None = field(
        default=None, metadata={"help": "Concepts to look for, such as thumbnail; by default what columns allow."}
    )
    head: str | None = field(
        default=None, metadata={"help": "Name of the last linear layer, where the classifier has several."}
    )
    curated_rows: str = field(
        default="weight",
        metadata={"help": "Train a curated set by its `weight` or by its `keep`.", "choices": list(CURATED_ROWS)},
    )

    def __post_init__(self) -> None:
        """Check the values before any work starts."""
        if not 0 <= self.curation_fraction < 1:
            raise ValueError(f"`curation_fraction` must be at least 0 and below 1, but is {self.curation_fraction}")
        if self.curated_rows not in CURATED_ROWS:
            raise ValueError(f"`curated_rows` must be 'weight' or 'keep', but is {self.curated_rows!r}")
        # Without it, accelerate takes each of several CPU processes for the only one.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: `Trainer` does so beside every model it saves and pushes, so without the token."""
        return {**self.__dict__, "hub_token": None}
