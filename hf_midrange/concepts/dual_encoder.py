"""CLIP- and SigLIP-type models of transformers: images and texts as unit vectors of one space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_midrange.concepts.models import (
    ModelLike,
    accelerator,
    evaluating,
    model_identity,
    name_of,
    placed,
    processor_of,
)
from hf_midrange.concepts.pictures import rgb


if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

TEXTS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class DualEncoder:
    """A model with an image and a text encoder, and its processor."""

    model: PreTrainedModel
    processor: Any

    def images(self, images: Sequence[Any]) -> np.ndarray:
        """Return unit vectors of PIL images, float64 of shape `(n, d)`."""
        pixels = self.processor(images=[rgb(image) for image in images], return_tensors="pt")
        return self._encoded(self.model.get_image_features, pixels)

    def texts(self, texts: tuple[str, ...]) -> np.ndarray:
        """Return unit vectors of texts, float64 of shape `(n, d)`; the same texts are encoded once."""
        return _texts(self, texts)

    def _encoded(self, encode: Any, inputs: Any) -> np.ndarray:  # noqa: ANN401 - a bound method and a BatchFeature
        with evaluating(self.model):
            vectors = _pooled(encode(**placed(inputs, self.model))).double().cpu().numpy()
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _pooled(output: Any) -> Tensor:  # noqa: ANN401 - a tensor, or an output with the projected vectors as pooler_output
    return getattr(output, "pooler_output", output)


@lru_cache(maxsize=8)
def _texts(encoder: DualEncoder, texts: tuple[str, ...]) -> np.ndarray:
    parts = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
    # SigLIP was trained on texts padded to full length and without an attention mask.
    padding = "max_length" if "siglip" in encoder.model.config.model_type else True
    encode = encoder.model.get_text_features
    options = {"padding": padding, "truncation": True, "return_tensors": "pt"}
    return np.concatenate([encoder._encoded(encode, encoder.processor(text=list(part), **options)) for part in parts])


def dual_encoder(model: ModelLike, processor: Any) -> DualEncoder:  # noqa: ANN401 - a processor, its id, or None
    """Return the model of a Hub id or folder, on the accelerator if there is one, or the given model where it is.

    Raises:
        ValueError: if the model does not encode both images and texts, or has no processor.
    """
    return _kept(model, processor, model_identity(model) if isinstance(model, str | PathLike) else "")


@lru_cache(maxsize=2)
def _kept(model: ModelLike, processor: Any, identity: str) -> DualEncoder:  # noqa: ANN401 - as for `dual_encoder`
    from transformers import AutoModel

    named = isinstance(model, str | PathLike)
    loaded = AutoModel.from_pretrained(fspath(model)).to(accelerator()) if named else model
    if not (hasattr(loaded, "get_image_features") and hasattr(loaded, "get_text_features")):
        raise ValueError(
            f"{name_of(model) or type(loaded).__name__!r} is a {type(loaded).__name__}, which does not encode both "
            "images and texts; give a CLIP or SigLIP type of model, such as 'openai/clip-vit-base-patch32'"
        )
    return DualEncoder(loaded, processor_of(model, processor))
