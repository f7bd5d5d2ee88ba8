"""The models that a command line names: loaded, repaired, and saved with their preprocessing."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from hf_midrange import columns


if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset
    from transformers import PreTrainedModel

    from hf_midrange.head import LinearHead


def named_classifier(model: str) -> PreTrainedModel:
    """Return the classifier that a folder or Hub id names."""
    from hf_midrange.classifier import load_classifier

    return cast("PreTrainedModel", load_classifier(model))  # only what is passed as an object can be of another class


def processor_beside(classifier: PreTrainedModel, model: str | Path) -> Any:  # noqa: ANN401 - of several classes
    """Return the tokenizer or image processor that is stored with a model, or warn that there is none and return None.

    Such as with a timm wrapper built from a config. Code that comes with a model is not run.
    """
    from transformers import AutoImageProcessor, AutoTokenizer

    from hf_midrange.classifier import modality

    auto = AutoTokenizer if modality(classifier) == "text" else AutoImageProcessor
    try:
        return auto.from_pretrained(model, trust_remote_code=False)
    except (OSError, ValueError) as error:
        warnings.warn(f"{model} has no preprocessing beside the model: {error}", stacklevel=2)
        return None


def predictions_of(ds: Dataset, head: LinearHead | None) -> np.ndarray:
    """Return the predicted class ids, of shape `(n,)`: `prediction`, or what `head` says of the embeddings."""
    if head is None:
        return columns.labels(ds, columns.PREDICTION)
    import numpy as np

    from hf_midrange.io.blocks import blocks, finite_vectors

    found = [head(rows).argmax(dim=1).numpy() for _, rows in blocks(finite_vectors(ds, columns.EMBEDDING))]
    return np.concatenate(found)


def save_repaired(head: LinearHead, classifier: PreTrainedModel, model: str, folder: Path) -> None:
    """Write the classifier with its new head, and the preprocessing stored with `model`, into one folder."""
    from hf_midrange.head.proof import prove_repaired

    merged = head.merge_into(classifier)
    prove_repaired(merged)
    merged.save_pretrained(folder)
    processor = processor_beside(classifier, model)
    if processor is not None:
        processor.save_pretrained(folder)
