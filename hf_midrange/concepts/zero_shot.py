"""Words that an image-text model of the CLIP or SigLIP kind finds in images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from datasets import Dataset, Features
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.dual_encoder import DualEncoder, dual_encoder
from hf_midrange.concepts.models import ModelLike, ModelSource
from hf_midrange.concepts.source import IMAGE, Batch, refuse_constant, require_feature
from hf_midrange.concepts.vocabularies import words_of


NULL_PROMPTS = ("", "a photo", "an image", "a picture of something", "a photo of a thing", "anything")
NULL_IMAGES = 64


@dataclass(frozen=True)
class ZeroShot(ModelSource):
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

    words: str | Sequence[str]
    model: ModelLike
    processor: Any = None
    template: str = "a photo of {}"
    share: float = 0.1
    column: str = columns.IMAGE
    name: str = "zero_shot"
    null_mean: tuple[float, ...] = ()
    null_scale: tuple[float, ...] = ()
    cut: float = 0.0
    left_out: tuple[str, ...] = ()
    version: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1 or "{}" not in self.template:
            raise ValueError(
                f"zero-shot needs 0 < share < 1 and a template with {{}}, not {self.share}, {self.template!r}"
            )
        object.__setattr__(self, "words", words_of(self.words))

    @property
    def fitted(self) -> bool:
        """Return whether the calibration is known."""
        return bool(self.null_mean)

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """Return the words."""
        return tuple(self.words)

    def check(self, features: Features) -> None:
        """Raise unless the column holds images and the model is a dual encoder."""
        require_feature(self, features, self.column, IMAGE)
        self._encoder()

    @property
    def _scores(self) -> str:
        return f"_scores_{self.name}"

    def measured(self) -> dict[str, Any]:
        """Return the working column of scores."""
        return {self._scores: columns.vector(len(self.vocabulary))}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return the cosine with every word, less the mean cosine with the null prompts."""
        return {self._scores: self._above_null(batch[self.column])}

    def learn(self, ds: Dataset) -> Self:
        """Return the source calibrated on null images, with the cut that `ds` gives."""
        null = self._above_null(null_images()).astype(np.float64)
        mean, scale = null.mean(axis=0), null.std(axis=0)
        scale = np.maximum(scale, 1e-3 * scale.max() if scale.max() > 0 else 1.0)
        known = replace(self, null_mean=tuple(map(float, mean)), null_scale=tuple(map(float, scale)))
        values = known._calibrated(columns.matrix(ds, self._scores))
        fitted = replace(known, cut=float(np.quantile(values, 1 - self.share)))
        present = values > fitted.cut
        refuse_constant(self, int((present.any(axis=0) & ~present.all(axis=0)).sum()))
        return fitted

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which words lie above the cut."""
        values = np.asarray(batch[self._scores], dtype=np.float32).reshape(-1, len(self.vocabulary))
        return sparse.csr_matrix(self._calibrated(values) > self.cut)

    def _calibrated(self, values: np.ndarray) -> np.ndarray:
        return (values.astype(np.float64) - np.array(self.null_mean)) / np.array(self.null_scale)

    def _encoder(self) -> DualEncoder:
        return dual_encoder(self.model, self.processor)

    def _above_null(self, images: Sequence[Any]) -> np.ndarray:
        encoder = self._encoder()
        sentences = tuple(self.template.format(word) for word in self.vocabulary)
        pictures = encoder.images(images)
        words, nothing = encoder.texts(sentences), encoder.texts(NULL_PROMPTS)
        return (pictures @ words.T - (pictures @ nothing.T).mean(axis=1, keepdims=True)).astype(np.float32)


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
