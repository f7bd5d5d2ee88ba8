"""From rows to embeddings and logits: `extract` runs a classifier over a dataset."""

from hf_midrange.extraction.merging import merge_shards as merge_shards
from hf_midrange.extraction.run import extract as extract


__all__ = ["extract", "merge_shards"]
