"""What a captioning model says about images, and the words of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from datasets import Value

from hf_midrange import columns
from hf_midrange.concepts.map_steps import Batch
from hf_midrange.concepts.model_source import (
    ModelLike,
    ModelSource,
    accelerator,
    evaluating,
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
class Captions(NGrams, ModelSource):
    """Words and short phrases of generated captions: `concepts_captions`, with the captions kept in `caption`.

    Captions are generated greedily. They are data: control characters are removed, they are cut at 1,000 characters,
    nothing in them is interpreted, and concept names hold only words. Exclude the class names, or their words will be
    found tied to the class.

    Fails on what people do not find worth saying, such as backgrounds, and invents what often goes together: a
    captioner that has itself learnt the tie reports the confounder where it is not.

    Args:
        model: any model that `AutoModelForImageTextToText` loads (BLIP, GIT, LLaVA, Qwen-VL, ...), its Hub id, folder.
        processor: its processor; None takes the model's own.
        column: an `Image` column.
        longest: words in the longest phrase, as for `NGrams`, like all up to `exclude_class_names`.
        min_rows: a phrase must occur in the captions of at least so many of the rows fitted on.
        max_share: and in at most this share of them.
        max_phrases: the phrases that occur in most rows are kept.
        exclude: words that no phrase may contain.
        exclude_class_names: whether to exclude the words of the names of the `label` column too.
        name: the column is `concepts_<name>`; if it is not "captions", captions are kept in `caption_<name>`.
        prompt: what the model is asked; used where the processor has a chat template, else only if it is given.
        max_new_tokens: longest caption.
    """

    reads: ClassVar[str] = IMAGE
    version: ClassVar[int] = 2

    column: str = columns.IMAGE
    name: str = "captions"
    prompt: str | None = None
    max_new_tokens: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_outside(1, LONGEST, max_new_tokens=self.max_new_tokens)

    @property
    def measured_column(self) -> str:
        """Return the name of the column of captions, which is kept."""
        return "caption" if self.name == "captions" else f"caption_{self.name}"

    @property
    def texts(self) -> tuple[str, ...]:
        """Return the column of captions."""
        return (self.measured_column,)

    def feature(self) -> Any:  # noqa: ANN401 - a datasets feature
        """Return the feature of captions."""
        return Value("string")

    def measure(self, batch: Batch) -> list[str]:
        """Return a caption for every image."""
        return self.loaded().captions(batch[self.column], self.prompt, self.max_new_tokens)

    @staticmethod
    def ready(model: ModelLike, processor: Any) -> Captioner:  # noqa: ANN401 - a processor, its id, or None
        """Return a captioner, on the accelerator if the model is named and there is one.

        Raises:
            ValueError: if the model writes nothing about images, or has no processor.
        """
        from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig, AutoModelForImageTextToText

        loaded = model
        if isinstance(model, str | PathLike):
            config = AutoConfig.from_pretrained(fspath(model), trust_remote_code=False)
            if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
                raise ValueError(
                    f"{fspath(model)!r} holds a {config.model_type!r} model, which does not write about images; give "
                    "a captioner such as 'Salesforce/blip-image-captioning-base' or an image-text-to-text model"
                )
            loaded = AutoModelForImageTextToText.from_pretrained(fspath(model), trust_remote_code=False)
            loaded = loaded.to(accelerator())
        if not hasattr(loaded, "generate"):
            raise ValueError(
                f"{type(loaded).__name__} writes no text; give a captioner such as BLIP or an image-text model"
            )
        return Captioner(loaded, processor_of(model, processor))


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
