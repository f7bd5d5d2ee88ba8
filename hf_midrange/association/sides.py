"""Members and strangers: which strata can be tested, and which way round they are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hf_midrange.association.stratified import Tables


FEW_BAND, FEW_CONCEPT = "fewer rows in or out of the band than the minimum", "concept in too few or too many rows"


class Sides(NamedTuple):
    """Which strata of which tests are tested, boolean of shape `(C, m)` each."""

    members: np.ndarray
    strangers: np.ndarray

    def both(self) -> np.ndarray:
        """Return the strata of either side."""
        return self.members | self.strangers


def testable_sides(tables: Tables, member: int | None, least: int) -> Sides:
    """Return the informative strata of each side, a side only where it can say something.

    A side is tested if its informative strata together have at least `least` rows in and out of the band, and with
    and without the concept. In the low band there are few members and in the top band few strangers: such a side is
    left out rather than tested.

    Args:
        tables: strata are labels.
        member: the unit's class; None for a unit that stands for none, whose strata are all strangers'.
        least: the minimum.
    """
    live = tables.informative()
    everyone = [np.sum(values, axis=0, where=live) for values in tables]
    members, strangers = np.zeros_like(live), live.copy()
    if member is not None:
        own = [np.where(live[member], values[member], 0.0) for values in tables]
        members[member] = live[member] & _enough(own, least)
        strangers[member] = False
        everyone = [both - part for both, part in zip(everyone, own, strict=True)]
    return Sides(members, strangers & _enough(everyone, least))


def _enough(sums: Sequence[np.ndarray], least: int) -> np.ndarray:
    _, in_band, with_concept, total = sums
    margins = (in_band, total - in_band, with_concept, total - with_concept)
    return np.min(margins, axis=0) >= least


def orient(tables: Tables, member: int | None, bands: int | np.ndarray, top: int) -> Tables:
    """Return the tables turned so that an odds ratio above 1 says "confounded with the class" in every band.

    In the top band that is presence of the concept, on both sides; in the bottom band absence; in the middle absence
    in members and presence in strangers, which plain pooling would cancel.

    Args:
        tables: strata are labels.
        member: the unit's class; None if it has none.
        bands: the band of each test, of shape `(m,)`, or one band for all.
        top: the highest band.
    """
    at = np.broadcast_to(bands, tables.a.shape[1:])
    absence = np.broadcast_to(at == 0, tables.a.shape).copy()
    if member is not None:
        absence[member] = at < top
    return tables.flipped(absence)
