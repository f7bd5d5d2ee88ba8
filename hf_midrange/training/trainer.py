"""`MidRangeTrainer`: a Trainer that scores by group, trains on curated rows, and debiases the model it trained."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, TrainOutput
from transformers.utils import find_labels

from hf_midrange import columns, verdicts
from hf_midrange.classifier import label_names
from hf_midrange.concepts.usual import source_named
from hf_midrange.head import LinearHead
from hf_midrange.head.proof import NotRepairedError, prove_repaired
from hf_midrange.publishing.cards import write_model_card
from hf_midrange.publishing.model import Background, model_facts
from hf_midrange.training.debiasing import STEPS, Debiasing, untimed
from hf_midrange.training.evaluation import group_figures, scored_by
from hf_midrange.training.holdout import Holdout, WriteHoldout, refuse_other_holdout, without_held_out
from hf_midrange.training.report import DebiasReport, score_of
from hf_midrange.training.row_inputs import (
    EXTRAS,
    RowCollator,
    WeightedLoss,
    accepted_columns,
    column_names,
    one_of,
    uncompiled,
    used_rows,
    weighted_loss,
    with_classes,
)


logger = logging.getLogger(__name__)

CURATED_ROWS = ("weight", "keep")
ACT_ON = (verdicts.SHOWN, verdicts.SUSPECTED)


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
        act_on: what `debias()` repairs: `"shown"`, or with `"suspected"` also ties that are only suspected.
        curated_rows: what a training set made by `curate` is trained by. `"weight"`: all rows of positive weight, each
            weighted in the loss. `"keep"`: only the rows marked `keep`, unweighted. The two are alternatives, since
            `keep` marks a subset that is already balanced.

    Raises:
        ValueError: for a fraction outside [0, 1) or another word in `act_on` or `curated_rows`.
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
    act_on: str = field(
        default=verdicts.SHOWN,
        metadata={"help": "Repair what is shown, or also what is only suspected.", "choices": list(ACT_ON)},
    )
    curated_rows: str = field(
        default="weight",
        metadata={"help": "Train a curated set by its `weight` or by its `keep`.", "choices": list(CURATED_ROWS)},
    )

    def __post_init__(self) -> None:
        """Check the values before any work starts."""
        if not 0 <= self.curation_fraction < 1:
            raise ValueError(f"`curation_fraction` must be at least 0 and below 1, but is {self.curation_fraction}")
        for name, known in (("curated_rows", CURATED_ROWS), ("act_on", ACT_ON)):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be {' or '.join(map(repr, known))}, but is {getattr(self, name)!r}")
        # Without it, accelerate takes each of several CPU processes for the only one.
        self.use_cpu = self.use_cpu or not torch.accelerator.is_available()
        super().__post_init__()

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: `Trainer` does so beside every model it saves and pushes, so without the token."""
        return {**self.__dict__, "hub_token": None}


