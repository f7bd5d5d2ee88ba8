"""What the package needs to know about a classifier: how to load it, its labels, and its last linear layer.

One code path serves timm models, timm models wrapped by transformers, and transformers image and sequence classifiers.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from transformers import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)


Modality = Literal["image", "text"]

_PARALLEL = (nn.DataParallel, nn.parallel.DistributedDataParallel, FullyShardedDataParallel)
_GATHER = "give the whole model, loaded from what `Trainer.save_model` or `accelerator.save_model` wrote"
_PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What transformers calls a class that nobody named."""

_OTHER_TASKS = {
    "TokenClassification": "a label for each token",
    "ObjectDetection": "boxes",
    "Segmentation": "a label for each pixel",
    "QuestionAnswering": "spans of a text",
    "MultipleChoice": "a choice among texts",
}
"""Endings of the names of models that are not read, and what they give."""

_COMBINED = {
    "EfficientViM": "a learned mean of four heads'",
    "VOLO": "its head's with half of the largest of another head's added",
}
"""Models whose logits no linear layer gives, and what their logits are."""

Layer = nn.Linear | nn.Conv2d
"""A layer that gives logits: linear, or a convolution of one pixel, which is the same on pooled features."""


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
        FileNotFoundError: if it is a path, and no folder is there.
        ValueError: if the model or the weights belong to no image or sequence classifier, or the classifier's last
            layer is not among them (a random head says nothing about the data).
    """
    if isinstance(model, nn.Module):
        _refuse_other_tasks(_kind(unwrapped(model)))
        return model
    name = str(model)
    if not Path(name).is_dir() and (name.startswith((".", "/", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"there is no folder {name} with a model; give one, or a Hub id like me/classifier")
    hub: dict[str, Any] = {"trust_remote_code": trust_remote_code, "revision": revision or "main", "token": token}
    config = AutoConfig.from_pretrained(name, **hub)
    _refuse_other_tasks(*(config.architectures or []))
    if type(config) in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING or _is_remote(config, "ImageClassification"):
        auto: Any = AutoModelForImageClassification
    elif type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING or _is_remote(config, "SequenceClassification"):
        auto = AutoModelForSequenceClassification
    else:
        raise ValueError(f"{name!r} holds a {config.model_type!r} model, which has no image or sequence classifier")
    loaded, info = auto.from_pretrained(name, output_loading_info=True, **hub)
    _refuse_random_weights(name, sorted(info["missing_keys"]))
    return loaded


@contextmanager
def whole(model: nn.Module) -> Iterator[nn.Module]:
    """Yield a model that holds all its weights: of one that is spread over processes (FSDP), what it wraps.

    All processes must enter together, and each holds the whole model meanwhile.

    Raises:
        ValueError: if its parts are wrapped one by one, which run in step over all processes only.
    """
    parts = [name for name, module in model.named_modules() if name and isinstance(module, FullyShardedDataParallel)]
    if parts:
        raise ValueError(f"the part {parts[0]!r} of the model is spread over processes (FSDP) by itself; {_GATHER}")
    if isinstance(model, FullyShardedDataParallel):
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            yield model.module
    else:
        yield model


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the classifier in `torch.compile`, data parallel wrappers and PEFT: its `forward` says what it takes."""
    inside = unparallel(model)
    base = getattr(inside, "get_base_model", None)
    return unwrapped(base()) if callable(base) else inside


def modality(model: nn.Module) -> Modality:
    """Return what a classifier reads: `image` or `text`, as its class is listed by transformers, or by its input."""
    model = unwrapped(model)
    if _kind(model) in _names(MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES):
        return "image"
    if _kind(model) in _names(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES):
        return "text"
    return "text" if "input_ids" in (main_input(model), *signature(model.forward).parameters) else "image"


def main_input(model: nn.Module) -> str:
    """Return the model's name for its main input, such as `pixel_values`."""
    return getattr(unwrapped(model), "main_input_name", "pixel_values")


