"""A linear head on raw embeddings, apart from the model it came from."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils import parametrize

from hf_midrange.io.files import DamagedFileError, from_json, read_json, write_atomically
from hf_midrange.io.hub import HubSaved


WEIGHTS_FILE, CONFIG_FILE = "head.safetensors", "head.json"

_SAVE_AGAIN = "save the head again, or download it again"
_PLACEHOLDER = re.compile(r"LABEL_\d+")
"""What transformers calls a class that nobody named."""

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True, eq=False, repr=False)
class LinearHead(HubSaved):
    """Weight `(C, d)` and bias `(C,)` of a classifier, acting on raw embeddings; calling it gives logits `(n, C)`.

    `save_pretrained`, `from_pretrained` and `push_to_hub` write and read `head.safetensors` and `head.json`.

    Args:
        weight: `(C, d)`, finite.
        bias: `(C,)`, finite.
        class_names: names of the C classes, where they are known.
        has_bias: whether the classifier has a bias; one without is corrected without.

    Example:
        >>> head = LinearHead.from_weights([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.5], ("no", "yes"))
        >>> head
        LinearHead(2 classes x 2: no, yes)
        >>> head(np.array([[2.0, 1.0]])).tolist()
        [[2.0, 1.5]]
    """

    FILES: ClassVar[tuple[str, ...]] = (WEIGHTS_FILE, CONFIG_FILE)

    weight: torch.Tensor
    bias: torch.Tensor
    class_names: tuple[str, ...] | None = None
    has_bias: bool = True

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"a head of C classes needs `weight` (C, d) and `bias` (C,), not {tuple(self.weight.shape)} and "
                f"{tuple(self.bias.shape)}"
            )
        if not (torch.isfinite(self.weight).all() and torch.isfinite(self.bias).all()):
            raise ValueError("`weight` and `bias` must be finite, but hold NaN or infinite values")
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise ValueError(f"it names {len(self.class_names)} classes, and the weights are of {self.num_classes}")

    def __repr__(self) -> str:
        """Return the shape and up to five class names."""
        names = list(self.class_names or [])
        shown = ", ".join([*names[:5], *(["..."] if len(names) > 5 else [])])
        return f"LinearHead({self.num_classes} classes x {self.width}{': ' if shown else ''}{shown})"

    @classmethod
    def from_weights(cls, weight: Any, bias: Any, class_names: tuple[str, ...] | None = None) -> LinearHead:  # noqa: ANN401
        """Return a float32 head from array-likes: `weight` `(C, d)` and `bias` `(C,)`."""
        return cls(_float32(weight), _float32(bias), tuple(class_names) if class_names is not None else None)

    @classmethod
    def from_model(cls, model: nn.Module, head: str | None = None) -> LinearHead:
        """Return a copy of a model's last linear layer, with the class names of its config where it has some.

        Args:
            model: the classifier.
            head: name of the layer, as `extract` takes it, where several could be the last.

        Raises:
            ValueError: if no layer fits, several do, or its weight is computed from other tensors.
        """
        from hf_midrange.classifier import label_names

        _, linear = _layer(model, head)
        weight = linear.weight.detach()
        bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach()
        names = label_names(model) or []
        named = len(names) == len(weight) and not all(_PLACEHOLDER.fullmatch(name) for name in names)
        return cls(_float32(weight), _float32(bias), tuple(names) if named else None, linear.bias is not None)

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return self.weight.shape[0]

    @property
    def width(self) -> int:
        """Width d of the embeddings it acts on."""
        return self.weight.shape[1]

    def __call__(self, embedding: Any) -> torch.Tensor:  # noqa: ANN401 - a tensor, array or nested list
        """Return logits `(n, C)` of raw embeddings `(n, d)`, on the device of the embeddings if they are a tensor."""
        raw = embedding if isinstance(embedding, torch.Tensor) else torch.tensor(np.asarray(embedding))
        values = raw.to(self.weight.dtype)
        if values.shape[-1] != self.width:
            raise ValueError(f"the head acts on embeddings of width {self.width}, but got shape {tuple(values.shape)}")
        return values @ self.weight.T.to(values.device) + self.bias.to(values.device)

    def merge_into(self, model: Model, head: str | None = None) -> Model:
        """Return a copy of `model` in which the weight and bias of the classifier are those of this head.

        Args:
            model: the classifier.
            head: name of the layer, as `extract` takes it, where several could be the last.

        Raises:
            ValueError: if the classifier's shape differs, it has no bias and this head needs one, or its weight is
                computed from other tensors.
        """
        _layer(model, head)  # what cannot be merged may not even be copied
        merged = copy.deepcopy(model)
        self.put_into(merged, head)
        return merged

    def put_into(self, model: nn.Module, head: str | None = None) -> None:
        """Write this head into `model` itself; else as `merge_into`."""
        name, linear = _layer(model, head)
        if linear.weight.shape != self.weight.shape:
            raise ValueError(
                f"the model's classifier {name!r} has weight {tuple(linear.weight.shape)}, the head "
                f"{tuple(self.weight.shape)}; retrain a head from this model's own embeddings"
            )
        if linear.bias is None and self.bias.any():
            raise ValueError(
                f"the model's classifier {name!r} has no bias and would lose this head's when it is loaded again; "
                "give the model to `retrain_head`, which then fits none"
            )
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            if linear.bias is not None:
                linear.bias.copy_(self.bias)

    def _write(self, folder: Path) -> None:
        tensors = {"weight": self.weight.detach().cpu().contiguous(), "bias": self.bias.detach().cpu().contiguous()}
        (folder / CONFIG_FILE).unlink(missing_ok=True)  # of other weights: none is better than that
        checksum = write_atomically(folder / WEIGHTS_FILE, save(tensors))
        facts = {
            "num_classes": self.num_classes,
            "width": self.width,
            "class_names": self.class_names,
            "has_bias": self.has_bias,
            "weights_sha256": checksum,
        }
        write_atomically(folder / CONFIG_FILE, json.dumps(facts, indent=2) + "\n")

    @classmethod
    def _read(cls, *files: Path) -> LinearHead:
        weights, config = files
        facts, content = read_json(config, "description of a head", _SAVE_AGAIN), weights.read_bytes()
        checksum = hashlib.sha256(content).hexdigest()
        if facts.get("weights_sha256", checksum) != checksum:
            raise DamagedFileError(f"{weights} is not what was written (its checksum is another); {_SAVE_AGAIN}")
        try:
            tensors = load(content)
            names = from_json(tuple[str, ...] | None, facts.get("class_names"), "class_names") or None
            has_bias = from_json(bool, facts.get("has_bias", True), "has_bias")
            return cls(tensors["weight"].float(), tensors["bias"].float(), names, has_bias)
        except (SafetensorError, ValueError, KeyError) as error:
            raise DamagedFileError(f"{weights.parent} holds no whole head ({error}); {_SAVE_AGAIN}") from error


def _layer(model: nn.Module, head: str | None) -> tuple[str, nn.Linear]:
    """Return the layer whose weights a head is, refusing one that is not changed by writing into its weight."""
    from hf_midrange.classifier import last_linear

    name, linear = last_linear(model, head)
    if parametrize.is_parametrized(linear) or any(hasattr(linear, part) for part in ("weight_g", "weight_orig")):
        raise ValueError(
            f"the weight of the model's classifier {name!r} is computed from other tensors (weight norm or another "
            "parametrization), so that no head can be put there; remove it first, as "
            "`torch.nn.utils.parametrize.remove_parametrizations` does"
        )
    return name, linear


def _float32(values: Any) -> torch.Tensor:  # noqa: ANN401
    if isinstance(values, torch.Tensor):
        return values.detach().to(torch.float32, copy=True)
    return torch.tensor(np.asarray(values, dtype=np.float32))
