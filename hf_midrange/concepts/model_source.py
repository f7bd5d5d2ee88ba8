"""What sources that run a model share: loading it once, feeding it, and knowing it again in a cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from datasets.fingerprint import Hasher

from hf_midrange.concepts.source import Source
from hf_midrange.processes import join_processes


if TYPE_CHECKING:
    from torch import Tensor, nn

    from hf_midrange.extraction.inputs import Preparation

ModelLike = Any
"""A model object, a Hub id, or a folder written by `save_pretrained`."""

Loaded = TypeVar("Loaded")


class ModelSource(Source):
    """A source that runs a model on one column: a class has fields `model`, `processor` and `column`."""

    costly: ClassVar[bool] = True

    model: ModelLike
    processor: Any
    column: str

    def identity(self) -> object:
        """Return the settings with a digest of the model's weights."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {"model": _told_apart(self.model), "processor": _told_apart(self.processor)}
        return (type(self).__name__, *sorted(values.items()))


class Classifier(NamedTuple):
    """A classifier with its preprocessing; calling it runs the model."""

    model: nn.Module
    prepare: Preparation

    def inputs(self, column: str, values: Sequence[Any]) -> Mapping[str, Tensor]:
        """Return the model inputs of some rows, on the model's device; a row that cannot be read is an error."""
        batch = self.prepare(0, {column: values})
        if batch.unreadable:
            row, reason = next(iter(batch.unreadable.items()))
            raise ValueError(f"column {column!r} cannot be read in row {row} of a batch of {len(values)}: {reason}")
        return placed(batch.inputs or {}, self.model)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Any:  # noqa: ANN401 - a tensor or a ModelOutput
        """Run the model, as transformers or as timm call theirs."""
        from transformers import PreTrainedModel

        return self.model(**inputs) if isinstance(self.model, PreTrainedModel) else self.model(*inputs.values())


def classifier(model: ModelLike, processor: Any) -> Classifier:  # noqa: ANN401 - a processor, its id, or None
    """Return a classifier ready to run: a model object where it is, one loaded by name on the accelerator if any.

    Raises:
        ValueError: if the weights belong to no image or sequence classifier, or there is no processor for it.
    """
    named = isinstance(model, str | PathLike)
    return loaded_once(_classifier, model, processor) if named else _classifier(model, processor)


def loaded_once(
    load: Callable[[ModelLike, Any], Loaded],
    model: ModelLike,
    processor: Any,  # noqa: ANN401 - a processor, its id, or None
) -> Loaded:
    """Return `load(model, processor)`, which is kept until others are asked for or the files of the model change."""
    return _kept(load, model, processor, _files(model) if isinstance(model, str | PathLike) else "")


@lru_cache(maxsize=4)
def _kept(
    load: Callable[[ModelLike, Any], Loaded],
    model: ModelLike,
    processor: Any,  # noqa: ANN401 - as for `loaded_once`
    files: str,
) -> Loaded:
    return load(model, processor)


def _classifier(model: ModelLike, processor: Any) -> Classifier:  # noqa: ANN401 - a processor, its id, or None
    from hf_midrange.classifier import load_classifier
    from hf_midrange.extraction.inputs import Preparation, preparation

    name = fspath(model) if isinstance(model, str | PathLike) else None
    loaded = load_classifier(model)
    prepare = preparation(loaded, processor, source=name)
    if not isinstance(prepare, Preparation):
        raise TypeError(f"a concept source reads raw rows; give a processor, not {type(prepare).__name__}")
    return Classifier(loaded if name is None else loaded.to(accelerator()), prepare)


def accelerator() -> Any:  # noqa: ANN401 - a torch.device
    """Return the device of this process, which may be one of several that a launcher started."""
    return join_processes().device


def placed(inputs: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Return model inputs on the model's device, floating-point ones in its precision."""
    place = next(model.parameters())
    return {
        name: value.to(place.device, place.dtype if value.is_floating_point() else None)
        for name, value in inputs.items()
    }


def name_of(model: ModelLike) -> str:
    """Return the Hub id or folder of a model that is named by it or was loaded from it; else an empty text."""
    return fspath(model) if isinstance(model, str | PathLike) else str(getattr(model, "name_or_path", ""))


def processor_of(model: ModelLike, processor: Any) -> Any:  # noqa: ANN401 - processors share no class
    """Return the given processor, the one of the given id or folder, or the one that lies beside the model.

    Raises:
        ValueError: if none is given and the model does not say where it came from.
    """
    from transformers import AutoProcessor

    if processor is not None and not isinstance(processor, str | PathLike):
        return processor
    name = name_of(model) if processor is None else fspath(processor)
    if not name:
        raise ValueError("the model object does not say where it came from; pass `processor=` too")
    return AutoProcessor.from_pretrained(name, trust_remote_code=False)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Run a model in eval mode without gradients; afterwards each module is in its former mode."""
    import torch

    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _told_apart(held: Any) -> str:  # noqa: ANN401 - a model, a processor, an id, or None
    """Return a text that differs between models with different weights: for a Hub id, the id itself."""
    if isinstance(held, str | PathLike):
        return f"{fspath(held)} {_files(held)}"
    if hasattr(held, "state_dict"):
        from hf_midrange.classifier import fingerprint

        return fingerprint(held)
    shown = repr(held)
    return shown if " at 0x" not in shown else Hasher.hash(held)  # an address is another in every process


def _files(model: str | PathLike[str]) -> str:
    """Return names, sizes and times of the files in a folder; of a Hub id nothing."""
    folder = Path(model)
    files = sorted(path for path in folder.glob("*") if path.is_file()) if folder.is_dir() else []
    return str([(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files])
