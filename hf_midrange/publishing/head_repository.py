"""The head alone: a few kilobytes on top of a base model pinned to one revision."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from datasets import Dataset, DatasetDict
from huggingface_hub import CommitInfo, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from hf_midrange.io.files import to_json
from hf_midrange.publishing.cards import write_model_card
from hf_midrange.publishing.model import RESULTS, Background, model_facts
from hf_midrange.publishing.repository import PublishError, Repository, State, open_repository, refuse_non_id


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_midrange.head import LinearHead

BASE_FILE = "base.json"
"""Beside the head: which model, at which commit, it belongs to."""
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
    commit_message: str | None = None,
    create_pr: bool = False,
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
        commit_message: title of the commit or pull request.
        create_pr: open a pull request on a repository that exists, with the card as its text, and commit nothing to
            its main branch; the commit that comes back has its address as `pr_url`.

    Raises:
        PublishError: as `publish_model` does, and if the base is no image or sequence classifier on the Hub, or has
            another number of classes or another width than the head.
    """
    refuse_non_id("base_model", base_model)
    if base_revision is not None and not _COMMIT.fullmatch(base_revision):
        raise PublishError(f"`base_revision` must be a commit, 40 hexadecimal digits, but is {base_revision!r}")
    repository = open_repository(
        repo_id, "model", private=private, token=token, revision=revision, create_pr=create_pr
    )
    pinned = base_revision or _newest(repository, base_model)
    merged = head.merge_into(_load_base(base_model, pinned, repository.token))  # raises if it does not fit
    background = Background(head, curated, findings, metrics, license=license)
    facts = replace(
        model_facts(merged, repository.repo_id, background),
        base_model=base_model,
        base_revision=pinned,
        library="hf_midrange",
    )
    base = {"base_model": base_model, "base_revision": pinned, "class_names": list(facts.classes)}

    def write(folder: Path) -> None:
        head.save_pretrained(folder)
        (folder / BASE_FILE).write_text(to_json(base, indent=2) + "\n", encoding="utf-8")
        write_model_card(facts, folder)

    def refuse_other(state: State) -> None:
        same = {"base_model": base_model, "class_names": base["class_names"]}
        repository.refuse_different(state, BASE_FILE, "a head", same)

    return repository.commit(
        write, message=commit_message or "Publish corrected head", stale=RESULTS, refuse_other=refuse_other
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

    head = LinearHead.from_pretrained(repo_id, revision=revision, token=token)
    if model is None:
        base = _base_of(repo_id, revision, token)
        model = _load_base(base["base_model"], base["base_revision"], token)
    return head.merge_into(model)


def _base_of(repo_id: str, revision: str | None, token: str | None) -> dict[str, Any]:
    """Return what a published head says of its base model."""
    local = Path(repo_id) / BASE_FILE
    try:
        path = local if Path(repo_id).exists() else hf_hub_download(repo_id, BASE_FILE, revision=revision, token=token)
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, EntryNotFoundError) as error:
        raise ValueError(f"{repo_id} holds a head that names no base model; pass it as `model`") from error


def _load_base(base_model: str, revision: str, token: str | None) -> PreTrainedModel:
    from hf_midrange.classifier import load_classifier

    return cast("PreTrainedModel", load_classifier(base_model, revision=revision, token=token))


def _newest(repository: Repository, base_model: str) -> str:
    return str(repository.ask("find the base model for", lambda: repository.api.model_info(base_model)).sha)