class MidRangeTrainer(Trainer):
    """A `Trainer` for image and text classifiers that also finds their shortcuts and repairs their head.

    Everything a `Trainer` does stays, and a script that uses one needs only the two class names changed. In addition:

    - `debias()` extracts, finds concepts, associates and curates the rows of `curation_dataset`, retrains the head on
      them, and puts it into `model`. Metrics of the evaluation set are logged as `debias/before_...` and
      `debias/after_...`.
    - Where the evaluation set has a `group` column (a `ClassLabel`), metrics come with `accuracy`,
      `worst_group_accuracy` and `group_accuracy_<name>`, each with the ends of its 95 % interval (`_ci_low`,
      `_ci_high`). With `pseudo_group` instead, `worst_pseudo_group_accuracy` and `pseudo_group_accuracy_<name>`; with
      neither, `worst_class_accuracy` and `class_accuracy_<name>`. They need no `compute_metrics`; one that is given
      still runs, and its figures win where names are the same.
    - A training set that `curate` made is trained on by its `weight` or its `keep`; see
      `MidRangeArguments.curated_rows`.
    - Rows with an `image` or `text` and no model inputs are prepared by `processing_class`, without augmentation.

    Args:
        model: a transformers image or sequence classifier.
        args: `MidRangeArguments`, or plain `TrainingArguments`.
        curation_dataset: rows for `debias()`, that the model is not trained on; in any form that the trainer can train
            on, a column `source_id` keeps rows together. None: `curation_fraction` of the training rows.
        **trainer: what a `Trainer` takes.

    Raises:
        TypeError: if the model is timm's own; transformers wraps it.
        ValueError: if a training set has weights and the trainer a `compute_loss_func`, weights are no weights, or
            nothing could be held out.

    Examples:
        ```python
        args = hm.MidRangeArguments("out", curation_fraction=0.2)
        trainer = hm.MidRangeTrainer(model, args, train_dataset=train, eval_dataset=test, processing_class=processor)
        trainer.train()
        print(trainer.debias())
        ```
    """

    _seen: list[torch.Tensor] | None = None
    """Of each batch of an evaluation that is scored by group, of shape `(3, n)`: predicted class, class and group."""

    def __init__(
        self,
        model: nn.Module | None = None,
        args: Any = None,  # noqa: ANN401 - MidRangeArguments or TrainingArguments
        *positional: Any,  # noqa: ANN401 - those of Trainer
        curation_dataset: Dataset | None = None,
        **trainer: Any,  # noqa: ANN401 - those of Trainer
    ) -> None:
        _refuse_bare_timm(model)
        super().__init__(model, args if args is not None else MidRangeArguments("tmp_trainer"), *positional, **trainer)
        if self._option("debias_after_training"):
            self._refuse_sharded()
        names = label_names(self._classifier)
        self.train_dataset = with_classes(one_of(self.train_dataset, "train_dataset"), names)
        self.eval_dataset = with_classes(self.eval_dataset, names)
        self.curation_dataset = one_of(curation_dataset, "curation_dataset")
        self.holdout: Holdout | None = None
        self.debias_report: DebiasReport | None = None
        if not self.label_names:  # of a compiled model, whose class takes anything
            self.label_names = find_labels(type(uncompiled(self._classifier)))
        self.data_collator: Any = self._row_collator()
        if curation_dataset is None and self._option("curation_fraction"):
            self._hold_out()
        self._curated_train = self.train_dataset if columns.EMBEDDING in column_names(self.train_dataset) else None
        self.train_dataset, self.rows_used = used_rows(self.train_dataset, self._option("curated_rows"))
        if self.rows_used is not None and self.is_world_process_zero():
            logger.warning(str(self.rows_used))
        self.compute_loss_func = weighted_loss(
            self.rows_used, self.compute_loss_func, self.args.label_smoothing_factor
        )
        if self.holdout is not None:
            self.add_callback(WriteHoldout(self.holdout))

    def _remove_unused_columns(self, dataset: Dataset, description: str | None = None) -> Dataset:
        """Return the rows with the columns that are read, group and weight among them."""
        return self._collator.narrowed(with_classes(dataset, label_names(self._classifier)))

    def _get_collator_with_removed_columns(self, data_collator: Any, description: str | None = None) -> Any:  # noqa: ANN401
        """Return the collator as it is: it shows the user's own the columns that are left."""
        return data_collator

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - the loss, or the loss and the outputs
        """Return the loss; group and weight stay out of the model.

        The loss itself and its scale are left to `Trainer`, so `loss_is_scaled_for_ga` stays what it finds out.
        """
        if isinstance(self.compute_loss_func, WeightedLoss):
            self.compute_loss_func.weights = inputs.get(columns.WEIGHT) if model.training else None
        own = {name: value for name, value in inputs.items() if name not in EXTRAS}
        return super().compute_loss(model, own, return_outputs, num_items_in_batch)

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Evaluate as every Trainer does; where rows have groups, score by them, else by class."""
        by = None if self.args.prediction_loss_only else scored_by(self._classifier, dataloader.dataset)
        self._seen = None if by is None else []
        output = super().evaluation_loop(dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix)
        seen, self._seen = self._seen, None
        if by is None or not seen:
            return output
        rows = torch.cat(seen, dim=1).cpu().numpy()
        ours = {f"{metric_key_prefix}_{name}": value for name, value in group_figures(by, *rows).items()}
        return output._replace(metrics={**ours, **(output.metrics or {})})

    def prediction_step(
        self,
        model: nn.Module,
        inputs: Mapping[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """Predict as every Trainer does, and note predicted class, class and group of rows that are scored by them."""
        alone = prediction_loss_only and self._seen is None
        loss, logits, labels = super().prediction_step(model, cast(Any, inputs), alone, ignore_keys)
        truth = labels[0] if isinstance(labels, tuple) else labels
        if self._seen is not None and logits is not None and truth is not None and truth.ndim == 1:
            first = logits[0] if isinstance(logits, tuple) else logits
            predicted = first.argmax(-1) if first.shape[-1] > 1 else (first.squeeze(-1) > 0).to(truth.dtype)
            extra = [inputs[name] for name in (columns.GROUP, columns.PSEUDO_GROUP) if name in inputs]
            groups = extra[0].to(truth.device) if extra else truth
            each = self.gather_function(torch.stack([predicted, truth, groups], dim=1))
            self._seen.append(each.T)
        return (loss, None, None) if prediction_loss_only else (loss, logits, labels)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> TrainOutput:  # noqa: ANN401 - those of Trainer
        """Train; then debias, if `debias_after_training` says so.

        Raises:
            ValueError: if the checkpoint to resume from held out other rows, which would now be trained on.
        """
        if resume_from_checkpoint:
            refuse_other_holdout(resume_from_checkpoint, self._folder, self.holdout)
        output = super().train(resume_from_checkpoint, *args, **kwargs)
        if self._option("debias_after_training"):
            report = str(self.debias())
            logger.log(logging.WARNING if self.is_world_process_zero() else logging.DEBUG, report)
        return output

    def debias(
        self,
        curation_dataset: Dataset | None = None,
        *,
        sources: Sequence[Any] | None = None,
        act_on: str | None = None,
    ) -> DebiasReport:
        """Find the shortcuts of the model, repair its head in place, and return what was found and done.

        Finished steps are kept in `<output_dir>/_debias`, by the weights of the model and the rows: the same call
        after a crash, with the model of the same checkpoint, goes on where it stopped. Every process of a launch takes
        part. The report is written to `<output_dir>/debias_report.json`.

        Args:
            curation_dataset: rows that the model was not trained on; None takes the trainer's own, else a training set
                that `curate` made. Rows with `embedding` and `weight` of this model are retrained on as they are.
            sources: concept sources, such as `[hm.Thumbnail()]`; None takes `concept_sources` of the arguments, else
                what `hf-midrange run` would take.
            act_on: `"shown"` or `"suspected"`; None takes `act_on` of the arguments.

        Raises:
            ValueError: if there are no rows, the model is spread over processes (FSDP, DeepSpeed), or its head cannot
                be replaced, or would be another one once the model is saved and loaded; the model is then as it was.
            TypeError: if the rows are no `datasets.Dataset`.
        """
        self._refuse_sharded()
        rows = self._rows_for_curation(curation_dataset)
        model = self.accelerator.unwrap_model(self.model)
        named = self._option("concept_sources")
        chosen = [source_named(text) for text in named] if sources is None and named else sources
        work = Debiasing(
            model,
            self._collator.processor,
            self._seed,
            self._folder / STEPS,
            self.args.eval_batch_size,
            self.args.dataloader_num_workers,
            self.accelerator.autocast,
            self._option("head"),
            act_on=act_on or self._option("act_on"),
        )
        table = work.table(rows)  # what cannot be used is refused before any pass of the model
        before = self._evaluated("debias/before")
        inputs = self._collator.inputs(rows)
        outcome = work.run(table, inputs, chosen)
        if outcome.is_changed:
            given = LinearHead.from_model(model, work.head)
            outcome.head.put_into(model, work.head)
            try:
                prove_repaired(model, table, inputs or work.processor, work.head)
            except NotRepairedError:
                given.put_into(model, work.head)
                raise
        self.debias_report = replace(outcome, before=before, after=self._evaluated("debias/after"))
        told = {"changed": outcome.is_changed, "rows": len(outcome.curated), "findings": len(outcome.findings or ())}
        self.log({f"debias/{name}": float(value) for name, value in told.items()})
        if self.is_world_process_zero():
            self.debias_report.save(self._folder / "debias_report.json")
        return self.debias_report

    def create_model_card(
        self,
        language: str | None = None,
        license: str | None = None,
        tags: str | list[str] | None = None,
        model_name: str | None = None,
        finetuned_from: str | None = None,
        tasks: str | list[str] | None = None,
        dataset_tags: str | list[str] | None = None,
        dataset: str | list[str] | None = None,
        dataset_args: str | list[str] | None = None,
    ) -> None:
        """Write the card of this package into the output folder; arguments are those of `Trainer`.

        `finetuned_from` and the first of `dataset_tags` are Hub ids; `tasks`, `dataset` and `dataset_args` are not
        used, since the model's class says the task and names without an id lead nowhere.
        """
        if not self.is_world_process_zero():
            return
        known = [dataset_tags] if isinstance(dataset_tags, str) else list(dataset_tags or [])
        background = Background(
            metrics=score_of(self._latest_metrics()),
            base_model=finetuned_from,
            dataset=known[0] if known else None,
            split=str(getattr(self.eval_dataset, "split", None) or "evaluation"),
            license=license,
            has_processor=self.processing_class is not None,
            layer=self._option("head"),
            language=language,
            tags=[tags] if isinstance(tags, str) else tags or (),
        )
        report = self.debias_report
        if report is not None:
            background = report.background(background)
        # The name stands in the code of the card.
        name = re.sub(r"[^\w./-]+", "-", self.hub_model_id or model_name or self._folder.name)
        facts = model_facts(self.accelerator.unwrap_model(self.model), name, background)
        write_model_card(replace(facts, corrected=report is not None and report.is_changed), self._folder)

    def _option(self, name: str) -> Any:  # noqa: ANN401 - of any type
        """Return an argument of `MidRangeArguments`, or its default where the trainer has plain arguments."""
        return getattr(self.args, name, getattr(MidRangeArguments, name))

    @property
    def _seed(self) -> int:
        chosen = self._option("curation_seed")
        return self.args.seed if chosen is None else chosen

    def _row_collator(self) -> RowCollator:
        accepted = accepted_columns(self._classifier, self.label_names) if self.args.remove_unused_columns else None
        length = getattr(self.args, "length_column_name", "length")
        return RowCollator(self._classifier, self.data_collator, accepted, self.processing_class, length)

    @property
    def _collator(self) -> RowCollator:
        """The collator around the user's own, also around one that was set after the trainer was made."""
        if not isinstance(self.data_collator, RowCollator):
            self.data_collator = self._row_collator()
        return self.data_collator

    @property
    def _classifier(self) -> nn.Module:
        return cast(nn.Module, self.model)

    @property
    def _folder(self) -> Path:
        return Path(str(self.args.output_dir))

    def _hold_out(self) -> None:
        fraction = self._option("curation_fraction")
        split = without_held_out(self.train_dataset, self.eval_dataset, fraction, self._seed)
        self.train_dataset, self.curation_dataset, self.holdout = split
        if self.args.should_save:
            self.holdout.write(self._folder)

    def _refuse_sharded(self) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError(
                "`debias` needs the whole model in every process, but it is spread over them (FSDP, DeepSpeed); "
                "save it and debias the folder in a launch without, as scripts/debias.py does"
            )

    def _rows_for_curation(self, given: Dataset | None) -> Dataset:
        chosen = (one_of(given, "curation_dataset"), self.curation_dataset, self._curated_train)
        rows = next((rows for rows in chosen if rows is not None), None)
        if rows is None:
            raise ValueError(
                "there are no rows to debias on; give `curation_dataset`, rows that the model is not trained on, "
                "or set `curation_fraction` before training"
            )
        if not isinstance(rows, Dataset):
            raise TypeError(f"rows for curation must be a datasets.Dataset, not {type(rows).__name__}")
        return rows

    def _evaluated(self, prefix: str) -> dict[str, float] | None:
        return None if self.eval_dataset is None else untimed(self.evaluate(metric_key_prefix=prefix), prefix)

    def _latest_metrics(self) -> dict[str, float]:
        """Return the metrics of the last evaluation of the model as it is, by their names without prefix."""
        last = {
            name: max((k for k, entry in enumerate(self.state.log_history) if name in entry), default=-1)
            for name in ("eval_worst_group_accuracy", "debias/changed")
        }
        report, evaluated = self.debias_report, last["eval_worst_group_accuracy"]
        if report is not None and report.after is not None and last["debias/changed"] > evaluated:
            return dict(report.after)
        entry = self.state.log_history[evaluated] if evaluated >= 0 else {}
        return {key.removeprefix("eval_"): value for key, value in entry.items()}


def _refuse_bare_timm(model: object) -> None:
    """Refuse a model of timm's own, which takes no labels and returns no loss: no Trainer can train it."""
    if hasattr(model, "pretrained_cfg") and not hasattr(model, "config"):
        name = getattr(model, "pretrained_cfg", None) or {}
        known = f"timm/{name.get('architecture', '...')}"
        raise TypeError(
            f"{type(model).__name__} is a bare timm model, which a Trainer cannot train; load it as "
            f"AutoModelForImageClassification.from_pretrained({known!r}), or repair it with `hm.debias`"
        )
