"""Heads: a linear classifier on raw embeddings, and its retraining on curated data."""

from hf_midrange.head.linear_head import LinearHead
from hf_midrange.head.retrain import retrain_head


__all__ = ["LinearHead", "retrain_head"]
