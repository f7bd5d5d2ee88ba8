"""Rows with embedding, logits, a view and concepts, tied to a confounder at 10 % against it, in memory or on disk."""

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features

from hf_midrange import columns


WORDS = [f"word {j}" for j in range(12)]


def features_of(width, classes):
    return Features(
        {
            "label": ClassLabel(names=[f"class {k}" for k in range(classes)]),
            "embedding": columns.vector(width),
            "logits": columns.vector(classes),
            "view_look": columns.vector(8),
            "concepts_words": columns.concept_list(WORDS),
        }
    )


def table(count, width, classes, seed=0):
    """Return an arrow table of such rows; the network reads the confounder twice as strongly as the class."""
    rng = np.random.default_rng(seed)
    core, other = np.random.default_rng(7).normal(size=(2, classes, width)).astype(np.float32)
    labels = rng.integers(0, classes, count)
    groups = np.where(rng.random(count) < 0.1, rng.integers(0, classes, count), labels)
    embedding = 0.4 * core[labels] + 0.8 * other[groups] + rng.standard_normal((count, width), dtype=np.float32)
    logits = embedding @ ((0.3 * core + 0.6 * other).T * 4 / width)
    look = other[groups][:, :8] + 0.5 * rng.standard_normal((count, 8), dtype=np.float32)
    present = rng.random((count, len(WORDS))) < 0.1
    present[:, 0] = (groups == 0) & (rng.random(count) < 0.9)
    values = {
        "label": pa.array(labels),
        "embedding": columns.vector_arrow(embedding.astype(np.float32)),
        "logits": columns.vector_arrow(logits.astype(np.float32)),
        "view_look": columns.vector_arrow(look.astype(np.float32)),
        "concepts_words": columns.concept_arrow(present, WORDS),
    }
    return pa.table(values).cast(features_of(width, classes).arrow_schema)


def tied_rows(count=600, width=12, classes=2, seed=0):
    """Return rows in memory."""
    return Dataset(columns.InMemoryTable(table(count, width, classes, seed)))


def rows_on_disk(path, count, width, classes, at_once=5000):
    """Write rows to an arrow file and return them memory-mapped."""
    schema = features_of(width, classes).arrow_schema
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for start in range(0, count, at_once):
            part = table(min(at_once, count - start), width, classes, seed=start)
            writer.write_table(part, max_chunksize=1000)
    return Dataset.from_file(str(path))
