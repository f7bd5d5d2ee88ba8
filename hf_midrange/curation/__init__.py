"""Curation: pseudo-groups, weights and a balanced subset that break a class's tie to its confounder."""

from hf_midrange.curation.curating import curate
from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.report import curation_report, joined
from hf_midrange.curation.selection import Selection, balanced, by_label_and_part, split_by_contrary
from hf_midrange.curation.strategies import STRATEGIES, Strategy


__all__ = [
    "STRATEGIES", "Inputs", "Selection", "Strategy", "balanced", "by_label_and_part", "curate", "curation_report",
    "joined", "split_by_contrary",
]  # fmt: skip
