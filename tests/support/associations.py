"""Associations for tests of several rooms."""

import numpy as np
from datasets import ClassLabel, Dataset, Features
from scipy import sparse

from hf_midrange import columns


def simulated(n=2000, *, tie=3.0, classes=3, noise_concepts=30, prevalence=0.1, seed=0, column="concepts_tags"):
    """Logits that a tied concept (the last one) raises for class 0, for members and strangers alike."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(n) % classes)
    tied = rng.random(n) < np.where(ids == 0, 0.8, 0.2)
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), ids] += 3
    logits[:, 0] += tie * (tied - 0.5)
    present = rng.random((n, noise_concepts + 1)) < prevalence
    present[:, -1] = tied
    names = [f"noise_{i}" for i in range(noise_concepts)] + ["tied"]
    return dataset(logits, ids, present, names, column)


def dataset(logits, ids, present, names, column="concepts_tags"):
    classes = [f"class_{k}" for k in range(logits.shape[1])]
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=classes)}))
    return columns.with_columns(
        ds,
        {
            "logits": (np.asarray(logits, np.float32), columns.vector(logits.shape[1])),
            column: (columns.concept_arrow(sparse.csr_matrix(present), names), columns.concept_list(names)),
        },
    )
