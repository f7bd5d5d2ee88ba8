"""What is told of a model at each evaluation: accuracy by group, or else by class, and the middle of its logits."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from datasets import ClassLabel, Dataset
from torch import nn
from transformers import TrainerCallback

from hf_midrange import columns
from hf_midrange.classifier import label_names, number_of_labels
from hf_midrange.columns import GROUP, LABEL, PSEUDO_GROUP
from hf_midrange.input_columns import encoded_labels
from hf_midrange.scoring import group_metrics
from hf_midrange.training.row_inputs import LABEL_COLUMNS, with_classes


CLASS = "class"
"""What rows without groups are scored by."""


def group_figures(
    by: tuple[str, Sequence[str]],
    predicted: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
) -> dict[str, float]:
    """Return accuracy by group with its intervals, under the names by which a trainer logs it.

    Args:
        by: `group`, `pseudo_group` or `class`, and the names of the groups by id.
        predicted: class ids, of shape `(n,)`.
        truth: class ids, of shape `(n,)`; of another shape, for a label a word or several a row, there are no figures.
        groups: group ids, of shape `(n,)`; rows without a group count for none of the figures.
    """
    column, names = by
    known = (groups >= 0) & (groups < len(names))
    if truth.ndim > 1 or not known.any():
        return {}
    found = group_metrics(predicted[known], truth[known], groups[known], group_names=names)
    figures = _with_interval("accuracy", found["mean"], *found["mean_ci"])
    figures |= _with_interval(f"worst_{column}_accuracy", found["worst_group"], *found["worst_group_ci"])
    for key, name in zip(figure_keys(names), names, strict=True):
        if name in found["groups"]:
            row = found["groups"][name]
            figures |= _with_interval(f"{column}_accuracy_{key}", row["accuracy"], row["ci_low"], row["ci_high"])
    return figures


def scored_column(features: Any) -> str | None:  # noqa: ANN401 - Features, or None where they are not known
    """Return the column by which rows are scored, `group` or else `pseudo_group`; None if there is neither."""
    for name in (GROUP, PSEUDO_GROUP):
        if isinstance((features or {}).get(name), ClassLabel):
            return name
    return None


def scored_by(model: nn.Module, dataset: Any) -> tuple[str, list[str]] | None:  # noqa: ANN401 - any dataset
    """Return what to score rows by, `group`, `pseudo_group` or `class`, and its names; None if not by one label."""
    kind = getattr(getattr(model, "config", None), "problem_type", None)
    features, count = getattr(dataset, "features", None) or {}, number_of_labels(model)
    label: Any = features.get(LABEL)
    pair = count == 1 and isinstance(label, ClassLabel) and label.num_classes == 2  # one logit, for and against
    if kind == "regression" or (not pair and (count == 1 or kind == "multi_label_classification")):
        return None
    column = scored_column(features)
    if column is not None:
        return column, list(features[column].names)
    names = list(label.names) if pair else label_names(model) or [str(k) for k in range(count or 0)]
    return (CLASS, names) if names else None


def _with_interval(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: float(value), f"{name}_ci_low": float(low), f"{name}_ci_high": float(high)}


def figure_keys(names: Sequence[str]) -> list[str]:
    """Return the names as loggers take them in keys, kept apart by their number where they would fall together."""
    plain = [re.sub(r"[^\w.\- ]", "_", name) for name in names]
    return [key if plain.count(key) == 1 else f"{key}_{k}" for k, key in enumerate(plain)]


class MidRangeCallback(TrainerCallback):
    """Logs groups, bands and associations at each evaluation of a `Trainer`, through `Trainer.log`.

    It reads the logits off the passes that the evaluation makes anyway, and changes nothing in them. All figures are
    in `log_history`, on what `report_to` names, and among the metrics that `evaluate` returns, so that
    `metric_for_best_model="worst_group_accuracy"` works:

    - `eval_accuracy`, `eval_worst_group_accuracy` and each group's, as `MidRangeTrainer` has them; by `pseudo_group`
      or by class where rows have no `group`;
    - `eval_mid_share_<class>`: share of the rows whose logit of the class is in its middle band;
    - `eval_mid_low_<class>` and `eval_mid_high_<class>`: the logits at which the band begins and ends;
    - `eval_odds_<class>_<source>: <concept>`: odds ratios of the most significant associations, where rows have
      `concepts_<source>`.

    Args:
        trainer: the `Trainer` that it is added to: of transformers, or a subclass of it.
        rows: the rows of the evaluation, in the same order, with `group` or concepts; None: its `eval_dataset`.
        associations: how many are logged.

    Examples:
        ```python
        trainer.add_callback(hm.MidRangeCallback(trainer, rows=hm.annotate(test, [hm.ImageProperties()])))
        ```
    """

    def __init__(self, trainer: Any, rows: Dataset | None = None, associations: int = 3) -> None:  # noqa: ANN401 - any
        self.trainer, self.rows, self.associations = trainer, rows, associations
        self._last: torch.Tensor | None = None
        self._seen: list[torch.Tensor] = []
        self._watched: nn.Module | None = None
        self._watch(trainer.model)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Watch the model that is trained, which `model_init` may just have made."""
        self._watch(self.trainer.model)

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Keep the logits of the batch that was just evaluated."""
        if self._last is not None:
            self._seen.append(self._last)
        self._last = None

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Forget the logits of a prediction."""
        self._seen.clear()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """Log what the logits of the rows say, unless the rows are not known."""
        metrics: dict[str, float] = kwargs["metrics"]
        seen, self._seen = [batch.float().cpu().numpy() for batch in self._seen], []
        prefix = next((key.removesuffix("_runtime") for key in metrics if key.endswith("_runtime")), "eval")
        rows = self._rows(prefix, getattr(kwargs.get("eval_dataloader"), "dataset", None))
        every = gather_object([seen]) if args.world_size > 1 else [seen]
        # Batches are dealt to processes by turns, and the last ones are filled up with rows of the beginning.
        batches = [part[k] for k in range(max(map(len, every), default=0)) for part in every if k < len(part)]
        if rows is None or sum(map(len, batches)) < len(rows) or not len(rows):
            return
        found = self._figures(rows, np.concatenate(batches)[: len(rows)])
        new = {f"{prefix}_{name}": value for name, value in found.items() if f"{prefix}_{name}" not in metrics}
        metrics.update(new)
        self.trainer.log(new)

    def _watch(self, model: nn.Module | None) -> None:
        if model is not None and model is not self._watched:
            self._watched = model
            model.register_forward_hook(self._note)

    def _note(self, module: nn.Module, given: Any, output: Any) -> None:  # noqa: ANN401 - of any model
        """Note the logits of a pass without gradients; the last one before a prediction step is of its batch."""
        logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
        if isinstance(logits, torch.Tensor) and not module.training and not torch.is_grad_enabled():
            self._last = logits.detach()

    def _rows(self, prefix: str, evaluated: Any) -> Dataset | None:  # noqa: ANN401 - any dataset
        """Return the rows of an evaluation with their labels as classes; None where they are not known."""
        own = self.trainer.eval_dataset
        if isinstance(own, dict):
            own = next((own[name] for name in own if prefix.endswith(f"_{name}")), None)
        for rows in (self.rows, own, evaluated):
            if isinstance(rows, Dataset) and isinstance(evaluated, Dataset) and len(rows) == len(evaluated):
                rows = rows.with_format(None)
                label = next((name for name in LABEL_COLUMNS if name in rows.column_names), None)
                if label is not None:
                    rows = rows if label == columns.LABEL else rows.rename_column(label, columns.LABEL)
                    names = label_names(self.trainer.model)
                    return encoded_labels(with_classes(rows, names), names)
        return None

    def _figures(self, rows: Dataset, logits: np.ndarray) -> dict[str, float]:
        """Return every figure of labelled rows and their logits `(n, C)`, by name without prefix."""
        by = scored_by(self.trainer.model, rows)
        if by is None or logits.ndim != 2 or logits.shape[1] != columns.class_label(rows.features).num_classes:
            return {}
        truth = columns.labels(rows)
        groups = columns.labels(rows, by[0]) if by[0] in rows.column_names else truth
        figures = group_figures(by, logits.argmax(axis=1), truth, groups)
        wanted = [name for name in rows.column_names if name.startswith((columns.CONCEPTS_PREFIX, columns.SOURCE_ID))]
        rows = rows.select_columns([columns.LABEL, *wanted])
        table = columns.with_columns(rows, {columns.LOGITS: (logits, columns.vector(logits.shape[1]))})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of classes without bands, at every evaluation
            return {**figures, **_of_middle(table, self.associations if wanted else 0)}


def _of_middle(table: Dataset, associations: int) -> dict[str, float]:
    """Return share and ends of the middle band of each class, and odds ratios of the first associations."""
    from hf_midrange.association import associate
    from hf_midrange.bands import LogitBands

    try:
        bands = LogitBands().fit(table)
    except ValueError:  # early in training no class may score higher for its own rows
        return {}
    banded = bands.transform(table)
    names = columns.class_label(table.features).names
    middle = (columns.matrix(banded, columns.BAND) == 1).mean(axis=0)
    found: dict[str, float] = {}
    for key, unit, share in zip(figure_keys(names), bands.fitted, middle, strict=True):
        if unit.cuts is not None:
            low, high = unit.cuts
            found |= {f"mid_share_{key}": float(share), f"mid_low_{key}": low, f"mid_high_{key}": high}
    if associations:
        for row in associate(banded).to_list()[:associations]:
            found[f"odds_{row['unit_name']}_{row['source']}: {row['concept']}"] = float(row["odds_ratio"])
    return found
