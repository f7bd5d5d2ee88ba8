"""Images of example rows, small enough that all of them fit into one page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from typing import Any

from datasets import Dataset

from hf_midrange import columns


BUDGET = 3_400_000
"""Characters that all images of a report take, repetitions counted."""

STEPS = ((112, 75), (80, 65), (56, 55), (40, 45))
"""Longest side in pixels and quality: the first that keeps within the budget."""


def thumbnails(ds: Dataset, rows: Sequence[int]) -> dict[int, str]:
    """Return data URIs of the rows' images, by row, within the budget.

    Args:
        ds: with or without an `image` column; without one there are none.
        rows: in the order of the page, repeated as often as they stand on it. If even the smallest size is too much,
            the last ones get none.
    """
    if columns.IMAGE not in ds.column_names:
        return {}
    wanted = list(dict.fromkeys(rows))
    largest = _sized(ds, wanted)
    uris: dict[int, str] = {}
    for side, quality in STEPS:
        uris = {row: data_uri(image, side, quality) for row, image in largest.items()}
        if sum(len(uris[row]) for row in rows) <= BUDGET:
            return uris
    return _within(uris, rows)


def _within(uris: dict[int, str], rows: Iterable[int]) -> dict[int, str]:
    kept: dict[int, str] = {}
    used, full = 0, set()
    for row in rows:
        used += len(uris[row])
        if used > BUDGET:
            full.add(row)
        elif row not in full:
            kept[row] = uris[row]
    return {row: uri for row, uri in kept.items() if row not in full}


def _sized(ds: Dataset, rows: Sequence[int]) -> dict[int, Any]:
    """Return the images at the largest size, decoded one at a time."""
    images = ds.select_columns([columns.IMAGE])
    sized = {}
    for row in rows:
        image = images[row][columns.IMAGE].convert("RGB")
        image.thumbnail((STEPS[0][0], STEPS[0][0]))
        sized[row] = image
    return sized


def data_uri(image: Any, side: int, quality: int) -> str:  # noqa: ANN401 - a PIL image
    """Return an RGB image as a data URI, at most `side` pixels wide and high."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=quality)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
