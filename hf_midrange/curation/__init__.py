"""Curation: pseudo-groups, weights and a balanced subset that break a class's tie to its confounder."""

from hf_midrange.curation.curating import curate
from hf_midrange.curation.report import curation_report
from hf_midrange.curation.strategies import STRATEGIES


__all__ = ["STRATEGIES", "curate", "curation_report"]
