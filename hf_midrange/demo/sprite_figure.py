"""The picture of the sprite demonstration: where the rows of each band stand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.demo.sprite_images import POSITIONS, REGIONS, SHAPES, TIED_REGION, region_of


def draw_positions(rows: Dataset, path: Path) -> None:
    """Write a PNG: per neuron a row of histograms of horizontal position, members and strangers x low, mid, high.

    Raises:
        ImportError: if matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ImportError("the demo's pictures need an extra: `pip install 'hf-midrange[demo]'`") from err
    band, label = columns.matrix(rows, columns.BAND), columns.labels(rows)
    place = np.asarray(rows["pos_x"])
    figure = Figure(figsize=(15, 7), layout="constrained")
    axes = figure.subplots(len(SHAPES), 6, sharex=True)
    for k, shape in enumerate(SHAPES):
        tied = np.flatnonzero(region_of(np.arange(POSITIONS)) == TIED_REGION[k])
        for column, (side, b) in enumerate((side, b) for side in ("members", "strangers") for b in range(3)):
            ax = axes[k, column]
            cell = (band[:, k] == b) & ((label == k) == (side == "members"))
            ax.axvspan(tied[0] - 0.5, tied[-1] + 0.5, color="tab:orange", alpha=0.2)
            ax.hist(place[cell], bins=np.arange(POSITIONS + 1) - 0.5, color="tab:blue" if column < 3 else "tab:gray")
            ax.set_title(f"{side}, {('low', 'mid', 'high')[b]} (n = {cell.sum()})", fontsize=9)
        axes[k, 0].set_ylabel(f"{shape} neuron\n(tied: {REGIONS[TIED_REGION[k]]})")
    figure.supxlabel("horizontal position; shaded: the region tied to the neuron's class")
    figure.savefig(path, dpi=110)
