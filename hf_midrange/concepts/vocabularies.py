"""Words to ask an image-text model for, where a user has none: things, colours, places, people, writing."""

from __future__ import annotations

from collections.abc import Sequence


COLOURS = (
    "a black object", "a white object", "a grey object", "a red object", "an orange object", "a yellow object",
    "a green object", "a blue object", "a purple object", "a pink object", "a brown object", "a golden object",
)  # fmt: skip
SCENES = (
    "a forest", "bamboo", "a meadow", "a field", "a beach", "the sea", "a lake", "a river", "a mountain", "a desert",
    "snow", "ice", "the sky", "clouds", "a sunset", "night", "fog", "rain", "a garden", "flowers", "grass", "a tree",
    "a street", "a road", "a city", "a building", "a bridge", "a stadium", "a shop", "an office", "a kitchen",
    "a bedroom", "a bathroom", "a living room", "a classroom", "a hospital", "a laboratory", "a stage", "a fence",
    "a cage", "a wall", "a table", "a carpet", "a plain background", "a dark background", "a bright background",
    "the ground",
    "under water", "indoors", "outdoors",
)  # fmt: skip
PEOPLE = (
    "a person", "a man", "a woman", "a child", "a baby", "an old person", "a group of people", "a crowd", "a face",
    "a hand", "a smiling person", "long hair", "short hair", "blond hair", "dark hair", "a bald head", "a beard",
    "glasses", "sunglasses", "a hat", "a uniform", "a suit", "a dress", "make-up", "jewellery", "a tattoo",
)  # fmt: skip
TEXT_IN_IMAGE = (
    "written text", "a watermark", "a logo", "a date stamp", "a caption", "handwriting", "a number", "a sign",
    "a ruler",
    "a label", "a barcode", "an arrow", "a picture frame", "a black border", "a white border", "a drawing",
    "a screenshot", "a black and white photo", "a blurred photo", "a collage",
)  # fmt: skip

_LISTS = {"colours": COLOURS, "scenes": SCENES, "people": PEOPLE, "text": TEXT_IN_IMAGE}


def imagenet_lemmas() -> list[str]:
    """Return the WordNet lemmas of ImageNet's 1,000 classes in id order, the first of each, from timm."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return [info.index_to_description(k).split(",")[0] for k in range(info.num_classes())]


def words_of(chosen: str | Sequence[str]) -> tuple[str, ...]:
    """Return the words of a named list ("imagenet", "colours", "scenes", "people", "text"), or the words themselves.

    Raises:
        ValueError: if a name is unknown, or there are no words; repeated words are taken once.
    """
    if isinstance(chosen, str):
        if chosen != "imagenet" and chosen not in _LISTS:
            raise ValueError(
                f"unknown vocabulary {chosen!r}; choose one of {['imagenet', *_LISTS]}, or give a list of words"
            )
        chosen = imagenet_lemmas() if chosen == "imagenet" else _LISTS[chosen]
    words = tuple(dict.fromkeys(word.strip() for word in chosen if word.strip()))
    if not words:
        raise ValueError("the vocabulary is empty; give at least one word")
    return words
