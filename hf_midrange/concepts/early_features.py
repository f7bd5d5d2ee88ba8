"""A side view from a network's first block: textures and colours, hardly any class."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.model_source import Classifier, ClassifierSource
from hf_midrange.concepts.source import IMAGE, ViewSource


if TYPE_CHECKING:
    from torch import Tensor, nn

_STACK = re.compile(r"(?:^|\.)(?:layer1|blocks?|stages?|layers?|features)$")
"""What timm and transformers call the list of a network's blocks."""


@dataclass(frozen=True)
class EarlyFeatures(ViewSource, ClassifierSource):
    """Mean and standard deviation of every channel after the first block of an image model: `view_early_features`.

    Taken over positions, or over tokens in a transformer. Deeper blocks know the class and are no side view. Values
    change by about 1e-6 with the batch size, as all sums in a network do.

    Fails to say what it saw: entries are called "channel 3, mean" and "channel 3, spread", and tell that something
    simple differs; other sources tell what. Where a tie is of shape or meaning, nothing simple differs.

    Args:
        model: an image classifier, its Hub id, or its folder.
        processor: its image processor, or a callable from a PIL image to a tensor; None takes the model's own.
        layer: name of the block, as in `model.named_modules()`; None takes the first.
        column: an `Image` column.
        name: the columns are `view_<name>` and `concepts_<name>`.

    Raises:
        ValueError: when used, if the model is no classifier or no first block is found; the message names modules.
    """

    reads: ClassVar[str] = IMAGE
    of_network: ClassVar[bool] = True

    layer: str | None = None
    column: str = columns.IMAGE
    name: str = "early_features"
    thresholds: tuple[float, ...] = ()
    left_out: tuple[str, ...] = ()

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the names of the entries; before fitting, the model is run on one blank image to count channels."""
        entries = len(self.thresholds) or self.measure({self.column: [_blank()]}).shape[1]
        return tuple(f"channel {k}, {what}" for what in ("mean", "spread") for k in range(entries // 2))

    def measure(self, batch: Batch) -> np.ndarray:
        """Return channel means, then channel spreads, float32 of shape `(rows, 2 * channels)`."""
        found = self.loaded()
        block = found.model.get_submodule(self.layer or first_block(found.model))
        with _output_of(block) as seen:
            found(self.column, batch[self.column])
        return _statistics(seen[0].float(), getattr(block, "output_fmt", None) or _format(found.model))

    def loaded(self) -> Classifier:
        """Return the model, which must read images."""
        found = super().loaded()
        if found.prepare.modality != "image":
            raise ValueError(f"source {self.name!r} needs an image classifier, but {self.model!r:.80} reads text")
        return found


def first_block(model: nn.Module) -> str:
    """Return the name of the first block of the first stage of a network.

    Raises:
        ValueError: if none of the usual names is found; the message says how to name one.
    """
    from torch import nn

    for name, module in model.named_modules():
        if _STACK.search(name) and isinstance(module, nn.Sequential | nn.ModuleList) and len(module):
            inner = f"{name}.0"
            below = model.get_submodule(inner)
            return f"{inner}.{first_block(below)}" if _has_stack(below) else inner
    names = [name for name, _ in model.named_children()]
    raise ValueError(f"found no first block in {type(model).__name__} (parts: {names}); name one with `layer=`")


def _has_stack(module: nn.Module) -> bool:
    from torch import nn

    stacks = (child for name, child in module.named_children() if name in ("blocks", "layers"))
    return any(isinstance(child, nn.Sequential | nn.ModuleList) and len(child) for child in stacks)


def _format(model: nn.Module) -> str:
    return getattr(getattr(model, "timm_model", model), "output_fmt", "NCHW")


class _Enough(Exception):  # noqa: N818 - no error: it ends a forward pass
    """The block has given its output; what comes after it need not be computed."""


@contextmanager
def _output_of(block: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what `block` gives, of a tuple its first member, and end the forward pass there."""
    seen: list[Tensor] = []

    def keep(_: nn.Module, __: object, out: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)
        raise _Enough

    handle = block.register_forward_hook(keep)
    try:
        with suppress(_Enough):
            yield seen
    finally:
        handle.remove()


def _statistics(values: Tensor, layout: str) -> np.ndarray:
    if values.ndim == 4 and layout == "NHWC":
        values = values.flatten(1, 2)
    elif values.ndim == 4:
        values = values.flatten(2).transpose(1, 2)
    if values.ndim != 3:
        raise ValueError(
            f"the block gives values of shape {tuple(values.shape)}, not channels over positions or tokens"
        )
    spread, mean = values.std(dim=1, correction=0), values.mean(dim=1)
    return np.hstack([mean.cpu().numpy(), spread.cpu().numpy()]).astype(np.float32)


def _blank() -> Any:  # noqa: ANN401 - a PIL image
    from PIL import Image

    return Image.new("RGB", (64, 64))
