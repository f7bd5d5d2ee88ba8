"""From the values of every unit to its fitted bands, with a warning where they are not to be trusted."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.bands.reading import unit_blocks, unit_names, width_of
from hf_midrange.bands.rules import CLASS_RELATIVE, cuts_of
from hf_midrange.bands.unit import UnitBands, UnitValues


MEMORISED_ACCURACY, MEMORISED_MIDDLE, ENOUGH_ROWS = 0.995, 0.01, 100

_KNOWN = "the model was trained on this split"
_SUSPECTED = "the logits separate the classes almost perfectly, as on rows that the model was trained on"


class Separation(NamedTuple):
    """How well the units of a classifier separate its classes."""

    rows: int
    right: int
    """Rows whose own class has the highest unit."""
    contrary: int
    """Members closer to the typical stranger than to the typical member, over all classes."""

    def memorised(self) -> bool:
        """Return whether the model is right on 99.5 % of at least 100 rows, and fewer than 1 % are contrary."""
        enough = self.rows >= ENOUGH_ROWS
        return enough and self.right / self.rows >= MEMORISED_ACCURACY and self.contrary / self.rows < MEMORISED_MIDDLE


def fit_units(
    ds: Dataset, column: str, rule: str, edges: Sequence[float]
) -> tuple[tuple[UnitBands, ...], Separation | None]:
    """Return each unit's bands from all its values, and, with classes, how well the units separate them."""
    supervised = rule == CLASS_RELATIVE
    width = width_of(ds, column)
    names = unit_names(ds.features, column, width, supervised)
    ids = columns.labels(ds) if supervised else None
    if ids is not None:
        _require_strangers(np.bincount(ids, minlength=width), names)
    best, winner = np.full(len(ds), -np.inf), np.zeros(len(ds), dtype=np.int64)
    units: list[UnitBands] = []
    contrary = 0
    for first, block in unit_blocks(ds, column, width):
        for k, unit in enumerate(block.T, first):
            values = UnitValues.of(np.ascontiguousarray(unit), None if ids is None else ids == k)
            typical = values.typical() if supervised else None
            units.append(UnitBands(names[k], cuts_of(rule, values, edges), typical, values.knots()))
            contrary += values.contrary() if supervised else 0
        if supervised:
            highest = block.max(axis=1)
            winner[highest > best] = first + block[highest > best].argmax(axis=1)
            best = np.maximum(best, highest)
    if ids is None:
        return tuple(units), None
    return tuple(units), Separation(len(ids), int(np.sum(winner == ids)), contrary)


def warn_if_memorised(found: Separation, training_split: bool | None) -> None:
    """Warn if these rows are those the model was trained on, or, where nobody says, look like them."""
    if training_split or (training_split is None and found.memorised()):
        known = _KNOWN if training_split else _SUSPECTED
        warnings.warn(
            f"{known}. There members without the tied concept are memorised and score like typical members, so the "
            "middle of the range is empty or misleading: curate on held-out data",
            UserWarning,
            stacklevel=3,
        )


def warn_of_units_without_bands(units: Sequence[UnitBands], supervised: bool) -> None:
    """Warn of the units that cannot be divided, by name.

    Raises:
        ValueError: if that is every unit.
    """
    without = [unit.name for unit in units if unit.cuts is None]
    reason = "its members' median is not above its strangers'" if supervised else "it is constant"
    if len(without) == len(units):
        raise ValueError(f"no unit can be cut into bands: for each, {reason}; is the label column the model's own?")
    if without:
        warnings.warn(f"no bands for {without}: of each, {reason}; its band is -1 on every row", stacklevel=3)


def _require_strangers(counts: np.ndarray, names: Sequence[str]) -> None:
    """Raise `ValueError` naming a class without rows, or one that has them all."""
    columns.require_every_class(np.repeat(np.arange(len(counts)), np.minimum(counts, 1)), names)
    if len(counts) == 1:
        raise ValueError(
            f"all {counts[0]} rows are of class {names[0]!r}; class-relative bands need rows of another class: use "
            "'quantile', 'range', 'std' or 'edges'"
        )
