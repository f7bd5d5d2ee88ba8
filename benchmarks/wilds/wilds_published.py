"""Published test accuracies of the field's benchmarks, each with the group labels it needs and where it was read.

What is listed was read in the source named; figures marked second-hand were read as quoted by others. CivilComments is
scored by coarse and by fine groups in the literature, and a figure stands here only where its source says by which:
the table of AFR does not, so its column (ERM 57.4, JTT 69.3, AFR 68.7) is not used.
"""

from __future__ import annotations

from typing import NamedTuple


class Figure(NamedTuple):
    """Worst-group and mean accuracy of one method, in percent; None where the source has none."""

    method: str
    groups: str
    """Which group labels the method uses."""
    worst: float
    mean: float | None
    source: str


_AFR = "table in the README of AndPotap/afr (ICML 2023)"
_DFR = "arXiv 2204.02937, second-hand"
_SELF = "arXiv 2309.08534, second-hand"
_DRO = "arXiv 1911.08731, second-hand"
_CHOOSE, _FIT, _TRAIN = "validation, to choose", "validation, to fit", "training"

FIGURES: dict[str, tuple[Figure, ...]] = {
    "waterbirds": (
        Figure("ERM", "none", 72.6, None, _AFR),
        Figure("JTT", _CHOOSE, 86.7, None, _AFR),
        Figure("CNC", _CHOOSE, 88.5, None, _AFR),
        Figure("AFR", _CHOOSE, 90.4, None, _AFR),
        Figure("SELF", _CHOOSE, 91.6, 93.6, _SELF),
        Figure("DFR", _FIT, 92.9, 94.2, _DFR),
        Figure("group DRO", _TRAIN, 91.4, 93.5, _DRO),
    ),
    "celeba": (
        Figure("ERM", "none", 47.2, None, _AFR),
        Figure("JTT", _CHOOSE, 81.1, None, _AFR),
        Figure("CNC", _CHOOSE, 88.8, None, _AFR),
        Figure("AFR", _CHOOSE, 82.0, None, _AFR),
        Figure("SELF", _CHOOSE, 83.9, 91.7, _SELF),
        Figure("DFR", _FIT, 88.3, 91.3, _DFR),
        Figure("group DRO", _TRAIN, 88.9, 92.9, _DRO),
    ),
    "multinli": (
        Figure("ERM", "none", 67.9, None, _AFR),
        Figure("JTT", _CHOOSE, 72.6, None, _AFR),
        Figure("AFR", _CHOOSE, 73.4, None, _AFR),
        Figure("DFR", _FIT, 74.7, None, _DFR),
        Figure("group DRO", _TRAIN, 77.7, None, _DRO),
    ),
    "civilcomments-coarse": (Figure("DFR", _FIT, 70.1, None, _DFR),),
    "civilcomments-fine": (),
}
