"""Banded rows for tests of several rooms."""

import numpy as np
from datasets import ClassLabel, Dataset, Features

from hf_midrange import columns


def rows(n=300, classes=3, seed=0, gap=2.0):
    rng = np.random.default_rng(seed)
    ids = np.arange(n) % classes
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), ids] += gap
    return dataset(logits, ids, [f"c{k}" for k in range(classes)])


def dataset(logits, ids, names):
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=names)}))
    return columns.with_columns(ds, {"logits": (np.asarray(logits, np.float32), columns.vector(len(logits[0])))})
