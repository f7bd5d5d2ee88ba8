"""One forward pass gives embedding and logits: the input of the last linear layer, and that layer in float32."""

from __future__ import annotations

import copy
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import nn
from transformers import PreTrainedModel

from hf_midrange.classifier import Head, heads, main_input, mirrored, unwrapped


logger = logging.getLogger(__name__)

SAME = 1e-5
"""How far the logits of a row, alone and in a batch, may lie apart on a CPU, as a part of their size."""
PADDING = (
    "the model does not see which tokens are padding (set `model.config.pad_token_id`, let the tokenizer return an "
    "attention mask) or counts positions from the left (set `tokenizer.padding_side = 'right'`)"
)
BATCHES = "its layers mix the rows of a batch"

Inputs = Mapping[str, torch.Tensor]


class Outputs(NamedTuple):
    """What a model says about a batch of `n` rows, always float32."""

    embedding: np.ndarray
    """Input of the last linear layer, of shape `(n, d)`."""
    logits: np.ndarray
    """Outputs of the last linear layer, of shape `(n, C)`."""


class Forward:
    """A model ready to run: call it on a batch's inputs to get `Outputs`.

    Its first batch proves that the layer's outputs are the model's logits, and warns where the logits of a row depend
    on the rows beside it.

    Args:
        model: the classifier, already in eval mode and on its device (see `prepared`).
        head: name of the last linear layer, or None to find it. A layer that the caller names is taken at its word:
            its outputs are the logits, whatever the model makes of them afterwards.
        linear: the layer's weights before any cast of the backbone to a lower precision; `(weight, bias)`.
        order: which of the layer's outputs each logit is; None: all as they are.
        pad_token: token that fills up texts, where a batch has no attention mask.
    """

    def __init__(
        self,
        model: nn.Module,
        head: str | None,
        linear: tuple[torch.Tensor, torch.Tensor],
        order: Sequence[int] | None = None,
        pad_token: int | None = None,
    ) -> None:
        self.model = model
        self.head = heads(model, head)
        self.order = list(range(self.head.classes) if order is None else order)
        first = next(iter(self.head.layers.values())).weight
        self.device, self.dtype = first.device, first.dtype
        self.weight, self.bias = (part[self.order].to(self.device) for part in linear)
        self.pad_token = pad_token
        self._accepted = _keywords(unwrapped(model))
        self._main = main_input(model)
        self._verified = head is not None
        self._alone_checked = False
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
        outputs = Outputs(*(np.concatenate(column) for column in zip(*parts, strict=True)))
        if not self._alone_checked and rows > 1:
            self._alone_checked = True
            self._compare_alone(inputs, outputs)
        return outputs

    def _pass(self, inputs: Inputs) -> Outputs:
        with torch.inference_mode(), _inputs_of(self.head) as seen:
            returned = _logits(self._call(inputs))
            if not all(seen.values()):
                raise ValueError(f"the model never reached its layer {self.head.name!r}; choose another with `head=`")
            embedding = torch.cat([self._rows(name, given[-1], returned) for name, given in seen.items()], dim=1)
            with torch.autocast(self.device.type, enabled=False):  # the caller's must not reach the head
                logits = nn.functional.linear(embedding, self.weight, self.bias)
            self._verify(logits, returned)
            return Outputs(embedding.cpu().numpy(), logits.cpu().numpy())

    @property
    def _precision(self) -> torch.dtype:
        """What the backbone computes in: its own type, or that of the caller's autocast."""
        kind = self.device.type
        return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.dtype

    def _tolerance(self, returned: torch.Tensor) -> float:
        """How far two computations of the same logits may lie apart: on a CPU a thousandth, with TF32 a hundredth."""
        size = float(returned.float().nan_to_num(0, 0, 0).abs().max()) if returned.numel() else 0.0
        if self._precision in (torch.bfloat16, torch.float16):
            return 0.1 * (1 + size)
        return 1e-5 + 1e-3 * size if self.device.type == "cpu" else 0.01 * (1 + size)

    def _call(self, inputs: Inputs) -> Any:  # noqa: ANN401 - a tensor, a tuple or a ModelOutput
        """Give the model what its `forward` takes of the inputs: the main one by place where it has another name."""
        moved = {
            key: value.to(self.device, self.dtype) if value.is_floating_point() else value.to(self.device)
            for key, value in inputs.items()
        }
        named = {key: value for key, value in moved.items() if self._accepted is None or key in self._accepted}
        main = self._main if self._main in moved else next(iter(moved))
        return self.model(**named) if main in named else self.model(moved[main], **named)

    def _rows(self, name: str, seen: torch.Tensor, returned: torch.Tensor) -> torch.Tensor:
        """Return one embedding a row: for a head applied to every token, the token whose output the model returned."""
        if seen.ndim == 4 and seen.shape[2:] == (1, 1):  # a convolution of pooled features
            seen = seen.flatten(1)
        if seen.ndim == 2:
            return seen.float()
        if isinstance(self.head.layers[name], nn.Conv2d):
            raise ValueError(f"{name!r} is a convolution pooled afterwards, which has no single embedding")
        tokens = seen.flatten(1, -2)
        distance = (self.head.layers[name](tokens).float() - returned.float().unsqueeze(1)).abs().amax(-1)
        nearest = distance.nan_to_num(nan=torch.inf).argmin(1)
        at = torch.arange(len(tokens), device=tokens.device)
        far = distance[at, nearest] > self._tolerance(returned)
        if (far & returned.isfinite().all(1)).any():
            raise ValueError(
                f"{name!r} gives outputs of shape {(*seen.shape[:-1], self.head.classes)}, and the "
                "model's logits are at none of their positions; a head pooled afterwards has no single embedding"
            )
        return tokens[at, nearest].float()

    def _verify(self, logits: torch.Tensor, returned: torch.Tensor) -> None:
        """Refuse, at the first batch, a layer whose outputs are not the model's logits."""
        if self._verified:
            return
        self._verified = True
        returned = mirrored(returned) if self.head.has_one_output and returned.shape[1] == 1 else returned
        shapes = (len(logits), self.head.classes), tuple(returned.shape)
        far = self._tolerance(returned)
        if shapes[0] != shapes[1] or ((logits - returned[:, self.order]).abs() > far).any():
            raise ValueError(
                f"the model's logits, of shape {shapes[1]}, are not the outputs of {self.head.name!r}, "
                f"of shape {shapes[0]}; if these are what you want, say so with `head={self.head.name!r}`"
            )

    def _compare_alone(self, inputs: Inputs, together: Outputs) -> None:
        """Warn if a row of the first batch, the one with the most padding, has other logits when it is alone."""
        row, kept = _most_padded(inputs, self.pad_token)
        cut = {key: value[row : row + 1] for key, value in inputs.items()}
        bare = {key: v[:, kept] if v.ndim > 1 and v.shape[1] == len(kept) else v for key, v in cut.items()}
        try:
            alone = self._pass(bare)
        except (RuntimeError, ValueError, IndexError):  # a model for rows of a certain length, which padding gives it
            logger.info("a row cannot be run without its padding, so nothing is said of what padding does")
            return
        there, here = together.logits[row], alone.logits[0]
        far = float(np.abs(there - here).max())
        exact = self._precision == torch.float32 and self.device.type == "cpu"
        allowed = SAME * (1 + float(np.abs(there).max())) if exact else self._tolerance(torch.from_numpy(there))
        if far > allowed:
            where, advice = ("in a batch", BATCHES) if kept.all() else ("padded in a batch", PADDING)
            warnings.warn(
                f"a row has other logits {where} than alone (by up to {far:.2g}): {advice}; or use batch_size=1",
                stacklevel=2,
            )


