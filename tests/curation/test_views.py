"""Which columns of a data set are side views."""

import numpy as np
from datasets import ClassLabel, Dataset

from hf_midrange import columns
from hf_midrange.curation.views import gather


def test_a_vocabulary_is_a_view_and_its_words_are_not_read_twice():
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    values = rng.normal(size=(60, 3)).astype(np.float32)
    marked = columns.with_facts(columns.vector(3), vocabulary=True)
    words = columns.concept_list(["animal", "dog", "cat"])
    ds = Dataset.from_dict({"label": labels}).cast_column("label", ClassLabel(names=["a", "b"]))
    concepts = (columns.concept_arrow(values > 0, words.feature.names), words)
    ds = columns.with_columns(
        ds, {"view_kinds": (values, marked), "concepts_kinds": concepts, "view_thumbnail": (values, columns.vector(3))}
    )
    assert {view.name for view in gather(ds, None, labels, None)} == {"view_kinds", "view_thumbnail"}
