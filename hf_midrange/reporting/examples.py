"""Rows as a page shows them: which ones, their texts with the concept marked, and their images made small."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image as PILImage

from hf_midrange import columns
from hf_midrange.reporting.inputs import TEXTS, Material


LONGEST = 220
"""Characters of a text that are shown."""
BEFORE = 80
"""Characters shown before a concept that stands further down."""

BUDGET = 3_400_000
"""Characters that all images of a report take, repetitions counted."""
STEPS = ((112, 75), (80, 65), (56, 55), (40, 45))
"""Longest side in pixels and quality: the first that keeps within the budget."""

MEAN = 64
"""Pixels along the sides of a mean picture."""

_WORD = re.compile(r"(?u)\b\w+(?:['’]\w+)*\b")
"""A word as the n-grams read it."""


def evenly(rows: np.ndarray, shown: int) -> np.ndarray:
    """Return `shown` of the rows, at the middles of equal parts of them.

    >>> evenly(np.arange(8), 2).tolist()
    [2, 6]
    """
    if len(rows) <= shown:
        return rows
    return rows[((np.arange(shown) + 0.5) * len(rows) / shown).astype(np.int64)]


def examples(material: Material, rows: np.ndarray, concept: str = "") -> list[dict[str, Any]]:
    """Return of each of the rows its number, label, file, and text in parts with whether each is the concept."""
    if not len(rows):
        return []
    files, texts = _told(material, rows)
    return [
        {
            "row": int(row),
            "label": material.classes[material.ids[row]],
            "file": files[i],
            "text": _parts(texts[i], concept),
        }
        for i, row in enumerate(rows)
    ]


def _told(material: Material, rows: np.ndarray) -> tuple[list[str | None], list[tuple[str, ...]]]:
    """Return the names of the rows' image files, without their folders, and their texts."""
    files: list[str | None] = [None] * len(rows)
    texts: list[tuple[str, ...]] = [()] * len(rows)
    if not material.shown.column_names:
        return files, texts
    told = material.shown[rows.tolist()]
    if columns.IMAGE in told:
        paths = [(stored or {}).get("path") for stored in told[columns.IMAGE]]
        files = [PureWindowsPath(PurePosixPath(path).name).name if path else None for path in paths]
    written = [told[name] for name in TEXTS if name in told]
    if written:
        texts = [tuple(str(text or "") for text in row) for row in zip(*written, strict=True)]
    return files, texts


def _parts(texts: tuple[str, ...], concept: str) -> tuple[tuple[str, bool], ...]:
    parts: list[tuple[str, bool]] = []
    for text in texts:
        parts += [(" / ", False)] if parts else []
        parts += marked(text, phrase_of(concept))
    return tuple(parts)


def marked(text: str, phrase: str) -> tuple[tuple[str, bool], ...]:
    """Return a text in parts, each with whether it is the phrase; long texts are cut around the first one.

    >>> marked("It is NOT good.", "not good")
    (('It is ', False), ('NOT good', True), ('.', False))
    """
    text = " ".join(text.split())
    found = _spans(text, phrase)
    start = 0 if not found or found[0][1] <= LONGEST else max(0, found[0][0] - BEFORE)
    end = min(len(text), start + LONGEST)
    parts, at = [("… ", False)] if start else [], start
    for low, high in found:
        if low >= at and high <= end:
            parts += [(text[at:low], False), (text[low:high], True)]
            at = high
    parts += [(text[at:end], False), ("" if end == len(text) else " …", False)]
    return tuple((part, is_it) for part, is_it in parts if part)


def phrase_of(concept: str) -> str:
    """Return the phrase that a concept of several text columns names, without the column."""
    return concept.removesuffix(f" ({columns.TEXT})").removesuffix(f" ({columns.TEXT_PAIR})")


def _spans(text: str, phrase: str) -> list[tuple[int, int]]:
    wanted = [word.group().lower() for word in _WORD.finditer(phrase)]
    words = list(_WORD.finditer(text))
    lowered = [word.group().lower() for word in words]
    if not wanted:
        return []
    starts = [i for i in range(len(words) - len(wanted) + 1) if lowered[i : i + len(wanted)] == wanted]
    return [(words[i].start(), words[i + len(wanted) - 1].end()) for i in starts]


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


def means(ds: Dataset, cells: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return data URIs of the mean pictures of some cells' rows, by the name of each mean; none without images."""
    if columns.IMAGE not in ds.column_names:
        return {}
    images, made = ds.select_columns([columns.IMAGE]), {}
    for cell in cells:
        total = np.zeros((MEAN, MEAN, 3))
        for row in cell["mean_of"]:
            total += np.asarray(images[row][columns.IMAGE].convert("RGB").resize((MEAN, MEAN)), dtype=np.float64)
        if cell["mean_of"]:
            mean = PILImage.fromarray((total / len(cell["mean_of"])).round().astype(np.uint8))
            made[cell["mean"]] = data_uri(mean, MEAN, 80)
    return made


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