@contextmanager
def prepared(
    model: nn.Module,
    head: str | None,
    device: torch.device,
    dtype: torch.dtype | None,
    order: Sequence[int] | None = None,
    pad_token: int | None = None,
) -> Iterator[Forward]:
    """Yield a `Forward` in eval mode on `device`; afterwards each module is in its former mode and place.

    A `dtype` other than the model's own is applied to a copy, since casting back would not restore the weights. A
    model that transformers spread over several devices (`device_map`) or quantized stays where it is.
    """
    if isinstance(model, nn.DataParallel):  # its copies on other devices would tell the hooks in any order
        model = model.module
    linear = heads(model, head).weights()
    modes = {module: module.training for module in model.modules()}
    first = next(model.parameters())
    inner = unwrapped(model)
    placed, home = hasattr(inner, "hf_device_map") or getattr(inner, "is_quantized", False), first.device
    used = model if dtype in (None, first.dtype) else copy.deepcopy(model).to(dtype=dtype)
    try:
        used.eval()
        yield Forward(used if placed else used.to(device), head, linear, order, pad_token)
    finally:
        for module, mode in modes.items():
            module.training = mode
        if not placed:
            model.to(home)


@contextmanager
def _inputs_of(head: Head) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Collect what each layer of the head is given, in order of its calls."""
    seen: dict[str, list[torch.Tensor]] = {name: [] for name in head.layers}
    handles = [
        layer.register_forward_pre_hook(lambda _, args, name=name: seen[name].append(args[0]))
        for name, layer in head.layers.items()
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _keywords(model: nn.Module) -> set[str] | None:
    """Return the names that a model's `forward` takes as keywords; None: any."""
    parameters = inspect.signature(model.forward).parameters.values()
    if isinstance(model, PreTrainedModel) or not any(each.kind == each.VAR_KEYWORD for each in parameters):
        return {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)}
    return None


def _most_padded(inputs: Inputs, pad_token: int | None) -> tuple[int, torch.Tensor]:
    """Return the number of the row with the most padding, and which of its places hold no padding, as bool `(l,)`."""
    mask, ids = inputs.get("attention_mask"), inputs.get("input_ids")
    if mask is None and ids is not None and pad_token is not None:
        mask = ids != pad_token
    if mask is None or mask.ndim != 2:
        return 0, torch.ones(0, dtype=torch.bool)
    held = mask.bool()
    row = int(held.sum(dim=1).argmin())
    return row, held[row] if held[row].any() else torch.ones_like(held[row])


def _logits(output: Any) -> torch.Tensor:  # noqa: ANN401 - a tensor, a tuple or a ModelOutput
    logits = getattr(output, "logits", output)
    if isinstance(logits, tuple | list):
        logits = logits[0]
    if isinstance(logits, torch.Tensor) and logits.ndim == 1:  # one logit a row, of a model that squeezes it
        logits = logits.unsqueeze(1)
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        raise ValueError(f"a classifier must return logits of shape (rows, labels), but got {type(output).__name__}")
    return logits


def _slice(inputs: Inputs, start: int, stop: int) -> Inputs:
    return {key: value[start:stop] for key, value in inputs.items()}
