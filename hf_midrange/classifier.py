"""What the package needs to know about a classifier: how to load it, its labels, and its last linear layer.

One code path serves timm models, timm models wrapped by transformers, and transformers image and sequence classifiers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from os import PathLike
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)


Modality = Literal["image", "text"]


def load_classifier(
    model: nn.Module | str | PathLike[str],
    *,
    trust_remote_code: bool = False,
    revision: str | None = None,
    token: str | None = None,
) -> nn.Module:
    """Return `model` itself, or the classifier that a Hub id or a local folder holds.

    Args:
        model: a model object, a Hub id (`timm/resnet18.a1_in1k` too) or a folder written by `save_pretrained`.
        trust_remote_code: run modelling code that comes with the weights. Leave it off unless you have read that code.
        revision: branch, tag or commit of a model on the Hub.
        token: for private models on the Hub.

    Raises:
        ValueError: if the weights belong to no image or sequence classifier, or the classifier's last layer is not
            among them (a random head says nothing about the data).
    """
    if isinstance(model, nn.Module):
        return model
    name = str(model)
    hub: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision or "main", "token": token}
    config = AutoConfig.from_pretrained(name, **hub)
    if type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING or _is_remote(config, "ImageClassification"):
        auto: Any = AutoModelForImageClassification
    elif type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or _is_remote(config, "SequenceClassification"):
        auto = AutoModelForSequenceClassification
    else:
        raise ValueError(f"{name!r} holds a {config.model_type!r} model, which has no image or sequence classifier")
    loaded, info = auto.from_pretrained(name, output_loading_info=True, **hub)
    _refuse_random_weights(name, sorted(info["missing_keys"]))
    return loaded


def modality(model: nn.Module) -> Modality:
    """Return what a classifier reads: `text` if it takes token ids, else `image`."""
    return "text" if getattr(model, "main_input_name", None) == "input_ids" else "image"


def unwrap_timm(model: nn.Module) -> nn.Module:
    """Return the timm model inside a transformers wrapper, or `model` itself."""
    return getattr(model, "timm_model", model)


def number_of_labels(model: nn.Module) -> int | None:
    """Return how many labels the model declares (transformers `config`, timm `num_classes`), or None."""
    if isinstance(model, PreTrainedModel):
        return model.config.num_labels
    declared = getattr(model, "num_classes", None)
    return declared if isinstance(declared, int) else None


def label_names(model: nn.Module) -> list[str] | None:
    """Return the label names of a transformers `config`, in id order; None where the model has none."""
    names = getattr(getattr(model, "config", None), "id2label", None)
    if not isinstance(names, Mapping):
        return None
    return [str(names[k]) for k in sorted(names, key=int)]


def last_linear(model: nn.Module, name: str | None = None) -> tuple[str, nn.Linear]:
    """Return the name and module of the classifier's last linear layer.

    Its input is the embedding, its output the logits. Without `name` it is the one `Linear` of the classifier (timm's
    `get_classifier()`; the modules outside the backbone in transformers) with as many outputs as the model has labels.
    For a plain module that declares no number of labels, it is the `Linear` registered last.

    Args:
        model: any classifier.
        name: the module's name as in `model.named_modules()`, to choose where several fit.

    Raises:
        ValueError: if none or several fit; the message names the modules to choose from.

    Example:
        ```python
        name, linear = last_linear(timm.create_model("resnet18", num_classes=2))
        # name == "fc"; linear.weight has shape (2, 512)
        ```
    """
    linears = {key: module for key, module in model.named_modules() if isinstance(module, nn.Linear)}
    if name is not None:
        if name not in linears:
            raise ValueError(f"{name!r} is no Linear of {type(model).__name__}; its Linears are {_listed(linears)}")
        return name, linears[name]
    candidates = _candidates(model, linears)
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    labels = number_of_labels(model)
    if not candidates:
        raise ValueError(
            f"{type(model).__name__} has no Linear classifier with {labels} outputs; "
            f"its Linears are {_listed(linears)}. If one of them gives the logits, name it (`head=` in `extract`)"
        )
    raise ValueError(
        f"{type(model).__name__} has {len(candidates)} Linears that could give its {labels} logits: "
        f"{_listed(candidates)}; choose one by name (`head=` in `extract`)"
    )


def fingerprint(model: nn.Module) -> str:
    """Return a sha256 of a model's architecture and of every weight and buffer, whatever their precision.

    Equal for equal models in any process. It reads all weights: compute it once a run.
    """
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", f"{type(model).__qualname__} {model}").encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_remote(config: Any, task: str) -> bool:  # noqa: ANN401 - a config class of any model
    return f"AutoModelFor{task}" in (getattr(config, "auto_map", None) or {})


def _refuse_random_weights(name: str, missing: list[str]) -> None:
    if missing:
        raise ValueError(
            f"{name!r} is no finished classifier: {missing} are not among its weights and would be random. "
            "Fine-tune it first, or pass a model object whose head you have set yourself"
        )


def _candidates(model: nn.Module, linears: dict[str, nn.Linear]) -> dict[str, nn.Linear]:
    labels = number_of_labels(model)
    if labels is None:
        return dict(list(linears.items())[-1:])
    inside = _classifier_modules(model)
    fitting = {key: module for key, module in linears.items() if module.out_features == labels}
    return {key: module for key, module in fitting.items() if module in inside}


def _classifier_modules(model: nn.Module) -> set[nn.Module]:
    """Return the modules that make up the classifier: everything but the backbone."""
    get_classifier = getattr(unwrap_timm(model), "get_classifier", None)
    if callable(get_classifier):
        found = get_classifier()
        parts = found if isinstance(found, tuple | list) else (found,)
        return {module for part in parts if isinstance(part, nn.Module) for module in part.modules()}
    backbone = model.base_model if isinstance(model, PreTrainedModel) else None
    if backbone is None or backbone is model:
        return set(model.modules())
    return set(model.modules()) - set(backbone.modules())


def _listed(modules: Mapping[str, nn.Linear]) -> str:
    """Name up to eight modules, the last ones, with their shapes."""
    shown = [f"{key!r} ({m.in_features} -> {m.out_features})" for key, m in list(modules.items())[-8:]]
    return ("..., " if len(modules) > len(shown) else "") + (", ".join(shown) or "none")


def head_weights(linear: nn.Linear) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight `(C, d)` and bias `(C,)` of a linear layer, detached copies in float32; no bias counts as zero."""
    weight = linear.weight.detach().to(torch.float32, copy=True)
    bias = linear.bias
    return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach().to(torch.float32, copy=True)