def unwrap_timm(model: nn.Module) -> nn.Module:
    """Return the timm model inside a transformers wrapper or another, or `model` itself."""
    model = unwrapped(model)
    return getattr(model, "timm_model", model)


def number_of_labels(model: nn.Module) -> int | None:
    """Return how many labels the model declares (transformers `config`, timm `num_classes`), or None."""
    model = unwrapped(model)
    if isinstance(model, PreTrainedModel):
        return model.config.num_labels
    declared = getattr(model, "num_classes", None)
    return declared if isinstance(declared, int) else None


def label_names(model: nn.Module) -> list[str] | None:
    """Return the label names of a transformers `config`, in id order; None where the model has none."""
    names = getattr(getattr(unwrapped(model), "config", None), "id2label", None)
    if not isinstance(names, Mapping):
        return None
    return [str(names[k]) for k in sorted(names, key=int)]


def given_names(model: nn.Module) -> list[str] | None:
    """Return the label names that someone gave a model; None where it has none, or transformers' `LABEL_0`, ...

    A model with one logit, named x, has the classes `not x` and `x`.
    """
    names = label_names(model)
    if names is None or all(_PLACEHOLDER.fullmatch(name) for name in names):
        return None
    return [absence(names[0]), names[0]] if len(names) == 1 else names


def absence(name: str) -> str:
    """Return what the class of rows without a label is called."""
    return f"not {name}"


def has_several_labels(model: nn.Module) -> bool:
    """Whether a model says of itself that a row may have several labels."""
    return getattr(getattr(unwrapped(model), "config", None), "problem_type", None) == "multi_label_classification"


