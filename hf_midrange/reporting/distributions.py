"""Where the rows of each unit stand: histograms of members and strangers, and the bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hf_midrange.reporting.facts import Band, Distribution
from hf_midrange.reporting.reading import Material


BINS = 32
MOST = 12
"""Units drawn; those with findings come first."""


def distributions_of(material: Material) -> tuple[Distribution, ...]:
    """Return the distributions of the first units that have bands."""
    told = list(dict.fromkeys(row["unit"] for row in material.findings))
    units = list(dict.fromkeys([*told, *range(len(material.inputs.unit_names))]))
    banded = [unit for unit in units if (material.bands(unit) >= 0).any()]
    return tuple(distribution_of(material, unit) for unit in sorted(banded[:MOST]))


def distribution_of(material: Material, unit: int) -> Distribution:
    """Return one unit's histograms over equal bins of its whole range, and its bands."""
    name, bands = material.inputs.unit_names[unit], material.inputs.band_names
    return histogram(name, material.values(unit), material.bands(unit), material.member(unit), bands)


def histogram(
    unit: str, values: np.ndarray, bands: np.ndarray, member: np.ndarray | None, band_names: Sequence[str]
) -> Distribution:
    """Return the distribution of a unit's values, of shape `(n,)`, as are their bands and which rows are members."""
    own = np.zeros(len(values), dtype=bool) if member is None else member
    edges = np.histogram_bin_edges(values, BINS)
    parts = [
        Band(name, float(values[rows].min()), float(values[rows].max()), int(own[rows].sum()), int((~own[rows]).sum()))
        for band, name in enumerate(band_names)
        if (rows := bands == band).any()
    ]
    return Distribution(
        unit=unit,
        is_class=member is not None,
        edges=tuple(map(float, edges)),
        members=_counts(values[own], edges),
        strangers=_counts(values[~own], edges),
        bands=tuple(parts),
    )


def _counts(values: np.ndarray, edges: np.ndarray) -> tuple[int, ...]:
    return tuple(map(int, np.histogram(values, edges)[0]))
