"""Telling when bands are fitted on rows that the model has memorised."""

from __future__ import annotations

import warnings

import numpy as np


MEMORISED_ACCURACY, MEMORISED_MIDDLE, ENOUGH_ROWS = 0.995, 0.01, 100

_KNOWN = "the model was trained on this split"
_SUSPECTED = "the logits separate the classes almost perfectly, as on rows that the model was trained on"


def warn_if_memorised(values: np.ndarray, ids: np.ndarray, training_split: bool | None) -> None:
    """Warn if these rows are, or look like, those the model was trained on.

    Rows look memorised when the model is right on 99.5 % of at least 100 rows and fewer than 1 % of the members
    stand closer to the typical stranger than to the typical member, by their own class's logit.
    """
    if training_split or (training_split is None and len(ids) >= ENOUGH_ROWS and _memorised(values, ids)):
        known = _KNOWN if training_split else _SUSPECTED
        warnings.warn(
            f"{known}. There members without the tied concept are memorised and score like typical members, so the "
            "middle of the range is empty or misleading: curate on held-out data",
            UserWarning,
            stacklevel=4,
        )


def _memorised(values: np.ndarray, ids: np.ndarray) -> bool:
    if np.mean(values.argmax(axis=1) == ids) < MEMORISED_ACCURACY:
        return False
    contrary = 0
    for k in range(values.shape[1]):
        member = ids == k
        middle = (np.median(values[member, k]) + np.median(values[~member, k])) / 2 if member.any() else 0.0
        contrary += int(np.sum(values[member, k] < middle))
    return contrary / len(ids) < MEMORISED_MIDDLE
