"""What the words on a command line stand for, and the steps that several commands share."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.concepts.usual import KNOWN_SOURCES as KNOWN_SOURCES
from hf_midrange.concepts.usual import source_named as concept_source  # noqa: F401 - for the commands and the trainer
from hf_midrange.concepts.usual import usual_sources as usual_sources


if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedModel

    from hf_midrange.commands.outputs import NewOutput
    from hf_midrange.head import LinearHead
    from hf_midrange.pipeline import Repair


def predictions_of(ds: Dataset, head: LinearHead | None) -> np.ndarray:
    """Return the predicted class ids, of shape `(n,)`: `prediction`, or what `head` says of the embeddings."""
    if head is None:
        return columns.labels(ds, columns.PREDICTION)
    import numpy as np

    from hf_midrange.io.blocks import blocks, finite_vectors

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
    from hf_midrange.io.datasets import write_dataset
    from hf_midrange.pipeline import curated_from

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