class Head(NamedTuple):
    """The last linear layers of a classifier by name: one, or several whose mean the logits are (distilled models).

    A layer with one output z, which a sigmoid makes the probability of the second of two classes, is read as two
    mirrored ones, -z/2 and z/2: their softmax is that sigmoid.
    """

    layers: dict[str, Layer]

    @property
    def name(self) -> str:
        """Names of the layers in the model, as `extract(head=)` takes them."""
        return "+".join(self.layers)

    @property
    def width(self) -> int:
        """Width of the embedding: the inputs of all layers side by side."""
        return sum(_width(layer) for layer in self.layers.values())

    @property
    def has_one_output(self) -> bool:
        """Whether the logits are one output, mirrored."""
        return _outputs(next(iter(self.layers.values()))) == 1

    @property
    def classes(self) -> int:
        """Number of logits."""
        return 2 if self.has_one_output else _outputs(next(iter(self.layers.values())))

    @property
    def has_bias(self) -> bool:
        """Whether all layers have a bias."""
        return all(layer.bias is not None for layer in self.layers.values())

    def weights(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight `(C, width)` and bias `(C,)` with which the embedding gives the logits: copies, in float32.

        A layer without bias counts as one of zeros.
        """
        layers = self.layers.values()
        weight = torch.cat([layer.weight.detach().float().flatten(1) / len(layers) for layer in layers], dim=1)
        biases = [layer.weight.new_zeros(len(weight)) if layer.bias is None else layer.bias for layer in layers]
        bias = torch.stack(biases).detach().float().mean(dim=0)
        return (mirrored(weight.T).T, mirrored(bias)) if self.has_one_output else (weight, bias)

    def put(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Write what `weights` returns into the layers; `bias` is dropped where they have none."""
        if self.has_one_output:
            weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
        parts = weight.split([_width(layer) for layer in self.layers.values()], dim=1)
        with torch.no_grad():
            for layer, part in zip(self.layers.values(), parts, strict=True):
                layer.weight.copy_((part * len(self.layers)).view_as(layer.weight))
                if layer.bias is not None:
                    layer.bias.copy_(bias)


def mirrored(logit: torch.Tensor) -> torch.Tensor:
    """Return the two logits of classes that one logit z tells apart, -z/2 and z/2, along the last axis of length 1."""
    return torch.cat([-logit / 2, logit / 2], dim=-1)


def heads(model: nn.Module, name: str | None = None) -> Head:
    """Return the classifier's last linear layer, or all of a model whose logits are the mean of several.

    Its input is the embedding, its output the logits. Without `name` it is the one layer of the classifier (timm's
    `get_classifier()`; the modules outside the backbone in transformers) with as many outputs as the model has labels:
    a `Linear`, or where there is none a convolution of one pixel. For a plain module that declares no number of
    labels, it is the one registered last.

    Args:
        model: any classifier, perhaps inside `torch.compile`, a data parallel wrapper or PEFT.
        name: the module's name as in `named_modules()` of the classifier, to choose where several fit; several whose
            mean the logits are are joined by `+`. It stands for the copy that an adapter trains of the layer, too.

    Raises:
        ValueError: if none or several fit; the message names the modules to choose from.

    Examples:
        ```python
        head = heads(timm.create_model("resnet18", num_classes=2))
        # head.name == "fc"; head.weights()[0] has shape (2, 512)
        ```
    """
    inner = unwrapped(model)
    layers: dict[str, Layer] = {
        key: module
        for key, module in inner.named_modules()
        if (isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.weight[0, 0].numel() == 1))
        and "original_module" not in key.split(".")  # what PEFT trains a copy of
    }
    if name is not None:
        copies = {re.sub(r"\.modules_to_save\.\w+$", "", key): key for key in layers}
        given = [each.removeprefix("module.").removeprefix("_orig_mod.") for each in name.split("+")]
        given = [each if each in layers else copies.get(each, each) for each in given]
        unknown = [each for each in given if each not in layers]
        if unknown:
            raise ValueError(f"{unknown[0]!r} is no Linear of {_kind(inner)}; its Linears are {_listed(layers)}")
        return Head({each: layers[each] for each in given})
    combined = _COMBINED.get(_kind(unwrap_timm(inner)))
    if combined is not None:
        raise ValueError(f"the logits of {_kind(unwrap_timm(inner))} are {combined}: no linear layer gives them")
    spread = [key for key, module in layers.items() if module.weight.ndim < 2 or isinstance(module.weight, DTensor)]
    if spread:
        raise ValueError(
            f"the weights of {_kind(inner)} are spread over processes (FSDP), first those of {spread[0]!r}; {_GATHER}"
        )
    candidates = _candidates(inner, layers)
    if len(candidates) == 1 or (len(candidates) > 1 and _is_mean(inner)):
        return Head(candidates)
    labels = number_of_labels(inner)
    adapted = [key.partition(".lora_")[0] for key in candidates if ".lora_" in key]
    if adapted:
        raise ValueError(
            f"the classifier {adapted[0]!r} of {_kind(inner)} has an adapter itself; merge it first "
            "(`model.merge_and_unload()`), or train the classifier whole, by `modules_to_save`"
        )
    if not candidates:
        last, kind = [(key, _kind(module)) for key, module in inner.named_modules() if module._parameters][-1]
        raise ValueError(
            f"{_kind(inner)} has no Linear classifier with {labels} outputs: its last layer, {last!r}, is a {kind}, "
            f"and its Linears are {_listed(layers)}. If one of them gives the logits, name it (`head=` in `extract`)"
        )
    raise ValueError(
        f"{_kind(inner)} has {len(candidates)} Linears that could give its {labels} logits: "
        f"{_listed(candidates)}; choose one by name (`head=` in `extract`)"
    )


