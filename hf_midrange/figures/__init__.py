"""Figures for notebooks and papers: functions that return matplotlib figures and leave the global state alone."""

from hf_midrange.figures.middle import range_figure
from hf_midrange.figures.montage import montage_figure
from hf_midrange.figures.plots import distributions_figure, groups_figure, profile_figure
from hf_midrange.figures.similarity import similarity_figure


__all__ = [
    "distributions_figure",
    "groups_figure",
    "montage_figure",
    "profile_figure",
    "range_figure",
    "similarity_figure",
]
