"""`publish_model`: a repaired classifier that anyone loads without this package, in one commit."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset, DatasetDict
from huggingface_hub import CommitInfo

from hf_midrange import columns
from hf_midrange.curation.report import NOTHING
from hf_midrange.io.folders import scratch_folder
from hf_midrange.publishing import gather, metadata
from hf_midrange.publishing.cards import model_card
from hf_midrange.publishing.commit import commit, files_in
from hf_midrange.publishing.facts import CurationFacts, ModelFacts, Score
from hf_midrange.publishing.patience import PublishError
from hf_midrange.publishing.target import State, Target, open_target


if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

    from hf_midrange.head import LinearHead

OURS = "hf_midrange"
"""The name of the published head in the table of scores."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_WEIGHTS = re.compile(r"(model|pytorch_model|tf_model|flax_model)([.-].*)?\.(safetensors|bin|h5|msgpack|json)")


def publish_model(
    model: PreTrainedModel,
    repo_id: str,
    *,
    processor: Any | None = None,  # noqa: ANN401 - tokenizers, image processors and others share no class
    head: LinearHead | None = None,
    curated: Dataset | DatasetDict | None = None,
    findings: Dataset | None = None,
    metrics: Mapping[str, Any] | None = None,
    controls: Mapping[str, Mapping[str, Any]] | None = None,
    base_model: str | None = None,
    dataset: str | None = None,
    split: str = "test",
    curated_id: str | None = None,
    license: str | None = None,
    private: bool = True,
    token: str | None = None,
    revision: str | None = None,
) -> CommitInfo:
    """Publish a repaired model on the Hub, with its card, in one commit; return that commit.

    It is saved as the class it is, so that `from_pretrained` and `pipeline` load it without this package. Files are
    written to a temporary folder first; if anything fails, the repository holds what it held before.

    Args:
        model: a transformers classifier, such as `head.merge_into(model)` gives.
        repo_id: `name` or `namespace/name`.
        processor: its tokenizer or image processor, saved beside it.
        head: put into a copy of `model` first; the card then names the parameters that changed.
        curated: what `curate` returned; its verdict goes into the card, its class names to a model without any.
        findings: what `associate` returned, for the card.
        metrics: what `group_metrics` says of this model: `mean`, `worst_group`, intervals.
        controls: the same of other heads, by name, for the table.
        base_model: Hub id of the model before repair; by default the id that `model` was loaded from.
        dataset: Hub id of the data set that `metrics` are of.
        split: its split.
        curated_id: Hub id of the published curated data set.
        license: the model's licence, usually that of the base model.
        private: whether a new repository is private. An existing public one is then refused.
        token: by default the one stored by `hf auth login` or in HF_TOKEN; needs write access.
        revision: branch to publish to, made if need be.

    Raises:
        TypeError: if `model` is no transformers model.
        PublishError: bad input, found before anything is uploaded: an invalid id, no token or one that may not write,
            an existing public repository, another model there. Also when the Hub stays unreachable.
        ValueError: if `head` does not fit the model, or `metrics` lack `mean` or `worst_group`.
    """
    _refuse_unsaved(model, processor)
    for name, value in (("base_model", base_model), ("dataset", dataset), ("curated_id", curated_id)):
        refuse_non_id(name, value)
    if head is not None:
        model = head.merge_into(model)
    facts = model_facts(
        model,
        repo_id,
        head=head,
        curated=curated,
        findings=findings,
        metrics=metrics,
        controls=controls,
        base_model=base_model,
        dataset=dataset,
        split=split,
        curated_id=curated_id,
        license=license,
        has_processor=processor is not None,
    )
    model_card(facts)  # what a card cannot say is refused before the Hub is asked
    target = open_target(repo_id, "model", private=private, token=token, revision=revision)
    return _publish(model, processor, facts, target)


def model_facts(
    model: PreTrainedModel,
    repo_id: str,
    *,
    head: LinearHead | None = None,
    curated: Dataset | DatasetDict | None = None,
    findings: Dataset | None = None,
    metrics: Mapping[str, Any] | None = None,
    controls: Mapping[str, Mapping[str, Any]] | None = None,
    base_model: str | None = None,
    dataset: str | None = None,
    split: str = "test",
    curated_id: str | None = None,
    license: str | None = None,
    has_processor: bool = False,
) -> ModelFacts:
    """Return everything that a model's card says; arguments are those of `publish_model`."""
    from hf_midrange.classifier import last_linear, modality

    name, _ = last_linear(model)
    base = base_model or _loaded_from(model)
    curation = _curation(curated)
    corrected = curation is None or curation.verdict != NOTHING
    return ModelFacts(
        repo_id=repo_id,
        architecture=type(model).__name__,
        task="text-classification" if modality(model) == "text" else "image-classification",
        classes=tuple(class_names(model, head, curated)),
        versions=gather.versions(),
        base_model=base,
        base_revision=getattr(model.config, "_commit_hash", None) if base else None,
        licence=license,
        has_processor=has_processor or hasattr(model, "timm_model"),  # timm keeps its preprocessing in the config
        changed=(f"{name}.weight", f"{name}.bias") if head is not None and corrected else (),
        score=Score.of(OURS, metrics) if metrics is not None else None,
        controls=tuple(Score.of(name, of_control) for name, of_control in (controls or {}).items()),
        **gather.finding_facts(findings),
        curation=curation,
        dataset=dataset,
        split=split,
        curated=curated_id,
        corrected=corrected,
    )