def class_order(names: Sequence[str], model: nn.Module) -> list[int] | None:
    """Return which of the model's labels each class is, by name; None where a name is not among the model's.

    Case, underscores and blanks at the ends do not count. Of a label that lists synonyms (`tench, Tinca tinca`), one
    is enough if no other label has it. Of a model with one logit, its name is enough: the other class is its absence.
    """
    known = given_names(model) or []
    exact = {_plain(name): number for number, name in enumerate(known)}
    synonyms = [(_plain(part), number) for number, name in enumerate(known) for part in name.split(",")]
    times = Counter(part for part, _ in synonyms)
    places = {part: number for part, number in synonyms if times[part] == 1} | exact
    found = [places.get(_plain(name)) for name in names]
    if len(names) == 2 and len(label_names(model) or []) == 1 and 1 in found:
        found = [0 if number is None else number for number in found]
    order = [number for number in found if number is not None]
    return order if len(order) == len(names) == len(set(order)) else None


def fingerprint(model: nn.Module) -> str:
    """Return a sha256 of a model's architecture and of every weight and buffer, whatever their precision.

    Equal for equal models in any process. It reads all weights: compute it once a run.
    """
    model = unparallel(model)  # PEFT's adapters are weights like any other
    digest = hashlib.sha256(re.sub(r" at 0x[0-9a-f]+", "", f"{type(model).__qualname__} {model}").encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().clone(memory_format=torch.contiguous_format).reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _is_remote(config: Any, task: str) -> bool:  # noqa: ANN401 - a config class of any model
    return f"AutoModelFor{task}" in (getattr(config, "auto_map", None) or {})


def _refuse_other_tasks(*classes: str) -> None:
    for name in classes:
        for ending, gives in _OTHER_TASKS.items():
            if name.endswith(ending):
                raise ValueError(f"{name} gives {gives}, not logits for each image or text, and cannot be read here")


def _refuse_random_weights(name: str, missing: list[str]) -> None:
    if missing:
        raise ValueError(
            f"{name!r} is no finished classifier: {missing} are not among its weights and would be random. "
            "Fine-tune it first, or pass a model object whose head you have set yourself"
        )


def unparallel(model: Any) -> nn.Module:  # noqa: ANN401 - torch types what wrappers hold as tensors or modules
    """Return the model inside `torch.compile` and data parallel wrappers, with an adapter that is around it."""
    while isinstance(model, _PARALLEL) or hasattr(model, "_orig_mod"):
        model = model.module if isinstance(model, _PARALLEL) else model._orig_mod
    return model


def _kind(model: nn.Module) -> str:
    return type(model).__name__


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


def _names(mapping: Mapping[str, Any]) -> set[str]:
    """Return the names of the classes in an auto mapping, whose values are names or tuples of them."""
    return {name for each in mapping.values() for name in ((each,) if isinstance(each, str) else each)}


def _is_mean(model: nn.Module) -> bool:
    """Whether the logits are the mean of several heads: one distilled from a teacher (DeiT, LeViT), or CrossViT's."""
    parts = {part for name, _ in unwrap_timm(model).named_modules() for part in name.split(".")}
    return bool(parts & {"head_dist", "dist_head"}) or "WithTeacher" in _kind(model) or _kind(model) == "CrossVit"


def _candidates(model: nn.Module, layers: dict[str, Layer]) -> dict[str, Layer]:
    labels, inside = number_of_labels(model), _classifier_modules(model)
    if labels is None:
        return dict(list((_linears(layers) or layers).items())[-1:])
    fitting = {key: module for key, module in layers.items() if _outputs(module) == labels}
    outside = {key: module for key, module in fitting.items() if module in inside}
    # Perceiver has its head in the backbone; the first batch proves whether it is one.
    return _linears(outside) or outside or _linears(fitting)


def _linears(layers: dict[str, Layer]) -> dict[str, Layer]:
    return {key: module for key, module in layers.items() if isinstance(module, nn.Linear)}


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


def _width(layer: Layer) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _outputs(layer: Layer) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _listed(modules: Mapping[str, Layer]) -> str:
    """Name up to eight modules, the last ones, with their shapes."""
    shown = [f"{key!r} ({_width(m)} -> {_outputs(m)})" for key, m in list(modules.items())[-8:]]
    return ("..., " if len(modules) > len(shown) else "") + (", ".join(shown) or "none")
