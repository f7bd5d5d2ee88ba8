"""The picture of the middle: each class's distribution, and examples from low, middle and top."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from hf_midrange import columns


if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEMBER, STRANGER = "#0072b2", "#d55e00"  # told apart by people who see few colours; also filled against outlined
EXAMPLES = 4


def range_figure(ds: Dataset, units: int = 4) -> Figure:
    """Return one panel per class: its logit's distribution, the middle shaded, and examples from the range.

    Members of the class and strangers to it are apart, in the histogram and in the examples: the four lowest rows, the
    four nearest the centre of the middle, the four highest. A place without a row stays empty, which is itself a
    fact: strangers are rare at the top.

    Args:
        ds: has `image`, `label`, `logits` and `band`; every band between the lowest and the highest is middle.
        units: at most this many classes, from the first.

    Raises:
        KeyError: if a column is missing.
        ImportError: if matplotlib is not installed.
    """
    columns.require(ds, columns.IMAGE, columns.LABEL, columns.LOGITS, columns.BAND)
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ImportError("the demo's picture needs matplotlib: `pip install 'hf-midrange[demo]'`") from err
    names = [_literal(name) for name in columns.class_label(ds.features).names[:units]]
    ids, bands = columns.labels(ds), columns.matrix(ds, columns.BAND)
    top = bands.max()
    figure = Figure(figsize=(15, 3.1 * len(names)), layout="constrained")
    panels = figure.subfigures(len(names), 1, squeeze=False)[:, 0]
    for k, (name, panel) in enumerate(zip(names, panels, strict=True)):
        logits, band = columns.matrix(ds, columns.LOGITS)[:, k], bands[:, k]
        places = {"low": band == 0, "mid": (band > 0) & (band < top), "top": band == top}
        left, right = panel.subfigures(1, 2, width_ratios=[1, 3.2])
        _distribution(left.subplots(), logits, places["mid"], ids == k, name)
        _examples(right, ds, logits, places, ids == k, name)
    return figure


def _distribution(
    axes: Any,  # noqa: ANN401 - matplotlib Axes
    logits: np.ndarray,
    middle: np.ndarray,
    member: np.ndarray,
    name: str,
) -> None:
    """Draw one class's logit over its members and all others, the middle shaded."""
    bins = np.linspace(logits.min(), logits.max(), 41)
    axes.hist(logits[member], bins, color=MEMBER, alpha=0.65, label=f"label is {name}")
    axes.hist(logits[~member], bins, color=STRANGER, histtype="step", linewidth=1.6, label="any other label")
    if middle.any():
        axes.axvspan(logits[middle].min(), logits[middle].max(), color="0.5", alpha=0.2, label="mid band")
    axes.set(xlabel=f"logit of {name}", ylabel="rows")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _examples(
    panel: Any,  # noqa: ANN401 - a matplotlib SubFigure
    ds: Dataset,
    logits: np.ndarray,
    places: dict[str, np.ndarray],
    member: np.ndarray,
    name: str,
) -> None:
    middle = logits[places["mid"]]
    centre = (middle.min() + middle.max()) / 2 if middle.size else 0.0
    ranks = (logits, np.abs(logits - centre), -logits)  # first comes what is shown: lowest, most central, highest
    blocks = panel.subfigures(1, len(places))
    for block, (place, inside), rank in zip(blocks, places.items(), ranks, strict=True):
        grid = block.subplots(2, EXAMPLES)
        block.suptitle(place, fontsize=11, fontweight="bold")
        for row, (side, mask) in enumerate(((name, member), (f"not {name}", ~member))):
            rows = np.flatnonzero(mask & inside)
            shown = rows[np.argsort(rank[rows], kind="stable")][:EXAMPLES]
            for column in range(EXAMPLES):
                axes = grid[row, column]
                axes.set(xticks=[], yticks=[])
                if column < len(shown):
                    axes.imshow(ds[int(shown[column])][columns.IMAGE])
                else:
                    axes.set_axis_off()
            grid[row, 0].set_title(f"{side}: {len(rows)} rows", fontsize=8, loc="left")


def _literal(text: str) -> str:
    """Return text in which a dollar sign starts no formula."""
    return str(text).replace("$", r"\$")
