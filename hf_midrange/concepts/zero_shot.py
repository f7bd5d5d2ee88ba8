"""Words that a model of the CLIP or SigLIP kind, which encodes images and texts in one space, finds in images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from datasets import Dataset
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.model_source import (
    ModelLike,
    ModelSource,
    accelerator,
    evaluating,
    name_of,
    placed,
    processor_of,
)
from hf_midrange.concepts.source import IMAGE, numbers, refuse_constant, refuse_lengths
from hf_midrange.concepts.vocabularies import words_of
from hf_midrange.extraction.images import rgb


if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

NULL_PROMPTS = ("", "a photo", "an image", "a picture of something", "a photo of a thing", "anything")
NULL_IMAGES = 64
TEXTS_AT_ONCE = 64


@dataclass(frozen=True)
class _Sought:
    """What is looked for, which is named before the model: `ZeroShot(words, model)`."""

    words: str | Sequence[str]


@dataclass(frozen=True)
class ZeroShot(ModelSource, _Sought):
    """Which of the given words an image-text model sees: `concepts_zero_shot`.

    Presence means the same for every word. The cosine of image and word is first compared with the mean cosine of the
    same image with prompts that say nothing; then it is expressed in standard deviations above its mean over images
    that show nothing (noise, plain colours, gradients), since some words lie closer to all images than others. One cut
    for all words, taken from the rows fitted on, makes a share `share` of all (row, word) pairs present.

    Fails on words that go together in captions (a ball is seen where there is a player), on counts, on left and right,
    and where the images are unlike photographs. Scores are not probabilities and cannot be compared across models.

    Args:
        words: what to look for, or the name of a list: "imagenet", "colours", "scenes", "people" or "text".
        model: a dual encoder of transformers (CLIP, SigLIP, ALIGN, ...), its Hub id, or its folder.
        processor: its processor; None takes the model's own.
        template: sentence around each word.
        share: share of the (row, word) pairs of the rows fitted on that are present.
        column: an `Image` column.
        name: the column is `concepts_<name>`.

    Raises:
        ValueError: when used, if the model has no two encoders or the vocabulary is empty.
    """

    reads: ClassVar[str] = IMAGE

    template: str = "a photo of {}"
    share: float = 0.1
    column: str = columns.IMAGE
    name: str = "zero_shot"
    null_mean: tuple[float, ...] = ()
    null_scale: tuple[float, ...] = ()
    cut: float = 0.0
    left_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share < 1 or "{}" not in self.template:
            raise ValueError(
                f"zero-shot needs 0 < share < 1 and a template with {{}}, not {self.share}, {self.template!r}"
            )
        object.__setattr__(self, "words", words_of(self.words))
        if self.fitted:
            refuse_lengths(self, len(self.words), "null_mean", "null_scale")

    @property
    def fitted(self) -> bool:
        """Return whether the calibration is known."""
        return bool(self.null_mean)

    def feature(self) -> Any:  # noqa: ANN401 - a datasets feature
        """Return the feature of the scores."""
        return columns.vector(len(self.vocabulary))

    def measure(self, batch: Batch) -> np.ndarray:
        """Return the cosine with every word, less the mean cosine with the null prompts."""
        return self._above_null(batch[self.column])

    def learn(self, ds: Dataset) -> Self:
        """Return the source calibrated on null images, with the cut that `ds` gives."""
        null = self._above_null(null_images()).astype(np.float64)
        mean, scale = null.mean(axis=0), null.std(axis=0)
        scale = np.maximum(scale, 1e-3 * scale.max() if scale.max() > 0 else 1.0)
        known = replace(self, null_mean=tuple(map(float, mean)), null_scale=tuple(map(float, scale)))
        values = known._calibrated(columns.matrix(ds, self.measured_column))
        fitted = replace(known, cut=float(np.quantile(values, 1 - self.share)))
        present = values > fitted.cut
        refuse_constant(self, int((present.any(axis=0) & ~present.all(axis=0)).sum()))
        return fitted

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which words lie above the cut."""
        return sparse.csr_matrix(self._calibrated(numbers(batch, self)) > self.cut)

    def _calibrated(self, values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float64) - np.array(self.null_mean)) / np.array(self.null_scale)

    def _above_null(self, images: Sequence[Any]) -> np.ndarray:
        encoder = self.loaded()
        sentences = tuple(self.template.format(word) for word in self.vocabulary)
        pictures = encoder.images(images)
        words, nothing = encoder.texts(sentences), encoder.texts(NULL_PROMPTS)
        return (pictures @ words.T - (pictures @ nothing.T).mean(axis=1, keepdims=True)).astype(np.float32)

    @staticmethod
    def ready(model: ModelLike, processor: Any) -> DualEncoder:  # noqa: ANN401 - a processor, its id, or None
        """Return the model of a Hub id or folder, on the accelerator if there is one, or the given model where it is.

        Raises:
            ValueError: if the model does not encode both images and texts, or has no processor.
        """
        from transformers import AutoModel

        named = isinstance(model, str | PathLike)
        loaded = (
            AutoModel.from_pretrained(fspath(model), trust_remote_code=False).to(accelerator()) if named else model
        )
        if not (hasattr(loaded, "get_image_features") and hasattr(loaded, "get_text_features")):
            raise ValueError(
                f"{name_of(model) or type(loaded).__name__!r} is a {type(loaded).__name__}, which does not encode "
                "both images and texts; give a CLIP or SigLIP type of model, such as 'openai/clip-vit-base-patch32'"
            )
        return DualEncoder(loaded, processor_of(model, processor))


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


def null_images(size: int = 64, seed: int = 0) -> list[Any]:
    """Return images that show nothing: plain colours, gradients, and noise from fine to coarse."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, size)[:, None, None] * np.ones((1, size, 1))
    pictures = []
    for k in range(NULL_IMAGES // 4):
        first, second = rng.integers(0, 256, (2, 3))
        gradient = first + ramp * (second - first)
        grain = 2 ** (k % 4 + 1)
        coarse = Image.fromarray(rng.integers(0, 256, (grain, grain, 3), dtype=np.uint8)).resize((size, size))
        pictures += [
            np.full((size, size, 3), first),
            gradient,
            np.asarray(coarse),
            rng.integers(0, 256, (size, size, 3)),
        ]
    return [Image.fromarray(picture.astype(np.uint8)) for picture in pictures]
