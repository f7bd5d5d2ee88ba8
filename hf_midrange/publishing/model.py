"""`publish_model`: a repaired classifier that anyone loads without this package, in one commit.

`publish_head` shares the head alone: a few kilobytes on top of a base model pinned to one revision.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, cast

from datasets import Dataset, DatasetDict
from huggingface_hub import CommitInfo, hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

from hf_midrange import columns
from hf_midrange.io.files import to_json
from hf_midrange.publishing.cards import model_card, write_model_card
from hf_midrange.publishing.facts import CurationFacts, ModelFacts, Score, curation_facts, finding_facts, versions
from hf_midrange.publishing.repository import CommitOptions, PublishError, is_hub_id, open_repository, refuse_non_id


if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel

    from hf_midrange.head import LinearHead

OURS = "hf_midrange"
"""The name of the published head in the table of scores."""
RESULTS = r"\.eval_results/.*"
ADAPTER = "adapter_config.json"
BASE_FILE = "base.json"
"""Beside a published head: which model, at which commit, it belongs to."""
_COMMIT = re.compile(r"[0-9a-f]{40}")
STALE = (
    rf"(model|adapter_model|pytorch_model|tf_model|flax_model)([.-].*)?\.(safetensors|bin|h5|msgpack|json)|{RESULTS}"
)
"""Files that speak of other weights: weight files themselves, and results measured on them."""


@dataclass(frozen=True)
class Background:
    """What a caller knows of a model beside the model, for its card; most fields are arguments of `publish_model`."""

    head: LinearHead | None = None
    curated: Dataset | DatasetDict | None = None
    findings: Dataset | None = None
    metrics: Mapping[str, Any] | None = None
    controls: Mapping[str, Mapping[str, Any]] | None = None
    base_model: str | None = None
    dataset: str | None = None
    split: str = "test"
    curated_id: str | None = None
    license: str | None = None
    has_processor: bool = False
    """Whether a tokenizer or image processor is saved beside the model."""
    layer: str | None = None
    language: str | None = None
    tags: Sequence[str] = ()


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
    layer: str | None = None,
    **commit: Unpack[CommitOptions],
) -> CommitInfo:
    """Publish a repaired model on the Hub, with its card, in one commit; return that commit.

    It is saved as the class it is, so that `from_pretrained` and `pipeline` load it without this package. Files are
    written to a temporary folder first; if anything fails, the repository holds what it held before.

    Args:
        model: a transformers classifier, such as `head.merge_into(model)` gives, or one of peft's, of which the
            adapter alone is published.
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
        layer: name of the classifier's last linear layer, where it has several.
        **commit: `private`, `token`, `revision`, `commit_message` and `create_pr`, of `CommitOptions`.

    Raises:
        TypeError: if `model` is not a transformers model.
        PublishError: bad input, found before anything is uploaded: an invalid id, no token, an existing public
            repository, another model there, a model that would not load as it is. Also when the Hub refuses the
            token, or stays unreachable.
        ValueError: if `head` does not fit the model, or `metrics` lack `mean` or `worst_group`.
    """
    _refuse_unsaved(model, processor)
    for name, value in (("base_model", base_model), ("dataset", dataset), ("curated_id", curated_id)):
        refuse_non_id(name, value)
    background = Background(
        head, curated, findings, metrics, controls, base_model, dataset, split, curated_id, license,
        has_processor=processor is not None, layer=layer,
    )  # fmt: skip
    if head is not None or _is_adapter(model):  # an adapter saves its own copy of the head
        model = (head or _head_of(model, layer)).merge_into(model, layer)
    _refuse_unrepaired(model, background, processor)
    facts = model_facts(model, repo_id, background)
    model_card(facts)  # what a card cannot say is refused before the Hub is asked
    repository = open_repository(repo_id, "model", **commit)
    facts = replace(facts, repo_id=repository.repo_id)
    identity = _identity(model, facts)
    where, what = (ADAPTER, "an adapter") if _is_adapter(model) else ("config.json", "a transformers model")
    return repository.commit(
        lambda folder: write_files(model, processor, facts, folder),
        title="Publish repaired model",
        stale=STALE,
        refuse_other=lambda state: repository.refuse_different(state, where, what, identity),
    )


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
    layer: str | None = None,
    **commit: Unpack[CommitOptions],
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
        layer: name of the base model's last linear layer, where it has several.
        **commit: as in `publish_model`; the token must also read the base model, if that is private.

    Raises:
        PublishError: as `publish_model` does, and if the base is no image or sequence classifier on the Hub, or has
            another number of classes or another width than the head.
    """
    refuse_non_id("base_model", base_model)
    if base_revision is not None and not _COMMIT.fullmatch(base_revision):
        raise PublishError(f"`base_revision` must be a commit, 40 hexadecimal digits, but is {base_revision!r}")
    repository = open_repository(repo_id, "model", **commit)
    pinned = base_revision or str(
        repository.ask("find the base model for", lambda: repository.api.model_info(base_model)).sha
    )
    base = _base(base_model, pinned, repository.token)
    background = Background(head, curated, findings, metrics, license=license, layer=layer)
    facts = replace(
        model_facts(head.merge_into(base, layer), repository.repo_id, background),  # raises if it does not fit
        base_model=base_model,
        base_revision=pinned,
        library="hf_midrange",
    )
    identity = {"base_model": base_model, "class_names": list(facts.classes)}

    def write(folder: Path) -> None:
        head.save_pretrained(folder)
        told = {**identity, "base_revision": pinned, "layer": layer}
        (folder / BASE_FILE).write_text(to_json(told, indent=2) + "\n", encoding="utf-8")
        write_model_card(facts, folder)

    return repository.commit(
        write,
        title="Publish corrected head",
        stale=RESULTS,
        refuse_other=lambda state: repository.refuse_different(state, BASE_FILE, "a head", identity),
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
    local = Path(repo_id) / BASE_FILE
    try:
        file = local if Path(repo_id).exists() else hf_hub_download(repo_id, BASE_FILE, revision=revision, token=token)
        told = json.loads(Path(file).read_text(encoding="utf-8"))
    except (FileNotFoundError, EntryNotFoundError) as error:
        if model is None:
            raise ValueError(f"{repo_id} holds a head that names no base model; pass it as `model`") from error
        told = {}
    base = _base(told["base_model"], told["base_revision"], token) if model is None else model
    return head.merge_into(base, told.get("layer"))


def model_facts(model: PreTrainedModel, repo_id: str, background: Background) -> ModelFacts:
    """Return everything that a model's card says.

    Args:
        model: the classifier as it is published.
        repo_id: its id.
        background: what else is known of it.

    Raises:
        ValueError: if metrics lack `mean` or `worst_group`, or class names are too many or too few.
    """
    from hf_midrange.classifier import modality

    base = background.base_model or _loaded_from(model)
    if base is None and _is_adapter(model):
        raise PublishError("an adapter is nothing without its base model; give the Hub id of that, as `base_model`")
    curation = _curation(background.curated)
    corrected = curation is None or not curation.unchanged
    return ModelFacts(
        repo_id=repo_id,
        architecture=type(_whole(model)).__name__,
        library="peft" if _is_adapter(model) else "transformers",
        task="text-classification" if modality(model) == "text" else "image-classification",
        classes=tuple(class_names(model, background.head, background.curated)),
        versions=versions(),
        base_model=base,
        base_revision=getattr(model.config, "_commit_hash", None) if base else None,
        licence=background.license,
        # timm keeps its preprocessing in the config
        has_processor=background.has_processor or hasattr(model, "timm_model"),
        changed=tuple(_head(model, background.layer)) if background.head is not None and corrected else (),
        score=Score.of(OURS, background.metrics) if background.metrics is not None else None,
        controls=tuple(Score.of(name, metrics) for name, metrics in (background.controls or {}).items()),
        **finding_facts(background.findings, None if background.curated is None else _one(background.curated)),
        curation=curation,
        dataset=background.dataset,
        split=background.split,
        curated=background.curated_id,
        language=background.language,
        tags=tuple(background.tags),
        corrected=corrected,
    )


def write_files(model: PreTrainedModel, processor: Any | None, facts: ModelFacts, folder: Path) -> None:  # noqa: ANN401 - see publish_model
    """Write everything that a model's repository holds into `folder`."""
    from hf_midrange.classifier import label_names

    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    if _is_adapter(model):
        _name_base(folder / ADAPTER, facts.base_model)
    elif list(facts.classes) != label_names(model):
        _named(type(model.config).from_pretrained(folder), facts.classes).save_pretrained(folder)
    write_model_card(facts, folder)


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


def _refuse_unsaved(model: Any, processor: Any) -> None:  # noqa: ANN401 - whatever a caller gave
    from transformers import PreTrainedModel

    if not isinstance(_whole(model), PreTrainedModel):
        raise TypeError(
            f"publish_model takes a transformers model, not {type(model).__name__}; load a timm model with "
            "`AutoModelForImageClassification.from_pretrained('timm/...')`, or use `publish_head`"
        )
    if processor is not None and not hasattr(processor, "save_pretrained"):
        raise TypeError(f"`processor` is {type(processor).__name__}, which has no `save_pretrained`; leave it out")


def _refuse_unrepaired(model: PreTrainedModel, background: Background, processor: Any) -> None:  # noqa: ANN401 - see publish_model
    """Refuse a model that is another one once it is saved and loaded; with rows and a processor, by its logits too."""
    from transformers import PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor

    from hf_midrange.head.proof import NotRepairedError, prove_repaired

    reads = isinstance(processor, PreTrainedTokenizerBase | BaseImageProcessor)
    rows = _one(background.curated) if reads and background.curated is not None else None
    try:
        prove_repaired(model, rows, processor, background.layer)
    except NotRepairedError as error:
        raise PublishError(f"nobody would get the repaired model: {error}") from error


def _head_of(model: nn.Module, layer: str | None) -> LinearHead:
    from hf_midrange.head import LinearHead

    return LinearHead.from_model(model, layer)


def _base(name: str, revision: str, token: str | None) -> PreTrainedModel:
    from hf_midrange.classifier import load_classifier

    return cast("PreTrainedModel", load_classifier(name, revision=revision, token=token))


def _loaded_from(model: PreTrainedModel) -> str | None:
    """Return the Hub id that a model, or the base of an adapter, was loaded from; a local path stays private."""
    said = _adapter_config(model).base_model_name_or_path if _is_adapter(model) else model.config._name_or_path
    name = str(said or "")
    return name if is_hub_id(name) and not Path(name).exists() else None


def _curation(curated: Dataset | DatasetDict | None) -> CurationFacts | None:
    if curated is None:
        return None
    split = _one(curated)
    return curation_facts(split, str(split.split or "train"))


def _one(curated: Dataset | DatasetDict) -> Dataset:
    return next(iter(curated.values())) if isinstance(curated, DatasetDict) else curated


def _is_adapter(model: Any) -> bool:  # noqa: ANN401 - of many classes
    """Return whether a model is one of peft's, of which the adapter alone is saved."""
    return hasattr(model, "peft_config") and hasattr(model, "get_base_model")


def _adapter_config(model: Any) -> Any:  # noqa: ANN401 - of many classes
    return model.peft_config[model.active_adapter]


def _whole(model: Any) -> Any:  # noqa: ANN401 - of many classes
    """Return the transformers model, without the adapter around it."""
    return model.get_base_model() if _is_adapter(model) else model


def _head(model: nn.Module, layer: str | None = None) -> dict[str, torch.Tensor]:
    """Return the parameters of the head by their names, as they are without an adapter around them."""
    from hf_midrange.classifier import heads

    return {
        re.sub(r"^base_model\.model\.|\.modules_to_save\.\w+(?=\.)", "", f"{name}.{part}"): tensor.detach()
        for name, linear in heads(model, layer).layers.items()
        for part, tensor in linear.named_parameters()
    }


def _name_base(file: Path, base_model: str | None) -> None:
    """Write into an adapter's configuration which model it is for; a path of this machine would say nothing."""
    said = json.loads(file.read_text(encoding="utf-8")) | {"base_model_name_or_path": base_model}
    file.write_text(json.dumps(said, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _named(config: Any, names: Sequence[str]) -> Any:  # noqa: ANN401 - of many classes
    """Return a model's configuration with these class names."""
    named = copy.deepcopy(config)
    named.id2label, named.label2id = dict(enumerate(names)), {name: k for k, name in enumerate(names)}
    return named


def _identity(model: PreTrainedModel, facts: ModelFacts) -> dict[str, Any]:
    """Return what the file of the configuration says of architecture and classes, or of an adapter's base."""
    if _is_adapter(model):
        return {"base_model_name_or_path": facts.base_model, "peft_type": str(_adapter_config(model).peft_type.value)}
    said = json.loads(_named(model.config, facts.classes).to_json_string()) | {"architectures": [type(model).__name__]}
    return {key: said.get(key) for key in ("architectures", "model_type", "architecture", "id2label", "label_names")}
