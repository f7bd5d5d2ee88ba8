"""What a captioning model says about images, and the words of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from datasets import Dataset, Features, Value
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.captioner import Captioner, captioner
from hf_midrange.concepts.models import ModelLike, ModelSource
from hf_midrange.concepts.ngrams import NGrams
from hf_midrange.concepts.source import IMAGE, Batch, WordSource, require_feature


@dataclass(frozen=True)
class Captions(ModelSource, WordSource):
    """Words and short phrases of generated captions: `concepts_captions`, with the captions kept in `caption`.

    Captions are generated greedily. They are data: control characters are removed, they are cut at 1,000 characters,
    nothing in them is interpreted, and concept names hold only words. Exclude the class names, or their words will be
    found tied to the class.

    Fails on what people do not find worth saying, such as backgrounds, and invents what often goes together: a
    captioner that has itself learnt the tie reports the confounder where it is not.

    Args:
        model: any model that `AutoModelForImageTextToText` loads (BLIP, GIT, LLaVA, Qwen-VL, ...), its Hub id, folder.
        processor: its processor; None takes the model's own.
        prompt: what the model is asked; used where the processor has a chat template, else only if it is given.
        max_new_tokens: longest caption.
        longest, min_rows, max_share, max_phrases, exclude, exclude_class_names: as for `NGrams`.
        column: an `Image` column.
        name: the column is `concepts_<name>`; if it is not "captions", captions are kept in `caption_<name>`.
    """

    model: ModelLike
    processor: Any = None
    prompt: str | None = None
    max_new_tokens: int = 40
    longest: int = 2
    min_rows: int = 10
    max_share: float = 0.9
    max_phrases: int = 2000
    exclude: Sequence[str] = ()
    exclude_class_names: bool = False
    column: str = columns.IMAGE
    name: str = "captions"
    words: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    version: int = 1

    def check(self, features: Features) -> None:
        """Raise unless the column holds images and the model writes about images."""
        require_feature(self, features, self.column, IMAGE)
        self._captioner()

    @property
    def _caption(self) -> str:
        return "caption" if self.name == "captions" else f"caption_{self.name}"

    def measured(self) -> dict[str, Any]:
        """Return the column of captions, which is kept."""
        return {self._caption: Value("string")}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return a caption for every image."""
        return {self._caption: self._captioner().captions(batch[self.column], self.prompt, self.max_new_tokens)}

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the phrases of the captions of `ds`."""
        return replace(self, words=self._ngrams().learn(ds).phrases[0])

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which phrases each caption has."""
        return self._ngrams().read(batch)

    def _captioner(self) -> Captioner:
        return captioner(self.model, self.processor)

    def _ngrams(self) -> NGrams:
        return NGrams(
            column=self._caption,
            longest=self.longest,
            min_rows=self.min_rows,
            max_share=self.max_share,
            max_phrases=self.max_phrases,
            exclude=self.exclude,
            exclude_class_names=self.exclude_class_names,
            name=self.name,
            phrases=(self.words,) if self.words else (),
        )
