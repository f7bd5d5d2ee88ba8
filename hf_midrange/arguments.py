"""What the words on a command line stand for, and the steps that several commands share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hf_midrange as hm
from hf_midrange import columns


if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedModel

    from hf_midrange.commands.outputs import NewOutput
    from hf_midrange.head import LinearHead
    from hf_midrange.pipeline import Repair

OF_COLUMNS = {"annotations": "Annotations", "ngrams": "NGrams", "text-style": "TextStyle"}
OF_IMAGES = {"image-properties": "ImageProperties", "thumbnail": "Thumbnail"}
OF_MODELS = {"predictions": "Predictions", "early-features": "EarlyFeatures", "captions": "Captions"}
KNOWN_SOURCES = ", ".join(
    [
        *(f"{kind}:COLUMN[,COLUMN]" for kind in OF_COLUMNS),
        *(f"{kind}[:COLUMN]" for kind in OF_IMAGES),
        "latent",
        *(f"{kind}:MODEL" for kind in OF_MODELS),
        "zero-shot:LIST:MODEL",
        "FILE.json",
    ]
)


def concept_source(text: str) -> Any:  # noqa: ANN401 - the sources share a protocol, not a class
    """Return the concept source that a `--source` names: `ngrams:text`, `predictions:me/model`, a saved `ngrams.json`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the name is unknown, or its columns or model are missing.
    """
    if text.endswith(".json"):
        return hm.load_source(text)
    name, _, listed = text.partition(":")
    if name in OF_COLUMNS or name in OF_MODELS or name == "zero-shot":
        if not listed:
            raise ValueError(f"--source {name} needs more: of {KNOWN_SOURCES}")
        return _of_columns(name, listed) if name in OF_COLUMNS else _of_model(name, listed)
    if name in OF_IMAGES:
        return getattr(hm, OF_IMAGES[name])(*([listed] if listed else []))
    if text == "latent":
        return hm.LatentConcepts()
    raise ValueError(f"--source {text!r} is none of {KNOWN_SOURCES}")


def _of_columns(name: str, listed: str) -> Any:  # noqa: ANN401
    return getattr(hm, OF_COLUMNS[name])([column for column in listed.split(",") if column])


def _of_model(name: str, listed: str) -> Any:  # noqa: ANN401
    if name in OF_MODELS:
        return getattr(hm, OF_MODELS[name])(listed)
    words, _, model = listed.partition(":")
    if not model:
        raise ValueError(
            f"--source zero-shot:{listed} names no model; write zero-shot:LIST:MODEL, LIST being one of "
            "imagenet, colours, scenes, people, text"
        )
    return hm.ZeroShot(words, model)


def usual_sources(ds: Dataset, model: Any, processor: Any = None) -> list[Any]:  # noqa: ANN401 - as `extract` takes
    """Return the sources that need no asking: of texts, of images and the model's own first block, and clusters.

    Args:
        ds: the rows.
        model: the classifier, its Hub id or folder.
        processor: what makes its inputs; None takes the model's own.
    """
    texts = [name for name in (columns.TEXT, columns.TEXT_PAIR) if name in ds.column_names]
    found = [hm.TextStyle(texts), hm.NGrams(texts)] if texts else []
    if columns.IMAGE in ds.column_names:
        found += [hm.Thumbnail(), hm.ImageProperties(), *_early_features(model, processor)]
    return [*found, hm.LatentConcepts()]


def _early_features(model: Any, processor: Any) -> list[Any]:  # noqa: ANN401
    """Return the source of the model's first block, or none with a warning where no block is found."""
    source = hm.EarlyFeatures(model, processor)
    try:
        source.vocabulary  # noqa: B018 - runs the model once
    except ValueError as error:
        warnings.warn(f"going on without early features: {error}", stacklevel=3)
        return []
    return [source]


def predictions_of(ds: Dataset, head: LinearHead | None) -> np.ndarray:
    """Return the predicted class ids, of shape `(n,)`: `prediction`, or what `head` says of the embeddings."""
    if head is None:
        return columns.labels(ds, columns.PREDICTION)
    import numpy as np

    from hf_midrange.storage.vectors import blocks, finite_vectors

    found = [head(rows).argmax(dim=1).numpy() for _, rows in blocks(finite_vectors(ds, columns.EMBEDDING))]
    return np.concatenate(found)


def named_classifier(model: str) -> PreTrainedModel:
    """Return the classifier that a folder or Hub id names."""
    from hf_midrange.classifier import load_classifier

    return cast("PreTrainedModel", load_classifier(model))  # only what is passed as an object can be of another class


def save_repaired(head: LinearHead, classifier: PreTrainedModel, model: str, folder: Path) -> None:
    """Write the classifier with its new head, and the preprocessing stored with `model`, into one folder.

    A model that stores no preprocessing (a timm wrapper built from a config) is written alone, with a warning.
    """
    from transformers import AutoImageProcessor, AutoTokenizer

    from hf_midrange.classifier import modality

    head.merge_into(classifier).save_pretrained(folder)
    processor = AutoTokenizer if modality(classifier) == "text" else AutoImageProcessor
    try:
        processor.from_pretrained(model).save_pretrained(folder)
    except (OSError, ValueError) as error:
        warnings.warn(f"{folder} has no preprocessing beside the model: {error}", stacklevel=2)


def repair(extracted: Dataset, model: str, sources: Sequence[Any], new: NewOutput, seed: int) -> Repair:
    """Do every step after `extract` and write what each gives; after a crash the finished steps are not done again."""
    from datasets.fingerprint import Hasher

    from hf_midrange.commands.outputs import KeptSteps
    from hf_midrange.pipeline import curated_from
    from hf_midrange.storage.datafiles import write_dataset

    made_from = [extracted._fingerprint, [Hasher.hash(source) for source in sources], seed, hm.__version__]
    steps = KeptSteps(new.work / Hasher.hash(made_from))
    done = curated_from(extracted, sources, seed, keep=steps.dataset, work=steps.folder / "concepts")
    classifier = named_classifier(model)
    head = hm.retrain_head(done.curated, classifier, seed=seed)

    write_dataset(done.curated, new.folder / "curated")
    write_dataset(done.findings, new.folder / "findings")
    done.bands.save_pretrained(new.folder / "bands")
    head.save_pretrained(new.folder / "head")
    save_repaired(head, classifier, model, new.folder / "model")
    return done
