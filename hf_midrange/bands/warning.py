"""Telling when bands are fitted on rows that the model has memorised, and which units have no bands."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

from hf_midrange.bands.unit import UnitBands


MEMORISED_ACCURACY, MEMORISED_MIDDLE, ENOUGH_ROWS = 0.995, 0.01, 100

_KNOWN = "the model was trained on this split"
_SUSPECTED = "the logits separate the classes almost perfectly, as on rows that the model was trained on"


class Separation(NamedTuple):
    """How well the units of a classifier separate its classes."""

    rows: int
    right: int
    """Rows whose own class has the highest unit."""
    contrary: float
    """Members closer to the typical stranger than to the typical member, over all classes."""


def warn_if_memorised(found: Separation, training_split: bool | None) -> None:
    """Warn if these rows are, or look like, those the model was trained on.

    Rows look memorised when the model is right on 99.5 % of at least 100 rows and fewer than 1 % of the members
    stand closer to the typical stranger than to the typical member, by their own class's logit.
    """
    if training_split or (training_split is None and _memorised(found)):
        known = _KNOWN if training_split else _SUSPECTED
        warnings.warn(
            f"{known}. There members without the tied concept are memorised and score like typical members, so the "
            "middle of the range is empty or misleading: curate on held-out data",
            UserWarning,
            stacklevel=4,
        )


def report_units_without_bands(units: Sequence[UnitBands], supervised: bool) -> None:
    """Warn of the units that cannot be divided, by name.

    Raises:
        ValueError: if that is every unit.
    """
    without = [unit.name for unit in units if unit.cuts is None]
    reason = "its members' median is not above its strangers'" if supervised else "it is constant"
    if len(without) == len(units):
        raise ValueError(f"no unit can be cut into bands: for each, {reason}; is the label column the model's own?")
    if without:
        warnings.warn(f"no bands for {without}: of each, {reason}; its band is -1 on every row", stacklevel=4)


def _memorised(found: Separation) -> bool:
    enough = found.rows >= ENOUGH_ROWS
    return enough and found.right / found.rows >= MEMORISED_ACCURACY and found.contrary / found.rows < MEMORISED_MIDDLE
