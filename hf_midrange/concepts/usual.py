"""Which sources there are: by a saved file, by the words of a command line, and those that need no asking."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_midrange import columns
from hf_midrange.concepts.captions import Captions
from hf_midrange.concepts.early_features import EarlyFeatures
from hf_midrange.concepts.latent import LatentConcepts
from hf_midrange.concepts.metadata import Annotations
from hf_midrange.concepts.model_source import ModelLike
from hf_midrange.concepts.ngrams import NGrams
from hf_midrange.concepts.pictures import ImageProperties, Thumbnail
from hf_midrange.concepts.predictions import SMALL_NETWORK, Kinds, Predictions
from hf_midrange.concepts.source import Source
from hf_midrange.concepts.text_views import TextStyle, TextTopics
from hf_midrange.concepts.zero_shot import ZeroShot


OF_COLUMNS = {"annotations": Annotations, "ngrams": NGrams, "text-style": TextStyle, "text-topics": TextTopics}
OF_MODELS = {"predictions": Predictions, "early-features": EarlyFeatures, "captions": Captions}
OTHERS = {"image-properties": ImageProperties, "thumbnail": Thumbnail, "kinds": Kinds, "latent": LatentConcepts}
KNOWN_SOURCES = (
    "annotations:COLUMN[,COLUMN], ngrams:COLUMN, text-style:COLUMN, text-topics:COLUMN, image-properties[:COLUMN], "
    "thumbnail[:COLUMN], kinds[:MODEL], latent, predictions:MODEL, early-features:MODEL, captions:MODEL, "
    "zero-shot:LIST:MODEL (LIST: imagenet, colours, scenes, people or text), FILE.json of a fitted source"
)
"""What `source_named` takes."""


def load_source(path: str | Path) -> Source:
    """Return the fitted source that `save`, or `annotate(..., output_dir=...)`, wrote to a JSON file.

    Raises:
        ValueError: if the file holds no source of this package, one of another version, or not what was written.
    """
    return Source.load(path)


def source_named(text: str) -> Source:
    """Return the source that words stand for: `ngrams:text`, `predictions:me/model`, a saved `ngrams.json`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the name is unknown, or its columns or model are missing.
    """
    if text.endswith(".json"):
        return load_source(text)
    name, _, listed = text.partition(":")
    words, _, model = listed.partition(":")
    if name in OF_COLUMNS and listed:
        return OF_COLUMNS[name]([column for column in listed.split(",") if column])
    if name in OF_MODELS and listed:
        return OF_MODELS[name](listed)
    if name == "zero-shot" and model:
        return ZeroShot(words, model)
    if name in OTHERS and not (listed and name == "latent"):
        return OTHERS[name](*([listed] if listed else []))
    if name in (*OF_COLUMNS, *OF_MODELS, "zero-shot"):
        raise ValueError(f"--source {text} needs more: one of {KNOWN_SOURCES}")
    raise ValueError(f"--source {text!r} is none of {KNOWN_SOURCES}")


def usual_sources(ds: Dataset, model: ModelLike, processor: Any = None) -> list[Source]:  # noqa: ANN401
    """Return the sources that need no asking: of texts, of images and the model's own first block, and clusters.

    Of images, two of them run a network: the model up to its first block, and a small one of ImageNet's, in one
    forward pass each.

    Args:
        ds: the rows.
        model: the classifier, its Hub id or folder.
        processor: what makes its inputs; None takes the model's own.
    """
    texts = [name for name in (columns.TEXT, columns.TEXT_PAIR) if name in ds.column_names]
    found: list[Source] = [TextStyle(texts), TextTopics(texts), NGrams(texts)] if texts else []
    if columns.IMAGE in ds.column_names:
        found += [Thumbnail(), ImageProperties(), *_early_features(model, processor), *_kinds()]
    return [*found, LatentConcepts()]


def _early_features(model: ModelLike, processor: Any) -> list[Source]:  # noqa: ANN401
    """Return the source of the model's first block, or none with a warning where no block is found."""
    source = EarlyFeatures(model, processor)
    try:
        source.vocabulary  # noqa: B018 - runs the model once
    except ValueError as error:
        warnings.warn(f"going on without early features: {error}", stacklevel=3)
        return []
    return [source]


def _kinds() -> list[Source]:
    """Return the source of kinds of things, or none with a warning where its network cannot be had."""
    from huggingface_hub import snapshot_download

    from hf_midrange.concepts.lite0 import is_installed

    if is_installed():
        return [Kinds()]
    try:
        snapshot_download(SMALL_NETWORK, allow_patterns=["*.json", "*.safetensors"])
    except OSError as error:
        reason = str(error).splitlines()[0]
        warnings.warn(
            f"going on without kinds of things: {SMALL_NETWORK} cannot be had ({reason}); add "
            "`Kinds(model)` with an ImageNet network of yours to the sources",
            stacklevel=3,
        )
        return []
    return [Kinds()]
