"""A montage along one unit's range."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.figures.canvas import empty_figure, literal, unit_of


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def montage_figure(ds: Dataset, unit: int | str, steps: int = 10, each: int = 2) -> Figure:
    """Return images from the bottom to the top of one class's logit, members above strangers.

    The logit's range over all rows is cut into equal steps; in each stand the rows nearest to its centre. A place
    stays empty where a step has no row of that side.

    Args:
        ds: has `image`, `label` and `logits`.
        unit: the class, by number or name.
        steps: columns.
        each: rows of images for either side.

    Raises:
        ImportError: if matplotlib is not installed.
        KeyError: if a column is missing.
        ValueError: if there is no such class.
    """
    columns.require(ds, columns.IMAGE, columns.LABEL, columns.LOGITS)
    number = unit_of(ds, unit)
    values, member = columns.some_units(ds, columns.LOGITS, [number])[:, 0], columns.labels(ds) == number
    edges = np.linspace(values.min(), values.max(), steps + 1)
    step = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, steps - 1)
    figure = empty_figure(1.1 * steps, 1.15 * 2 * each + 0.6)
    grid = figure.subplots(2 * each, steps, squeeze=False)
    images = ds.select_columns([columns.IMAGE])
    for k in range(steps):
        centre = (edges[k] + edges[k + 1]) / 2
        grid[0, k].set_title(f"{centre:.2g}", fontsize=8)
        for side, mask in enumerate((member, ~member)):
            rows = np.flatnonzero(mask & (step == k))
            shown = rows[np.argsort(np.abs(values[rows] - centre), kind="stable")][:each]
            for place in range(each):
                axes = grid[side * each + place, k]
                axes.set(xticks=[], yticks=[])
                if place < len(shown):
                    axes.imshow(images[int(shown[place])][columns.IMAGE])
                    axes.set_gid(f"row {shown[place]}")
                else:
                    axes.set_axis_off()
    name = literal(columns.class_label(ds.features).names[number])
    figure.suptitle(f"along the logit of {name}: {each} rows of members above, {each} of strangers below", fontsize=10)
    return figure
