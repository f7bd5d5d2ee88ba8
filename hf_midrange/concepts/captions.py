"""What a captioning model says about images, and the words of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

from datasets import Dataset, Features, Value
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.model_source import (
    ModelLike,
    ModelSource,
    accelerator,
    evaluating,
    loaded_once,
    placed,
    processor_of,
)
from hf_midrange.concepts.ngrams import NGrams
from hf_midrange.concepts.source import IMAGE, refuse_outside
from hf_midrange.extraction.images import rgb


if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 1000
"""Characters a caption is cut at, and most tokens that are generated."""
ASK = "Describe this image in one sentence."


@dataclass(frozen=True)
class Captions(ModelSource):
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

    reads: ClassVar[str] = IMAGE

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

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_outside(1, LONGEST, max_new_tokens=self.max_new_tokens)
        self._ngrams()  # refuses limits that cannot be

    def check(self, features: Features) -> None:
        """Raise unless the column holds images and the model writes about images."""
        super().check(features)
        loaded_once(_captioner, self.model, self.processor)

    @property
    def _caption(self) -> str:
        return "caption" if self.name == "captions" else f"caption_{self.name}"

    def measured(self) -> dict[str, Any]:
        """Return the column of captions, which is kept."""
        return {self._caption: Value("string")}

    def measure(self, batch: Batch) -> dict[str, Any]:
        """Return a caption for every image."""
        captioner = loaded_once(_captioner, self.model, self.processor)
        return {self._caption: captioner.captions(batch[self.column], self.prompt, self.max_new_tokens)}

    def learn(self, ds: Dataset) -> Self:
        """Return the source with the phrases of the captions of `ds`."""
        return replace(self, words=self._ngrams().learn(ds).phrases[0])

    def read(self, batch: Batch) -> sparse.csr_matrix:
        """Return which phrases each caption has."""
        return self._ngrams().read(batch)

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


class Captioner(NamedTuple):
    """A generating model and its processor: of BLIP's kind, or image-text-to-text with a chat template.

    The pipeline of transformers wants a prompt even of models that caption without one, and runs chats one by one.
    """

    model: Any
    processor: Any

    def captions(self, images: Sequence[Any], prompt: str | None, max_new_tokens: int) -> list[str]:
        """Return one caption for each PIL image, greedily generated."""
        inputs = placed(self._inputs([rgb(image) for image in images], prompt), self.model)
        with evaluating(self.model):
            ids = self.model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=max_new_tokens)
        written = _without_prompt(ids, inputs.get("input_ids"))
        return [plain(text) for text in self.processor.batch_decode(written, skip_special_tokens=True)]

    def _inputs(self, images: list[Any], prompt: str | None) -> Any:  # noqa: ANN401 - a BatchFeature
        if getattr(self.processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": prompt or ASK}]
            asked = self.processor.apply_chat_template(
                [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
            )
            texts, pictures = [asked] * len(images), [[image] for image in images]
            return self.processor(images=pictures, text=texts, padding=True, padding_side="left", return_tensors="pt")
        if prompt is None:
            return self.processor(images=images, return_tensors="pt")
        return self.processor(images=images, text=[prompt] * len(images), padding=True, return_tensors="pt")


def plain(text: str) -> str:
    r"""Return a caption as one line of printable characters, at most `LONGEST` of them.

    Examples:
        >>> plain("a dog\n\x1b[31m on  grass ")
        'a dog [31m on grass'
    """
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:LONGEST]


def _without_prompt(ids: Tensor, prompt: Tensor | None) -> Tensor:
    """Return what was written: decoders that continue a prompt give it back first."""
    if prompt is None or ids.shape[1] < prompt.shape[1] or not bool((ids[:, : prompt.shape[1]] == prompt).all()):
        return ids
    return ids[:, prompt.shape[1] :]


def _captioner(model: ModelLike, processor: Any) -> Captioner:  # noqa: ANN401 - a processor, its id, or None
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoModelForImageTextToText

    loaded = model
    if isinstance(model, str | PathLike):
        config = AutoConfig.from_pretrained(fspath(model), trust_remote_code=False)
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise ValueError(
                f"{fspath(model)!r} holds a {config.model_type!r} model, which does not write about images; give a "
                "captioner such as 'Salesforce/blip-image-captioning-base' or an image-text-to-text model"
            )
        loaded = AutoModelForImageTextToText.from_pretrained(fspath(model), trust_remote_code=False)
        loaded = loaded.to(accelerator())
    if not hasattr(loaded, "generate"):
        raise ValueError(
            f"{type(loaded).__name__} writes no text; give a captioner such as BLIP or an image-text model"
        )
    return Captioner(loaded, processor_of(model, processor))
