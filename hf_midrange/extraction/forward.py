"""One forward pass gives embedding and logits: the input of the last linear layer, and that layer in float32."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn
from transformers import PreTrainedModel

from hf_midrange.classifier import head_weights, last_linear


logger = logging.getLogger(__name__)

Inputs = Mapping[str, torch.Tensor]


class Outputs(NamedTuple):
    """What a model says about a batch of `n` rows, always float32."""

    embedding: np.ndarray
    """Input of the last linear layer, of shape `(n, d)`."""
    logits: np.ndarray
    """Outputs of the last linear layer, of shape `(n, C)`."""


class Forward:
    """A model ready to run: call it on a batch's inputs to get `Outputs`.

    Args:
        model: the classifier, already in eval mode and on its device (see `prepared`).
        head: name of the last linear layer, or None to find it. A layer that the caller names is taken at its word:
            its outputs are the logits, whatever the model makes of them afterwards.
        linear: the layer's weights before any cast of the backbone to a lower precision; `(weight, bias)`.
    """

    def __init__(self, model: nn.Module, head: str | None, linear: tuple[torch.Tensor, torch.Tensor]) -> None:
        self.model = model
        self.head_name, self.head = last_linear(model, head)
        self.device, self.dtype = self.head.weight.device, self.head.weight.dtype
        self.weight, self.bias = (part.to(self.device) for part in linear)
        self._unverified = head is None
        self._most_rows: int | None = None

    def __call__(self, inputs: Inputs) -> Outputs:
        """Run a batch, in smaller parts if the device's memory is too small for the whole of it."""
        rows = len(next(iter(inputs.values())))
        most = min(rows, self._most_rows or rows)
        while True:
            try:
                parts = [self._pass(_slice(inputs, start, start + most)) for start in range(0, rows, most)]
                break
            except RuntimeError as error:
                if most == 1 or not should_reduce_batch_size(error):
                    raise
            clear_device_cache(garbage_collection=True)
            most = self._most_rows = (most + 1) // 2
            logger.warning("out of memory: going on with batches of %d rows", most)
        return Outputs(*(np.concatenate(column) for column in zip(*parts, strict=True)))

    def _pass(self, inputs: Inputs) -> Outputs:
        with torch.inference_mode(), _inputs_of(self.head) as seen:
            returned = _logits(self._call(inputs))
            if not seen:
                raise ValueError(f"the model never reached its layer {self.head_name!r}; choose another with `head=`")
            embedding = self._rows(seen[-1], returned).float()
            with torch.autocast(self.device.type, enabled=False):  # the caller's must not reach the head
                logits = nn.functional.linear(embedding, self.weight, self.bias)
            self._verify(logits, returned)
            return Outputs(embedding.cpu().numpy(), logits.cpu().numpy())

    @property
    def _precision(self) -> torch.dtype:
        """What the backbone computes in: its own type, or that of the caller's autocast."""
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype

    def _call(self, inputs: Inputs) -> Any:  # noqa: ANN401 - a tensor, a tuple or a ModelOutput
        moved = {
            key: value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)
            for key, value in inputs.items()
        }
        if isinstance(self.model, PreTrainedModel):
            return self.model(**moved)
        return self.model(next(iter(moved.values())))

    def _rows(self, seen: torch.Tensor, returned: torch.Tensor) -> torch.Tensor:
        """Return one embedding a row: for a head applied to every token, the token whose output the model returned."""
        if seen.ndim == 2:
            return seen
        tokens = seen.flatten(1, -2)
        distance = (self.head(tokens).float() - returned.float().unsqueeze(1)).abs().amax(-1)
        nearest = distance.nan_to_num(nan=torch.inf).argmin(1)
        at = torch.arange(len(tokens), device=tokens.device)
        far = distance[at, nearest] > _tolerance(self._precision, returned)
        if (far & returned.isfinite().all(1)).any():
            raise ValueError(
                f"{self.head_name!r} gives outputs of shape {(*seen.shape[:-1], self.head.out_features)}, and the "
                "model's logits are at none of their positions; a head pooled afterwards has no single embedding"
            )
        return tokens[at, nearest]

    def _verify(self, logits: torch.Tensor, returned: torch.Tensor) -> None:
        """Refuse, at the first batch, a layer whose outputs are not the model's logits."""
        if not self._unverified:
            return
        self._unverified = False
        if logits.shape != returned.shape or ((logits - returned).abs() > _tolerance(self._precision, returned)).any():
            raise ValueError(
                f"the model's logits, of shape {tuple(returned.shape)}, are not the outputs of {self.head_name!r}, "
                f"of shape {tuple(logits.shape)}; if these are what you want, say so with `head={self.head_name!r}`"
            )


@contextmanager
def prepared(model: nn.Module, head: str | None, device: torch.device, dtype: torch.dtype | None) -> Iterator[Forward]:
    """Yield a `Forward` in eval mode on `device`; afterwards each module is in its former mode and place.

    A `dtype` other than the model's own is applied to a copy, since casting back would not restore the weights. A
    model that transformers spread over several devices (`device_map`) stays where it is.
    """
    linear = head_weights(last_linear(model, head)[1])
    modes = {module: module.training for module in model.modules()}
    first = next(model.parameters())
    placed, home = hasattr(model, "hf_device_map"), first.device
    used = model if dtype in (None, first.dtype) else copy.deepcopy(model).to(dtype=dtype)
    try:
        used.eval()
        yield Forward(used if placed else used.to(device), head, linear)
    finally:
        for module, mode in modes.items():
            module.training = mode
        if not placed:
            model.to(home)


@contextmanager
def _inputs_of(module: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect what `module` is given, in order of its calls."""
    seen: list[torch.Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        yield seen
    finally:
        handle.remove()


def _logits(output: Any) -> torch.Tensor:  # noqa: ANN401 - a tensor, a tuple or a ModelOutput
    logits = getattr(output, "logits", output)
    if isinstance(logits, tuple | list):
        logits = logits[0]
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise ValueError(f"a classifier must return logits of shape (rows, labels), but got {type(output).__name__}")
    return logits


def _tolerance(dtype: torch.dtype, returned: torch.Tensor) -> float:
    """How far two computations of the same logits may lie apart in this precision (float32: TF32 devices)."""
    scale = 1 + float(returned.float().nan_to_num(0, 0, 0).abs().max()) if returned.numel() else 1.0
    return scale * (0.1 if dtype in (torch.bfloat16, torch.float16) else 0.01)


def _slice(inputs: Inputs, start: int, stop: int) -> Inputs:
    return {key: value[start:stop] for key, value in inputs.items()}
