"""Models that write about images: BLIP-type captioners and image-text-to-text models with a chat template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from hf_midrange.concepts.models import ModelLike, accelerator, evaluating, model_identity, placed, processor_of
from hf_midrange.concepts.pictures import rgb


if TYPE_CHECKING:
    from torch import Tensor

LONGEST = 1000
"""Characters a caption is cut at."""
ASK = "Describe this image in one sentence."


@dataclass(frozen=True, eq=False)
class Captioner:
    """A generating model and its processor."""

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


def captioner(model: ModelLike, processor: Any) -> Captioner:  # noqa: ANN401 - a processor, its id, or None
    """Return the captioner of a Hub id or folder, on the accelerator if there is one, or the given model where it is.

    Raises:
        ValueError: if the model does not write about images, or has no processor.
    """
    return _kept(model, processor, model_identity(model) if isinstance(model, str | PathLike) else "")


@lru_cache(maxsize=2)
def _kept(model: ModelLike, processor: Any, identity: str) -> Captioner:  # noqa: ANN401 - as for `captioner`
    from transformers import AutoModelForImageTextToText

    if isinstance(model, str | PathLike):
        _refuse_other_kinds(fspath(model))
        loaded: Any = AutoModelForImageTextToText.from_pretrained(fspath(model)).to(accelerator())
    else:
        loaded = model
    if not hasattr(loaded, "generate"):
        raise ValueError(
            f"{type(loaded).__name__} writes no text; give a captioner such as BLIP or an image-text model"
        )
    return Captioner(loaded, processor_of(model, processor))


def _refuse_other_kinds(name: str) -> None:
    from transformers import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(name)
    if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        raise ValueError(
            f"{name!r} holds a {config.model_type!r} model, which does not write about images; give a captioner such "
            "as 'Salesforce/blip-image-captioning-base' or an image-text-to-text model"
        )
