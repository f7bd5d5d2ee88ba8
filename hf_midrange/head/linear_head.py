"""A linear head on raw embeddings, apart from the model it came from."""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from hf_midrange.io.files import DamagedFileError, from_json, intact, read_sealed, sealed, write_atomically


WEIGHTS_FILE, CONFIG_FILE = "head.safetensors", "head.json"

_WEIGHTS = "weights_sha256"
"""Key of the checksum of the weights in head.json."""
_SAVE_AGAIN = "save the head again, or download it again"

Model = TypeVar("Model", bound=torch.nn.Module)


@dataclass(frozen=True, eq=False)
class LinearHead:
    """Weight `(C, d)` and bias `(C,)` of a classifier, acting on raw embeddings; calling it gives logits `(n, C)`.

    >>> head = LinearHead.from_weights([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.5])
    >>> head(np.array([[2.0, 1.0]])).tolist()
    [[2.0, 1.5]]
    """

    weight: torch.Tensor
    bias: torch.Tensor
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"a head of C classes needs `weight` (C, d) and `bias` (C,), not {tuple(self.weight.shape)} and "
                f"{tuple(self.bias.shape)}"
            )
        if not (torch.isfinite(self.weight).all() and torch.isfinite(self.bias).all()):
            raise ValueError("`weight` and `bias` must be finite, but hold NaN or infinite values")

    @classmethod
    def from_weights(cls, weight: Any, bias: Any, class_names: tuple[str, ...] | None = None) -> LinearHead:  # noqa: ANN401
        """Return a float32 head from array-likes: `weight` `(C, d)` and `bias` `(C,)`."""
        return cls(_float32(weight), _float32(bias), tuple(class_names) if class_names is not None else None)

    @classmethod
    def from_model(cls, model: torch.nn.Module) -> LinearHead:
        """Return a copy of a model's last linear layer, with the class names of its config where it has one."""
        from hf_midrange.classifier import last_linear

        _, linear = last_linear(model)
        weight = linear.weight.detach()
        bias = linear.bias.detach() if linear.bias is not None else weight.new_zeros(len(weight))
        return cls.from_weights(weight, bias)

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

    def merge_into(self, model: Model) -> Model:
        """Return a copy of `model` in which the weight and bias of the classifier are those of this head.

        Raises:
            ValueError: if the classifier's shape differs, or it has no bias and this head needs one.
        """
        from hf_midrange.classifier import last_linear

        merged = copy.deepcopy(model)
        name, linear = last_linear(merged)
        if linear.weight.shape != self.weight.shape:
            raise ValueError(
                f"the model's classifier {name!r} has weight {tuple(linear.weight.shape)}, the head "
                f"{tuple(self.weight.shape)}; retrain a head from this model's own embeddings"
            )
        with torch.no_grad():
            linear.weight.copy_(self.weight)
            if linear.bias is None:
                linear.bias = torch.nn.Parameter(linear.weight.new_zeros(self.num_classes))
            linear.bias.copy_(self.bias)
        return merged

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write `head.safetensors` and, with its checksum, `head.json` into a folder, made if it is missing."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {"weight": self.weight.detach().cpu().contiguous(), "bias": self.bias.detach().cpu().contiguous()}
        (folder / CONFIG_FILE).unlink(missing_ok=True)  # of other weights: none is better than that
        checksum = write_atomically(folder / WEIGHTS_FILE, save(tensors))
        facts = {"num_classes": self.num_classes, "width": self.width, "class_names": self.class_names}
        write_atomically(folder / CONFIG_FILE, sealed({**facts, _WEIGHTS: checksum}, indent=2) + "\n")

    @classmethod
    def from_pretrained(
        cls, save_directory: str | Path, *, revision: str | None = None, token: str | None = None
    ) -> LinearHead:
        """Return the head that `save_pretrained` wrote into a folder, or `publish_head` into a Hub repository.

        Args:
            save_directory: a local folder, or else a Hub model id.
            revision: branch, tag or commit on the Hub.
            token: for private repositories.

        Raises:
            FileNotFoundError: if there is no head.
            ValueError: if a file is not what was written.
        """
        folder = Path(save_directory)
        if not folder.exists():
            folder = _downloaded(str(save_directory), revision, token)
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            if not (folder / name).is_file():
                raise FileNotFoundError(f"{folder} holds no {name}; `head.save_pretrained(folder)` writes it")
        return _read(cls, folder)


def read_facts(path: Path) -> dict[str, Any]:
    """Return what a head.json says, the checksum of the file itself left out.

    Raises:
        ValueError: if it is not what was written.
    """
    return read_sealed(path, "description of a head", _SAVE_AGAIN)


def _read(cls: type[LinearHead], folder: Path) -> LinearHead:
    facts, weights = read_facts(folder / CONFIG_FILE), folder / WEIGHTS_FILE
    content = weights.read_bytes()
    if facts.get(_WEIGHTS, hashlib.sha256(content).hexdigest()) != hashlib.sha256(content).hexdigest():
        raise DamagedFileError(f"{weights} is not what was written (its checksum is another); {_SAVE_AGAIN}")
    with intact(weights, "file of weights", _SAVE_AGAIN):
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise ValueError(error) from error
        head = cls(tensors["weight"].float(), tensors["bias"].float())
    with intact(folder / CONFIG_FILE, "description of a head", _SAVE_AGAIN):
        names = from_json(tuple[str, ...] | None, facts["class_names"], "class_names") or None
        if names is not None and len(names) != head.num_classes:
            raise ValueError(f"it names {len(names)} classes, and the weights are of {head.num_classes}")
    return replace(head, class_names=names)


def _downloaded(repo_id: str, revision: str | None, token: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError

    try:
        config, _ = (
            hf_hub_download(repo_id, name, revision=revision, token=token) for name in (CONFIG_FILE, WEIGHTS_FILE)
        )
    except (EntryNotFoundError, HFValidationError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f"there is no folder {repo_id}, and on the Hub no head of that name can be read: {error}"
        ) from error
    return Path(config).parent


def _float32(values: Any) -> torch.Tensor:  # noqa: ANN401
    if isinstance(values, torch.Tensor):
        return values.detach().to(torch.float32, copy=True)
    return torch.tensor(np.asarray(values, dtype=np.float32))
