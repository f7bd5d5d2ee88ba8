"""The card of a trained model: what the trainer measured, and if it debiased the model, what it found."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from huggingface_hub import ModelCard, ModelCardData
from transformers import PreTrainedModel

from hf_midrange.curation.report import NOTHING
from hf_midrange.publishing.cards import model_card
from hf_midrange.publishing.metadata import eval_results
from hf_midrange.publishing.model import Background, model_facts
from hf_midrange.training.report import DebiasReport


BEFORE = "before debiasing"


def write_card(
    folder: Path,
    model: PreTrainedModel,
    name: str,
    background: Background,
    report: DebiasReport | None,
    metrics: Mapping[str, float] | None,
    *,
    language: str | None = None,
    tags: Sequence[str] = (),
) -> None:
    """Write the card and, where a Hub data set is named, the results beside it.

    Args:
        folder: where to write.
        model: as it is now, not wrapped.
        name: of the model: its id on the Hub, or a folder's name.
        background: base model, data set, licence and the like; what `debias` found is added here.
        report: what `debias` found and did, if it was called.
        metrics: of the model as it is now, by their names without prefix.
        language: of the texts.
        tags: more tags.
    """
    corrected = report is not None and report.verdict != NOTHING
    background = replace(background, metrics=_score(metrics))
    if report is not None:
        before = _score(report.before) if corrected else None
        background = replace(
            background,
            head=report.head if corrected else None,
            curated=report.curated if report.curation.get("cells") else None,  # not rows weighted by the user
            findings=report.findings,
            controls={BEFORE: before} if before else None,
        )
    # The name stands in the code of the card.
    facts = replace(model_facts(model, re.sub(r"[^\w./-]+", "-", name), background), corrected=corrected)
    card = ModelCard(model_card(facts))
    data = cast(ModelCardData, card.data)
    data.language = language
    data.tags = list(dict.fromkeys([*(data.tags or []), *tags]))
    for path, content in {"README.md": str(card), **eval_results(facts)}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content, encoding="utf-8")


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
