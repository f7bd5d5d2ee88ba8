"""Which rows are shown, and what is said of each."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import numpy as np

from hf_midrange import columns
from hf_midrange.reporting.facts import Example, Spot
from hf_midrange.reporting.marking import marked, phrase_of
from hf_midrange.reporting.reading import TEXTS, Material


SHOWN = 2
"""Rows of each side in each band."""


def spots_of(material: Material, unit: int, concept: str, has: np.ndarray) -> tuple[Spot, ...]:
    """Return the places of a unit's range, members before strangers, bottom first, with rows of each."""
    bands, values, spots = material.bands(unit), material.values(unit), []
    for side, mask in _sides(material, unit):
        for band in range(material.inputs.problem.number):
            rows = np.flatnonzero(mask & (bands == band))
            shown = examples(material, evenly(rows[np.argsort(values[rows], kind="stable")]), values, concept, has)
            name = material.inputs.band_names[band]
            spots.append(Spot(name, side, len(rows), int(has[rows].sum()), shown))
    return tuple(spots)


def exceptions_of(material: Material, unit: int, concept: str, has: np.ndarray) -> tuple[Example, ...]:
    """Return rows of the middle that break the tie: members without the concept, then strangers with it."""
    member, bands, values = material.member(unit), material.bands(unit), material.values(unit)
    if member is None:
        return ()
    middle = (bands > 0) & (bands < material.inputs.problem.number - 1)
    kinds = (np.flatnonzero(middle & member & ~has), np.flatnonzero(middle & ~member & has))
    chosen = np.concatenate([evenly(rows[np.argsort(values[rows], kind="stable")]) for rows in kinds])
    return examples(material, chosen, values, concept, has)


def evenly(rows: np.ndarray, shown: int = SHOWN) -> np.ndarray:
    """Return `shown` of the rows, at the middles of equal parts of them.

    >>> evenly(np.arange(8)).tolist()
    [2, 6]
    """
    if len(rows) <= shown:
        return rows
    return rows[((np.arange(shown) + 0.5) * len(rows) / shown).astype(np.int64)]


def examples(
    material: Material, rows: np.ndarray, values: np.ndarray, concept: str, has: np.ndarray
) -> tuple[Example, ...]:
    """Return what is said of each of the rows."""
    if not len(rows):
        return ()
    files, texts = _told(material, rows)
    return tuple(
        Example(
            row=int(row),
            label=material.classes[material.ids[row]],
            value=float(values[row]),
            has=bool(has[row]),
            file=files[i],
            text=_parts(texts[i], concept if has[row] else ""),
        )
        for i, row in enumerate(rows)
    )


def _sides(material: Material, unit: int) -> tuple[tuple[str, np.ndarray], ...]:
    member = material.member(unit)
    if member is None:
        return (("all rows", np.ones(len(material.ids), dtype=bool)),)
    return ("members", member), ("strangers", ~member)


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
