"""The picture of the middle: each class's distribution, and examples from low, middle and top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.figures.canvas import MEMBER, STRANGER, bare, empty_figure, literal


if TYPE_CHECKING:
    from matplotlib.figure import Figure

BANDS = ("low", "mid", "top")
EXAMPLES = 4


def range_figure(ds: Dataset, units: int = 4) -> Figure:
    """Return one panel per class: its logit's distribution, the mid band shaded, and examples from the range.

    Members of the class and strangers to it are apart, in the histogram and in the examples: the four lowest rows, the
    four nearest the centre of the mid band, the four highest. A place without a row stays empty, which is itself a
    fact: strangers are rare at the top.

    Args:
        ds: has `image`, `label`, `logits` and `band`.
        units: at most this many classes, from the first.

    Raises:
        KeyError: if a column is missing.
        ImportError: if matplotlib is not installed.
    """
    columns.require(ds, columns.IMAGE, columns.LABEL, columns.LOGITS, columns.BAND)
    names = [literal(name) for name in columns.class_label(ds.features).names[:units]]
    ids = columns.labels(ds)
    figure = empty_figure(15, 3.1 * len(names))
    panels = figure.subfigures(len(names), 1, squeeze=False)[:, 0]
    for k, (name, panel) in enumerate(zip(names, panels, strict=True)):
        logits, bands = columns.matrix(ds, columns.LOGITS)[:, k], columns.matrix(ds, columns.BAND)[:, k]
        left, right = panel.subfigures(1, 2, width_ratios=[1, 3.2])
        draw_distribution(left.subplots(), logits, bands, ids == k, name)
        _examples(right, ds, logits, bands, ids == k, name)
    return figure


def draw_distribution(
    axes: Any,  # noqa: ANN401 - matplotlib Axes
    logits: np.ndarray,
    bands: np.ndarray,
    member: np.ndarray,
    name: str,
) -> None:
    """Draw one class's logit over its members and all others, the middle shaded."""
    bins = np.linspace(logits.min(), logits.max(), 41)
    axes.hist(logits[member], bins, color=MEMBER, alpha=0.65, label=f"label is {name}")
    axes.hist(logits[~member], bins, color=STRANGER, histtype="step", linewidth=1.6, label="any other label")
    middle = logits[bands == 1]
    if middle.size:
        axes.axvspan(middle.min(), middle.max(), color="0.5", alpha=0.2, label="mid band")
    axes.set(xlabel=f"logit of {name}", ylabel="rows")
    axes.legend(fontsize=8, frameon=False)
    bare(axes)


def _examples(
    panel: Any,  # noqa: ANN401 - a matplotlib SubFigure
    ds: Dataset,
    logits: np.ndarray,
    bands: np.ndarray,
    member: np.ndarray,
    name: str,
) -> None:
    middle = logits[bands == 1]
    centre = (middle.min() + middle.max()) / 2 if middle.size else 0.0
    ranks = (logits, np.abs(logits - centre), -logits)  # first comes what is shown: lowest, most central, highest
    blocks = panel.subfigures(1, len(BANDS))
    for band, block in enumerate(blocks):
        grid = block.subplots(2, EXAMPLES)
        block.suptitle(BANDS[band], fontsize=11, fontweight="bold")
        for row, (side, mask) in enumerate(((f"{name}", member), (f"not {name}", ~member))):
            rows = np.flatnonzero(mask & (bands == band))
            shown = rows[np.argsort(ranks[band][rows], kind="stable")][:EXAMPLES]
            for place in range(EXAMPLES):
                axes = grid[row, place]
                axes.set(xticks=[], yticks=[])
                if place < len(shown):
                    axes.imshow(ds[int(shown[place])][columns.IMAGE])
                else:
                    axes.set_axis_off()
            grid[row, 0].set_title(f"{side}: {len(rows)} rows", fontsize=8, loc="left")