def write_files(
    model: PreTrainedModel,
    processor: Any | None,  # noqa: ANN401 - see publish_model
    facts: ModelFacts,
    repo_id: str,
    folder: Path,
) -> None:
    """Write everything that a model's repository holds into `folder`."""
    facts = replace(facts, repo_id=repo_id)
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    _name_classes(model, facts.classes, folder)
    texts = {"README.md": model_card(facts), **metadata.eval_results(facts)}
    for path, text in texts.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")


def class_names(model: nn.Module, head: LinearHead | None, curated: Dataset | DatasetDict | None) -> list[str]:
    """Return the model's class names; where it has none (LABEL_0, ...) those of the head or the curated data.

    Raises:
        PublishError: if there is another number of names than of classes.
    """
    from hf_midrange.classifier import label_names

    own = label_names(model) or []
    if own and own != [f"LABEL_{k}" for k in range(len(own))]:
        return own
    given = list(head.class_names) if head is not None and head.class_names else None
    if given is None and curated is not None:
        given = list(columns.class_label(_one(curated).features).names)
    if given is None:
        return own
    if len(given) != len(own):
        raise PublishError(f"there are {len(given)} class names ({given[:6]}) for a model of {len(own)} classes")
    return given


def refuse_non_id(name: str, value: str | None) -> None:
    """Raise `PublishError` if `value` is neither None nor the form of a Hub id."""
    if value is not None and not _HUB_ID.fullmatch(value):
        raise PublishError(f"`{name}` must be a Hub id, such as 'me/waterbirds', but is {value!r}")


def _publish(model: PreTrainedModel, processor: Any | None, facts: ModelFacts, target: Target) -> CommitInfo:  # noqa: ANN401
    state = target.ask("look at", target.state)
    with scratch_folder() as folder:
        write_files(model, processor, facts, target.repo_id, folder)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if state is not None:
            target.ask("read", lambda: _refuse_other(target, state, config))
        return commit(
            target,
            files_in(folder),
            message="Publish repaired model",
            stale=_is_replaced,
            refuse_other=lambda state: _refuse_other(target, state, config),
        )


def _refuse_unsaved(model: Any, processor: Any) -> None:  # noqa: ANN401 - whatever a caller gave
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise TypeError(
            f"publish_model takes a transformers model, not {type(model).__name__}; load a timm model with "
            "`AutoModelForImageClassification.from_pretrained('timm/...')`, or use `publish_head`"
        )
    if processor is not None and not hasattr(processor, "save_pretrained"):
        raise TypeError(f"`processor` is {type(processor).__name__}, which has no `save_pretrained`; leave it out")


def _loaded_from(model: PreTrainedModel) -> str | None:
    """Return the Hub id that a model was loaded from; a local path stays private."""
    name = str(getattr(model.config, "_name_or_path", "") or "")
    return name if _HUB_ID.fullmatch(name) and not Path(name).exists() else None


def _curation(curated: Dataset | DatasetDict | None) -> CurationFacts | None:
    if curated is None:
        return None
    split = _one(curated)
    return gather.curation_facts(split, str(split.split or "train"))


def _one(curated: Dataset | DatasetDict) -> Dataset:
    return next(iter(curated.values())) if isinstance(curated, DatasetDict) else curated


def _name_classes(model: PreTrainedModel, names: tuple[str, ...], folder: Path) -> None:
    """Write class names into the saved config of a model that has none of its own."""
    from hf_midrange.classifier import label_names

    if list(names) == label_names(model):
        return
    config: Any = type(model.config).from_pretrained(folder)
    config.id2label, config.label2id = dict(enumerate(names)), {name: k for k, name in enumerate(names)}
    config.save_pretrained(folder)


def _is_replaced(path: str) -> bool:
    """Return whether a file there speaks of other weights: weight files themselves, and results measured on them."""
    return bool(_WEIGHTS.fullmatch(path)) or path.startswith(".eval_results/")


def _refuse_other(target: Target, state: State, config: Mapping[str, Any]) -> None:
    """Refuse to replace what is no model of this architecture with these classes."""
    if not state.content:
        return
    there = target.read_json("config.json", state)
    if there is None:
        raise PublishError(
            f"{target.repo_id} exists and holds no transformers model ({', '.join(state.content[:4])}, ...); "
            "choose another id"
        )
    for key in ("architectures", "model_type", "architecture", "id2label", "label_names"):
        if there.get(key) != config.get(key):
            raise PublishError(
                f"{target.repo_id} exists and holds another model: its {key} is {there.get(key)}, here it is "
                f"{config.get(key)}; choose another id"
            )
