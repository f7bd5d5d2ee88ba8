"""What sources that run a model share: loading it once, feeding it, and knowing it again in a cache."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from datasets import Dataset, Features
from datasets.fingerprint import Hasher

from hf_midrange import columns
from hf_midrange.concepts.map_steps import undecoded
from hf_midrange.concepts.source import Source
from hf_midrange.processes import join_processes


if TYPE_CHECKING:
    from torch import Tensor, nn

    from hf_midrange.extraction.inputs import Preparation

ModelLike = Any
"""A model object, a Hub id, or a folder written by `save_pretrained`."""

Loaded = TypeVar("Loaded")

ROWS_COMPARED, SAME = 4, 0.99


@dataclass(frozen=True)
class ModelSource(Source):
    """A source that runs a model on one column: a class writes `ready` and has a field `column`."""

    costly: ClassVar[bool] = True

    model: ModelLike
    processor: Any = None

    @staticmethod
    @abstractmethod
    def ready(model: ModelLike, processor: Any) -> Any:  # noqa: ANN401 - a processor, its id, or None
        """Return a model ready to run, with what makes its inputs."""

    def check(self, features: Features, *, to_fit: bool = False) -> None:
        """Raise unless the column and the model fit each other."""
        super().check(features)
        self.loaded()

    def loaded(self) -> Any:  # noqa: ANN401 - what `ready` returns
        """Return `ready(model, processor)`, which is kept until others are asked for or the model's files change."""
        files = _files(self.model) if isinstance(self.model, str | PathLike) else ""
        return _kept(type(self).ready, self.model, self.processor, files)

    def identity(self) -> object:
        """Return the settings with a digest of the model's weights."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values |= {"model": _told_apart(self.model), "processor": _told_apart(self.processor)}
        return (type(self).__name__, *sorted(values.items()))


class ClassifierSource(ModelSource):
    """A source that runs a classifier."""

    def loaded(self) -> Classifier:
        """Return the classifier, a model object where it is, one named on the accelerator if there is any.

        Raises:
            ValueError: if the weights belong to no image or sequence classifier, or there is no processor for it.
        """
        named = isinstance(self.model, str | PathLike)
        return super().loaded() if named else self.ready(self.model, self.processor)

    @staticmethod
    def ready(model: ModelLike, processor: Any) -> Classifier:  # noqa: ANN401 - a processor, its id, or None
        """Return a classifier ready to run."""
        from hf_midrange.classifier import load_classifier
        from hf_midrange.extraction.inputs import Preparation, preparation

        name = fspath(model) if isinstance(model, str | PathLike) else None
        loaded = load_classifier(model)
        prepare = preparation(loaded, processor, source=name)
        if not isinstance(prepare, Preparation):
            raise TypeError(f"a concept source reads raw rows; give a processor, not {type(prepare).__name__}")
        return Classifier(loaded if name is None else loaded.to(accelerator()), prepare)


class Classifier(NamedTuple):
    """A classifier with its preprocessing."""

    model: nn.Module
    prepare: Preparation

    def inputs(self, column: str, values: Sequence[Any]) -> Mapping[str, Tensor]:
        """Return the model inputs of some rows, on the model's device; a row that cannot be read is an error."""
        batch = self.prepare(0, {column: values})
        if batch.unreadable:
            row, reason = next(iter(batch.unreadable.items()))
            raise ValueError(f"column {column!r} cannot be read in row {row} of a batch of {len(values)}: {reason}")
        return placed(batch.inputs or {}, self.model)

    def __call__(self, column: str, values: Sequence[Any]) -> np.ndarray:
        """Return what any classifier, with whatever head, says of some rows: float32 of shape `(rows, labels)`."""
        from transformers import PreTrainedModel

        inputs = self.inputs(column, values)
        with evaluating(self.model):
            output = self.model(**inputs) if isinstance(self.model, PreTrainedModel) else self.model(*inputs.values())
        return getattr(output, "logits", output).float().cpu().numpy()

    def made_the_embedding(self, column: str, ds: Dataset) -> bool:
        """Return whether this network's features of the first rows are their embeddings, up to precision."""
        from hf_midrange.extraction.forward import prepared

        if columns.EMBEDDING not in ds.column_names:
            return False
        rows = ds.select(range(min(ROWS_COMPARED, len(ds))))
        embedding = columns.matrix(rows, columns.EMBEDDING).astype(np.float64)
        undecoded_rows, _ = undecoded(rows.select_columns([column]))
        try:
            with prepared(self.model, None, next(self.model.parameters()).device, None) as forward:
                features = forward(self.inputs(column, undecoded_rows[column][:])).embedding
        except ValueError:  # the network has no linear head, so it has no embedding of this kind
            return False
        if features.shape != embedding.shape:
            return False
        lengths = np.linalg.norm(features, axis=1) * np.linalg.norm(embedding, axis=1)
        return bool((np.einsum("ij,ij->i", features, embedding) >= SAME * lengths).all())


@lru_cache(maxsize=4)
def _kept(
    load: Callable[[ModelLike, Any], Loaded],
    model: ModelLike,
    processor: Any,  # noqa: ANN401 - as for `ready`
    files: str,
) -> Loaded:
    return load(model, processor)


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
