"""The card of a trained model: what the trainer measured, and if it debiased the model, what it found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import ModelCard, ModelCardData

from hf_midrange.curation.report import NOTHING
from hf_midrange.publishing.cards import model_card
from hf_midrange.publishing.metadata import eval_results
from hf_midrange.publishing.model import model_facts


if TYPE_CHECKING:
    from hf_midrange.training.trainer import MidRangeTrainer

BEFORE = "before debiasing"


def write_card(
    trainer: MidRangeTrainer,
    folder: Path,
    *,
    name: str,
    base_model: str | None = None,
    dataset: str | None = None,
    license: str | None = None,
    language: str | None = None,
    tags: Sequence[str] = (),
) -> None:
    """Write the card and, where a Hub data set is named, the results beside it.

    Args:
        trainer: after training, and perhaps after `debias`.
        folder: where to write.
        name: of the model: its id on the Hub, or a folder's name.
        base_model: Hub id; None: the one that the model was loaded from.
        dataset: Hub id of the evaluation set.
        license: of the model.
        language: of the texts.
        tags: more tags.
    """
    report = trainer.debias_report
    rows = trainer.eval_dataset
    corrected = report is not None and report.verdict != NOTHING
    told = report is not None and bool(report.curation.get("cells"))  # not by rows with weights of the user's own
    before = _score(report.before) if report is not None and corrected else None
    facts = model_facts(
        trainer.accelerator.unwrap_model(trainer.model),
        re.sub(r"[^\w./-]+", "-", name),  # it stands in the code of the card
        head=report.head if report is not None and corrected else None,
        curated=report.curated if report is not None and told else None,
        findings=report.findings if report is not None else None,
        metrics=_score(_latest(trainer)),
        controls={BEFORE: before} if before else None,
        base_model=base_model,
        dataset=dataset,
        split=str(getattr(rows, "split", None) or "evaluation"),
        license=license,
        has_processor=trainer.processing_class is not None,
    )
    facts = replace(facts, corrected=corrected)
    card = ModelCard(model_card(facts))
    data = cast(ModelCardData, card.data)
    data.language = language
    data.tags = list(dict.fromkeys([*(data.tags or []), *tags]))
    for path, content in {"README.md": str(card), **eval_results(facts)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")


def _latest(trainer: MidRangeTrainer) -> dict[str, float]:
    """Return the metrics of the last evaluation of the model as it is, by their names without prefix."""
    report = trainer.debias_report
    entries = [entry for entry in trainer.state.log_history if "eval_worst_group_accuracy" in entry]
    if report is not None and report.after is not None and entries[-1:] != trainer.state.log_history[-1:]:
        return dict(report.after)
    return {key.removeprefix("eval_"): value for key, value in (entries[-1] if entries else {}).items()}


def _score(metrics: Mapping[str, float] | None) -> dict[str, Any] | None:
    """Return metrics as `group_metrics` names them; None where rows were not scored by group."""
    names = {"mean": "accuracy", "worst_group": "worst_group_accuracy"}
    found = metrics or {}
    if not all(0 <= found.get(name, -1) <= 1 for name in names.values()):
        return None
    score: dict[str, Any] = {key: found[name] for key, name in names.items()}
    for key, name in names.items():
        if f"{name}_ci_low" in found:
            score[f"{key}_ci"] = (found[f"{name}_ci_low"], found[f"{name}_ci_high"])
    return score
