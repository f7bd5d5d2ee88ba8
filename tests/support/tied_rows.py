"""Tied rows for tests of several rooms."""

import numpy as np
from datasets import (
    ClassLabel,
    Dataset,
    Features,
)

from hf_midrange import columns


WIDTH = 24


def simulate(rows=400, classes=2, contrary=0.05, seed=0, view=True, strength=3.0):
    """Embeddings with a core direction and a confounder direction per class, and a view that sees the confounder."""
    rng = np.random.default_rng(seed)
    labels, tied = np.arange(rows) % classes, np.arange(rows) % classes
    flipped = rng.random(rows) < contrary
    tied = np.where(flipped, (labels + rng.integers(1, classes, rows)) % classes, labels)
    embedding = rng.normal(size=(rows, WIDTH))
    embedding[np.arange(rows), labels] += 2.5
    embedding[np.arange(rows), classes + tied] += strength
    weight = np.zeros((classes, WIDTH))
    weight[:, :classes], weight[:, classes : 2 * classes] = np.eye(classes), np.eye(classes)
    side = rng.normal(size=(rows, 6))
    side[np.arange(rows), tied % 6] += 4
    names = [f"class {k}" for k in range(classes)]
    data = {
        "label": (labels, ClassLabel(names=names)),
        "group": (tied, ClassLabel(names=[f"tied to {name}" for name in names])),
        "embedding": (embedding.astype(np.float32), columns.vector(WIDTH)),
        "logits": ((embedding @ weight.T).astype(np.float32), columns.vector(classes)),
    }
    if view:
        data["view_side"] = (side.astype(np.float32), columns.vector(6))
        words = columns.concept_arrow(side > 2, [f"word {j}" for j in range(6)])
        data["concepts_side"] = (words, columns.concept_list([f"word {j}" for j in range(6)]))
    features = Features({name: feature for name, (_, feature) in data.items()})
    base = Dataset.from_dict({"label": labels}, features=Features({"label": features["label"]}))
    return columns.with_columns(base, data)
