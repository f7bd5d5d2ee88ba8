"""From rows that a model was not trained on to its repaired head, for `hm.debias` and the trainer alike."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState
from datasets import Dataset, DatasetDict, Value
from datasets.fingerprint import Hasher
from torch import nn

import hf_midrange
from hf_midrange import columns, verdicts
from hf_midrange.classifier import fingerprint, label_names, load_classifier, number_of_labels
from hf_midrange.concepts.usual import usual_sources
from hf_midrange.extraction import extract
from hf_midrange.extraction.inputs import Collated, Processor
from hf_midrange.head import LinearHead, retrain_head
from hf_midrange.head.linear_head import refuse_unloadable
from hf_midrange.head.proof import prove_repaired
from hf_midrange.input_columns import usual_columns
from hf_midrange.pipeline import STAGES, Steps, curated_from, told
from hf_midrange.reporting.groups import shuffled_within
from hf_midrange.training.evaluation import group_figures, scored_by
from hf_midrange.training.report import DebiasReport
from hf_midrange.training.row_inputs import one_of


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
CHANGES_OUTPUTS = ("dtype", "max_length")
"""Options of `extract` that give other embeddings."""


@dataclass(frozen=True)
class Debiasing:
    """A model and how its rows are read.

    Attributes:
        model: the classifier, not wrapped.
        processor: makes inputs of raw rows: a trainer's `processing_class`, or None for the model's own.
        seed: of the steps that choose at random.
        folder: where the steps are kept; None: nowhere.
        batch_size: rows a forward pass.
        workers: processes that read rows.
        precision: a trainer's autocast.
        head: name of the classifier's last linear layer, where it has several.
        on_error: what an unreadable row does, as `extract` takes it.
        act_on: `"shown"` or `"suspected"`, as `curate` takes it.
        reading: further options of `extract`, such as `dtype`.
    """

    model: nn.Module
    processor: Processor | str | None = None
    seed: int = 0
    folder: Path | None = None
    batch_size: int = 64
    workers: int = 0
    precision: Callable[[], AbstractContextManager] = nullcontext
    head: str | None = None
    on_error: Literal["raise", "skip"] = "raise"
    act_on: str = verdicts.SHOWN
    reading: Mapping[str, Any] = field(default_factory=dict)

    def whole(
        self, dataset: Dataset, evaluation: Dataset | None, sources: Sequence[Any] | None, label: str | None = None
    ) -> DebiasReport:
        """Return what was found, and a repaired copy of the model, scored on the rows for evaluation.

        Args:
            dataset: rows that the model was not trained on.
            evaluation: rows to score on: the head before, after, and, as a control, one fitted with the same weights
                given to random rows of the same class.
            sources: concept sources; None: `usual_sources`.
            label: column of the classes, where it is not found.

        Raises:
            KeyError, TypeError, ValueError: as `debias` does.
        """
        rows = self.table(dataset, label)
        test = None if evaluation is None else self.table(evaluation, label)
        outcome = self.run(rows, None, sources)
        if test is not None:
            told(f"      {len(test)} rows for evaluation through the model")
            scored = self.extracted(test.remove_columns(_made_by_steps(test)))
            outcome = replace(
                outcome,
                evaluation=scored,
                before=self.scored(scored),
                after=self.scored(scored, outcome.head),
                control=self.scored(scored, self._control(outcome.curated)) if outcome.is_changed else None,
            )
        if not outcome.is_changed:
            return replace(outcome, model=self.model)
        repaired = outcome.head.merge_into(self.model, self.head)
        prove_repaired(repaired, rows, self.processor, self.head)
        return replace(outcome, model=repaired)

    def run(self, table: Dataset, inputs: Collated | None, sources: Sequence[Any] | None) -> DebiasReport:
        """Return what was found and the new head; there are no findings where the rows were curated before.

        Args:
            table: the rows, as `table` gives them.
            inputs: their model inputs, or None where the processor is to make them of an image or text.
            sources: concept sources; None: `usual_sources`.
        """
        refuse_unloadable(self.model, self.head)  # before any work
        if self._is_curated(table):
            return DebiasReport.of(None, table, self._new_head(self._steps(table, "curated"), table))
        table = table.remove_columns(_made_by_steps(table))
        chosen = usual_sources(table, self.model, self.processor) if sources is None else list(sources)
        steps = self._steps(table, [_told_apart(source) for source in chosen])
        kept = {} if steps is None else {"output_dir": steps.folder / "shards", "run_id": steps.folder.name}
        told(f"[1/{STAGES}] extract: {len(table)} rows through the model")
        extracted = self.extracted(table, inputs, **kept)
        repair = curated_from(extracted, chosen, self.seed, steps=steps, act_on=self.act_on)
        told(f"[5/{STAGES}] retrain the head")
        return DebiasReport.of(repair.findings, repair.curated, self._new_head(steps, repair.curated), repair.bands)

    def table(self, rows: Dataset, label: str | None = None, labelled: bool = True) -> Dataset:
        """Return rows in plain format, with their columns named and typed as every step wants them.

        Raises:
            KeyError, TypeError, ValueError: as `usual_columns` does.
        """
        count = number_of_labels(self.model)
        names = label_names(self.model) or (None if count is None else [str(k) for k in range(count)])
        return usual_columns(rows, names, label=label, labelled=labelled)

    def extracted(self, table: Dataset, inputs: Collated | None = None, **where: Any) -> Dataset:  # noqa: ANN401 - as `extract` takes
        """Return rows with embedding, logits and prediction."""
        with self.precision():
            return extract(
                table,
                self.model,
                inputs or self.processor,
                batch_size=self.batch_size,
                num_workers=self.workers,
                head=self.head,
                on_error=self.on_error,
                **{"shard_size": SHARD_ROWS, **self.reading, **where},
            )

    def scored(self, extracted: Dataset, head: LinearHead | None = None) -> dict[str, float]:
        """Return accuracy by group, or else by class, of the model or of another head, as the trainer names them."""
        by = scored_by(self.model, extracted)
        if by is None:
            return {}
        if head is None:
            predicted = columns.labels(extracted, columns.PREDICTION)
        else:
            predicted = head(columns.matrix(extracted, columns.EMBEDDING)).argmax(dim=1).numpy()
        truth = columns.labels(extracted)
        groups = columns.labels(extracted, by[0]) if by[0] in extracted.column_names else truth
        return group_figures(by, predicted, truth, groups)

    def _control(self, curated: Dataset) -> LinearHead:
        """Return the head for the curated weights given to random rows of the same class: is it these rows, or any?"""
        weights = columns.numbers(curated, columns.WEIGHT)
        shuffled = shuffled_within(columns.labels(curated), weights, self.seed)
        rows = columns.with_columns(curated, {columns.WEIGHT: (shuffled, Value("float32"))})
        return retrain_head(rows, self.model, seed=self.seed, head=self.head)

    def _new_head(self, steps: Steps | None, curated: Dataset) -> LinearHead:
        def made() -> LinearHead:
            return retrain_head(curated, self.model, seed=self.seed, head=self.head)

        if steps is None:
            return made()
        return LinearHead.from_pretrained(steps.written("head", lambda part: made().save_pretrained(part)))

    def _steps(self, table: Dataset, sources: str | list[str]) -> Steps | None:
        if self.folder is None:
            return None
        made_from = {
            "rows": table._fingerprint,
            "sources": sources,
            "seed": self.seed,
            "head": self.head,
            "on_error": self.on_error,
            "act_on": self.act_on,
            "reading": {name: str(value) for name, value in self.reading.items() if name in CHANGES_OUTPUTS},
            "model": fingerprint(self.model),
            "version": hf_midrange.__version__,
        }
        return Steps.of(self.folder, made_from)

    def _is_curated(self, table: Dataset) -> bool:
        """Whether the rows are curated, with embeddings of this very model as far as they say whose they are."""
        if not {columns.EMBEDDING, columns.WEIGHT} <= {*table.column_names}:
            return False
        made_by = columns.facts(table.features, columns.EMBEDDING).get("fingerprint")
        if made_by in (None, fingerprint(self.model)):
            return True
        logger.warning("the curated rows have embeddings of another model; they are extracted and curated anew")
        return False


def debias(
    dataset: Dataset | DatasetDict,
    model: nn.Module | str,
    evaluation: Dataset | DatasetDict | None = None,
    sources: Sequence[Any] | None = None,
    output_dir: str | Path | None = None,
    *,
    processor: Processor | str | None = None,
    label: str | None = None,
    head: str | None = None,
    act_on: str = verdicts.SHOWN,
    batch_size: int = 64,
    seed: int = 0,
) -> DebiasReport:
    """Find the shortcuts of a classifier and repair its head; print one sentence and return everything.

    It is `extract`, `LogitBands`, `annotate`, `associate`, `curate` and `retrain_head` in one call.

    Args:
        dataset: rows that the model was not trained on, with an image or a text and a class under one of their usual
            names.
        model: the classifier, its folder or its Hub id; it is left as it is.
        evaluation: rows to score on before and after, by their `group`, or else by class.
        sources: concept sources, such as `[hm.Thumbnail()]`; None takes those that the columns allow.
        output_dir: folder for the steps, so that the same call goes on after a crash, and for what comes of them:
            `curated`, `findings`, `bands`, `head`, `report.html`, and `model` if it was repaired.
        processor: the model's tokenizer or image processor; None takes the one stored with it.
        label: column of the classes, where it is not found.
        head: name of the classifier's last linear layer, where it has several.
        act_on: `"shown"` repairs ties that are shown; `"suspected"` those too that are only suspected.
        batch_size: rows a forward pass.
        seed: of the steps that choose at random.

    Returns:
        An object with `model` (a repaired copy, or the model itself if nothing was repaired), `head`, `verdict`,
        `findings`, `curated`, `before`, `after`, `shortcuts` and `report`.

    Raises:
        KeyError: if columns are missing.
        ValueError: if labels are not classes of the model, there is more than one split, the head cannot be replaced,
            or the repaired model would be another one once it is loaded.

    Examples:
        ```python
        repaired = hm.debias(held_out, "me/my-classifier", evaluation=test)
        repaired.model.save_pretrained("repaired")
        ```
    """
    classifier = load_classifier(model) if isinstance(model, str) else model
    folder = None if output_dir is None else Path(output_dir)
    work = Debiasing(classifier, processor, seed, folder and folder / STEPS, batch_size, head=head, act_on=act_on)
    test = None if evaluation is None else one_of(evaluation, "evaluation")
    outcome = work.whole(one_of(dataset, "dataset"), test, sources, label)
    if PartialState().is_main_process:
        if folder is not None:
            outcome.write(folder, processor)
        print(outcome.sentence)  # noqa: T201 - what was found is said
    return outcome


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
