"""From rows to embeddings and logits: `extract` runs a classifier over a dataset."""

from hf_midrange.extraction.run import extract as extract


__all__ = ["extract"]
