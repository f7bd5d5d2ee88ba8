"""Bands: where in its range each unit stands on each row."""

from hf_midrange.bands.logit_bands import LogitBands
from hf_midrange.bands.units import class_relative_position
from hf_midrange.extraction.shards import read_shards


__all__ = ["LogitBands", "class_relative_position", "read_shards"]
