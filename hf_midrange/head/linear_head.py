"""A linear head on raw embeddings, apart from the model it came from."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.nn.utils import parametrize
from transformers import PreTrainedModel

from hf_midrange.io.files import DamagedFileError, from_json, read_json, to_json, write_atomically
from hf_midrange.io.hub import HubSaved


if TYPE_CHECKING:
    from hf_midrange.classifier import Head, Layer

WEIGHTS_FILE, CONFIG_FILE = "head.safetensors", "head.json"

_SAVE_AGAIN = "save the head again, or download it again"
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
        of_label: of a model that gives rows several labels, the number of the one that the two classes here are the
            absence and presence of.

    Examples:
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
    of_label: int | None = None

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

        Of a distilled model with two heads, whose mean the logits are, both are taken side by side.

        Args:
            model: the classifier.
            head: name of the layer, as `extract` takes it, where several could be the last.

        Raises:
            ValueError: if no layer fits, several do, or its weight is computed from other tensors.
        """
        from hf_midrange.classifier import given_names

        found = _layers(model, head)
        names = given_names(model) or []
        named = tuple(names) if len(names) == found.classes else None
        weight, bias = (part.cpu() for part in found.weights())  # what is fitted stands there
        return cls(weight, bias, named, found.has_bias)

    def in_order(self, names: Sequence[str], order: Sequence[int]) -> LinearHead:
        """Return the head of some classes: row `order[k]` of this one is that of class `names[k]`."""
        rows = list(order)
        return LinearHead(self.weight[rows], self.bias[rows], tuple(names), self.has_bias, self.of_label)

    def for_label(self, number: int, names: Sequence[str]) -> LinearHead:
        """Return the head of two classes, without label `number` and with it, of a model with several labels a row."""
        weight, bias = self.weight[[number]], self.bias[[number]]
        pair = torch.cat([-weight, weight]) / 2, torch.cat([-bias, bias]) / 2
        return LinearHead(*pair, tuple(names), self.has_bias, number)

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

        Classes go by name where head and model both have the same names: rows are brought to the model's order, and of
        a model with more classes the other rows stay as they are. A head of one label of several changes the row of
        this label alone.

        Args:
            model: the classifier.
            head: name of the layer, as `extract` takes it, where several could be the last.

        Of a model with an adapter the adapter is changed, which then saves its own copy of the classifier.

        Raises:
            ValueError: if the classifier's shape differs, it has no bias and this head needs one, its weight is
                computed from other tensors, or its class would load another one than it saves.
        """
        refuse_unloadable(model, head)  # what cannot be merged may not even be copied
        merged = copy.deepcopy(model)
        self.put_into(merged, head)
        return merged

    def put_into(self, model: nn.Module, head: str | None = None) -> None:
        """Write this head into `model` itself, whether or not its class would load it; else as `merge_into`."""
        from hf_midrange.classifier import class_order, given_names

        found = _layers(model, head)
        weight, bias = (part.clone() for part in found.weights())
        if self.of_label is not None:
            self._put_label(model, found, given_names(model))
            return
        order = class_order(self.class_names, model) if self.class_names is not None else None
        if found.width != self.width or (order is None and found.classes != self.num_classes):
            raise ValueError(
                f"the model's classifier {found.name!r} has weight {tuple(weight.shape)}, the head "
                f"{tuple(self.weight.shape)}; retrain a head from this model's own embeddings"
            )
        _refuse_lost_bias(found, self.bias)
        rows = list(range(found.classes)) if order is None else order
        weight[rows], bias[rows] = self.weight.to(weight), self.bias.to(bias)
        _saved_with_adapter(model, found).put(weight, bias)

    def _put_label(self, model: nn.Module, found: Head, names: Sequence[str] | None) -> None:
        """Write the difference of the two classes into the row of the label."""
        row = self.of_label or 0
        if found.width != self.width or found.has_one_output or row >= found.classes:
            raise ValueError(
                f"the head is of label {row} on embeddings of width {self.width}, but the model's classifier "
                f"{found.name!r} has {found.classes} labels on {found.width}; retrain a head from this model's own "
                "embeddings"
            )
        if names is not None and self.class_names is not None and names[row] != self.class_names[1]:
            raise ValueError(
                f"the head is of label {self.class_names[1]!r}, label {row} of the model is {names[row]!r}"
            )
        weight, bias = (part.clone() for part in found.weights())
        _refuse_lost_bias(found, self.bias)
        weight[row], bias[row] = (self.weight[1] - self.weight[0]).to(weight), (self.bias[1] - self.bias[0]).to(bias)
        _saved_with_adapter(model, found).put(weight, bias)

    def _write(self, folder: Path) -> None:
        tensors = {"weight": self.weight.detach().cpu().contiguous(), "bias": self.bias.detach().cpu().contiguous()}
        (folder / CONFIG_FILE).unlink(missing_ok=True)  # of other weights: none is better than that
        checksum = write_atomically(folder / WEIGHTS_FILE, save(tensors))
        facts = {
            "num_classes": self.num_classes,
            "width": self.width,
            "class_names": self.class_names,
            "has_bias": self.has_bias,
            "of_label": self.of_label,
            "weights_sha256": checksum,
        }
        write_atomically(folder / CONFIG_FILE, to_json(facts, indent=2) + "\n")

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
            of_label = from_json(int | None, facts.get("of_label"), "of_label")
            return cls(tensors["weight"].float(), tensors["bias"].float(), names, has_bias, of_label)
        except (SafetensorError, ValueError, KeyError) as error:
            raise DamagedFileError(f"{weights.parent} holds no whole head ({error}); {_SAVE_AGAIN}") from error


def _refuse_lost_bias(found: Head, bias: torch.Tensor) -> None:
    if not found.has_bias and bias.any():
        raise ValueError(
            f"the model's classifier {found.name!r} has no bias and would lose this head's when it is loaded "
            "again; give the model to `retrain_head`, which then fits none"
        )


def refuse_unloadable(model: nn.Module, head: str | None = None) -> None:
    """Refuse, before any work, a classifier whose head cannot be replaced, or would be lost by saving and loading.

    A class of transformers builds from its configuration what `from_pretrained` then fills: a head that somebody put
    in its place (an MLP, several dropouts, weight norm) is not among it. A bias that a class adds anew is zero.

    Args:
        model: the classifier.
        head: name of its last linear layer, as `extract` takes it, where several could be it.

    Raises:
        ValueError: with the names of the tensors that would be lost or new.
    """
    from hf_midrange.classifier import unwrapped

    found, base = _layers(model, head), unwrapped(model)
    if not isinstance(base, PreTrainedModel) or hasattr(base, "hf_quantizer"):
        return
    with torch.device("meta"):
        built = {name: tensor.shape for name, tensor in type(base)(copy.deepcopy(base.config)).state_dict().items()}
    own = {_without_adapter(name): tensor.shape for name, tensor in base.state_dict().items()}
    layers = {f"{_without_adapter(name)}.": layer for name, layer in found.layers.items()}
    added = {f"{name}bias" for name, layer in layers.items() if layer.bias is None}
    lost = [name for name in own if name not in built and name.startswith(tuple(layers))]
    odd = [name for name in built if built[name] != own.get(name) and name not in added]
    if lost or odd:
        raise ValueError(
            f"the classifier {found.name!r} is not what {type(base).__name__} makes: `from_pretrained` would lose "
            f"{_some(lost)} and look for {_some(odd)}, so that nobody else would get the repaired model. To change it "
            "in memory only, use `put_into`, and save and load its state dict yourself"
        )


def _some(names: Sequence[str]) -> str:
    return f"{sorted(names)[:3]}{' and more' if len(names) > 3 else ''}" if names else "nothing"


def _without_adapter(name: str) -> str:
    """Return the name that a tensor has without an adapter around its module."""
    return re.sub(r"\.(base_layer|modules_to_save\.\w+)(?=\.)", "", name)


def _saved_with_adapter(model: nn.Module, head: Head) -> Head:
    """Return the layers of a head, of a model with an adapter as copies that the adapter saves.

    Raises:
        ValueError: if the adapter's configuration cannot say which layer is meant.
    """
    from hf_midrange.classifier import Head, unparallel

    whole: Any = unparallel(model)
    if not hasattr(whole, "peft_config") or all("modules_to_save" in name.split(".") for name in head.layers):
        return head
    from peft.utils import ModulesToSaveWrapper

    base, adapter = whole.get_base_model(), whole.active_adapter
    config = whole.peft_config[adapter]
    made: dict[str, Any] = {}
    for name, layer in head.layers.items():
        alike = [key for key, _ in base.named_modules() if key.endswith(name)]
        if alike != [name]:
            raise ValueError(
                f"peft would save {alike} for the classifier {name!r}; name it in `modules_to_save` yourself"
            )
        parent, _, leaf = name.rpartition(".")
        trained = layer.weight.requires_grad
        wrapper = ModulesToSaveWrapper(layer, adapter)
        wrapper.set_adapter(adapter)
        wrapper.requires_grad_(trained)
        setattr(base.get_submodule(parent), leaf, wrapper)
        config.modules_to_save = [*(config.modules_to_save or ()), name]
        made[f"{name}.modules_to_save.{adapter}"] = wrapper.modules_to_save[adapter]
    return Head(made)


def _layers(model: nn.Module, name: str | None) -> Head:
    """Return the layers whose weights a head is, refusing one that is not changed by writing into its weight."""
    from hf_midrange.classifier import heads

    found = heads(model, name)
    for key, layer in found.layers.items():
        if parametrize.is_parametrized(layer) or any(hasattr(layer, part) for part in ("weight_g", "weight_orig")):
            raise ValueError(
                f"the weight of the model's classifier {key!r} is computed from other tensors (weight norm or another "
                "parametrization), so that no head can be put there; remove it first, as "
                "`torch.nn.utils.parametrize.remove_parametrizations` does"
            )
        if not _is_linear(layer):
            raise ValueError(
                f"the model's classifier {key!r} is a {type(layer).__name__} that does not give weight times input "
                "plus bias (such as cosine heads), so that no head can be put there"
            )
    return found


@torch.no_grad()
def _is_linear(layer: Layer) -> bool:
    """Return whether a layer computes what its weight and bias say, on some random inputs."""
    weight = layer.weight.flatten(1)
    given = torch.randn(4, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    expected = nn.functional.linear(given, weight, layer.bias)
    found = layer(given.view(*given.shape, *layer.weight.shape[2:])).flatten(1)
    return torch.allclose(found.float(), expected.float(), rtol=0.02, atol=0.02 * float(expected.abs().max()))


def _float32(values: Any) -> torch.Tensor:  # noqa: ANN401
    if isinstance(values, torch.Tensor):
        return values.detach().to("cpu", torch.float32, copy=True)
    return torch.tensor(np.asarray(values, dtype=np.float32))
