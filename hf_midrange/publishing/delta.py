"""The head alone: a few kilobytes on top of a base model pinned to one revision."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from datasets import Dataset, DatasetDict
from huggingface_hub import CommitInfo, HfApi, hf_hub_download

from hf_midrange.io.files import sealed
from hf_midrange.io.folders import scratch_folder
from hf_midrange.publishing import metadata
from hf_midrange.publishing.cards import model_card
from hf_midrange.publishing.commit import commit, files_in
from hf_midrange.publishing.facts import ModelFacts
from hf_midrange.publishing.model import model_facts, refuse_non_id
from hf_midrange.publishing.patience import PublishError
from hf_midrange.publishing.target import State, Target, open_target


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_midrange.head import LinearHead

BASE, REVISION = "base_model", "base_revision"
"""Keys of head.json beside those of `LinearHead.save_pretrained`."""
_COMMIT = re.compile(r"[0-9a-f]{40}")


def publish_head(
    head: LinearHead,
    repo_id: str,
    *,
    base_model: str,
    base_revision: str | None = None,
    curated: Dataset | DatasetDict | None = None,
    findings: Dataset | None = None,
    metrics: Mapping[str, Any] | None = None,
    license: str | None = None,
    private: bool = True,
    token: str | None = None,
    revision: str | None = None,
) -> CommitInfo:
    """Publish a head alone, in one commit; `apply_head(repo_id)` gives the base model with it.

    Args:
        head: what `retrain_head` returned.
        repo_id: `name` or `namespace/name`.
        base_model: Hub id of the model whose embeddings the head acts on.
        base_revision: its commit, 40 hexadecimal digits; by default its newest one now.
        curated: what `curate` returned, for the card.
        findings: what `associate` returned, for the card.
        metrics: what `group_metrics` says of the model with this head.
        license: as in `publish_model`.
        private: as in `publish_model`.
        token: as in `publish_model`; it must also read the base model, if that is private.
        revision: branch to publish to, made if need be.

    Raises:
        PublishError: as `publish_model` does, and if the base is no image or sequence classifier on the Hub, or has
            another number of classes or another width than the head.
    """
    refuse_non_id("base_model", base_model)
    if base_revision is not None and not _COMMIT.fullmatch(base_revision):
        raise PublishError(f"`base_revision` must be a commit, 40 hexadecimal digits, but is {base_revision!r}")
    target = open_target(repo_id, "model", private=private, token=token, revision=revision)
    pinned = base_revision or _newest(target, base_model)
    base = _load_base(base_model, pinned, target.token)
    merged = head.merge_into(base)  # raises if it does not fit
    facts = _facts(head, merged, target.repo_id, (base_model, pinned), curated, findings, metrics, license)
    with scratch_folder() as folder:
        _write_files(head, facts, folder)
        return commit(
            target,
            files_in(folder),
            message="Publish corrected head",
            stale=lambda path: path.startswith(".eval_results/"),
            refuse_other=lambda state: _refuse_other(target, state, base_model, list(facts.classes)),
        )


def apply_head(
    repo_id: str, model: PreTrainedModel | None = None, *, revision: str | None = None, token: str | None = None
) -> PreTrainedModel:
    """Return the base model at its pinned revision with the published head, of the same class as the base.

    Args:
        repo_id: where `publish_head` put the head, or a local folder with those files.
        model: the base model, if it is at hand; otherwise it is downloaded.
        revision: of the head's repository.
        token: for private repositories.

    Raises:
        FileNotFoundError: if there is no head.
        ValueError: if the head names no base model, or does not fit `model`.
    """
    from hf_midrange.head import LinearHead
    from hf_midrange.head.linear_head import CONFIG_FILE, read_facts

    head = LinearHead.from_pretrained(repo_id, revision=revision, token=token)
    if model is not None:
        return head.merge_into(model)
    local = Path(repo_id) / CONFIG_FILE
    path = local if local.is_file() else Path(hf_hub_download(repo_id, CONFIG_FILE, revision=revision, token=token))
    facts = read_facts(path)
    if not facts.get(BASE):
        raise ValueError(f"{repo_id} holds a head that names no base model; pass it as `model`")
    return head.merge_into(_load_base(facts[BASE], facts.get(REVISION), token))


def _load_base(base_model: str, revision: str | None, token: str | None) -> PreTrainedModel:
    from hf_midrange.classifier import load_classifier

    return cast("PreTrainedModel", load_classifier(base_model, revision=revision, token=token))


def _newest(target: Target, base_model: str) -> str:
    return str(target.ask("find the base model for", lambda: HfApi(token=target.token).model_info(base_model)).sha)


def _facts(
    head: LinearHead,
    merged: PreTrainedModel,
    repo_id: str,
    base: tuple[str, str],
    curated: Dataset | DatasetDict | None,
    findings: Dataset | None,
    metrics: Mapping[str, Any] | None,
    license: str | None,
) -> ModelFacts:
    whole = model_facts(
        merged, repo_id, head=head, curated=curated, findings=findings, metrics=metrics, license=license
    )
    return replace(whole, base_model=base[0], base_revision=base[1], head_only=True)


def _write_files(head: LinearHead, facts: ModelFacts, folder: Path) -> None:
    from hf_midrange.head.linear_head import CONFIG_FILE, read_facts

    head.save_pretrained(folder)
    saved = read_facts(folder / CONFIG_FILE)
    saved |= {"class_names": list(facts.classes) or None, BASE: facts.base_model, REVISION: facts.base_revision}
    texts = {CONFIG_FILE: sealed(saved, indent=2) + "\n", "README.md": model_card(facts)}
    for path, text in {**texts, **metadata.eval_results(facts)}.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def _refuse_other(target: Target, state: State, base_model: str, classes: list[str]) -> None:
    if not state.content:
        return
    there = target.read_json("head.json", state)
    if there is None or "config.json" in state.files:
        raise PublishError(f"{target.repo_id} exists and holds something else than a head; choose another id")
    if there.get(BASE) != base_model or list(there.get("class_names") or ()) != classes:
        raise PublishError(
            f"{target.repo_id} exists and holds the head of {there.get(BASE)} for {there.get('class_names')}; this "
            f"one is of {base_model} for {classes}; choose another id"
        )
