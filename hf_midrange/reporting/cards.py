"""From findings to cards, one per unit and group of like concepts, the most telling ones first, with example rows."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from hf_midrange import columns
from hf_midrange.association.findings import RANGE
from hf_midrange.publishing.escaping import shortened
from hf_midrange.reporting.facts import Card, Example, Sibling, Side, Spot
from hf_midrange.reporting.highlight import marked, phrase_of
from hf_midrange.reporting.inputs import TEXTS, Material


MOST = 100
"""Cards in a report; the findings themselves hold the rest."""
SHOWN = 2
"""Example rows of each side in each band."""


def cards_of(material: Material) -> tuple[tuple[Card, ...], int]:
    """Return the first cards, and how many more there would be."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for row in sorted(material.findings, key=_rank):  # stable: as significant as `associate` says
        groups.setdefault((row["unit"], row["group"]), []).append(row)
    kept = list(groups.values())[:MOST]
    return tuple(_card(material, k + 1, rows) for k, rows in enumerate(kept)), len(groups) - len(kept)


def _rank(row: dict[str, Any]) -> tuple[bool, bool, bool]:
    return not row["confounder"], not row["confirmed"], row["derived"]


def _card(material: Material, number: int, rows: list[dict[str, Any]]) -> Card:
    row, unit = rows[0], rows[0]["unit"]
    has = material.having(row["source"], row["concept"])
    is_class = material.member(unit) is not None
    told = {name: row[name] for name in ("band", "source", "concept", "odds_ratio", "ci_low", "ci_high", "q_value")}
    told |= {name: row[name] for name in ("q_confirm", "confirmed", "confounder", "derived", "signature")}
    told["concept"] = shortened(row["concept"])
    return Card(
        number=number,
        unit=shortened(row["unit_name"]),
        is_class=is_class,
        **told,
        found_at_top=row["found_at_top"],
        p_at_top=row["p_at_top"],
        reading=reading(row, is_class),
        sides=_sides(row, is_class),
        spots=spots_of(material, unit, row["concept"], has),
        exceptions=exceptions_of(material, unit, row["concept"], has),
        siblings=tuple(_sibling(other) for other in rows[1:]),
    )


def reading(row: dict[str, Any], is_class: bool) -> str:
    """Return what a finding means, in a sentence or two."""
    name, unit = f"“{shortened(row['concept'])}”", f"“{shortened(row['unit_name'])}”"
    where = "whole range" if row["band"] == RANGE else f"{row['band']} band"
    if not is_class:
        return f"{name} goes with the {where} of {unit}, within each label."
    said = {
        "confounder": f"The score of {unit} is higher for rows with {name}, whether they belong to it or not. In the "
        "middle of the range, members lack it and strangers have it: a shortcut.",
        "hardness": f"{name} makes rows hard rather than misleading: it lowers members of {unit}, raises strangers.",
        "core": f"{name} raises members of {unit}; strangers with it are too few to test. It may be part of the "
        "class itself.",
    }
    text = said.get(row["signature"])
    if text is None:
        way = "with" if row["odds_ratio"] > 1 else "against"
        text = f"In the {where} {name} goes {way} {unit}, but members and strangers together show no pattern of a "
        text += "shortcut on the rows kept for confirmation."
    if row["derived"]:
        text += " This concept was computed from the network's own features, so its p-values are no evidence."
    return text


def _sides(row: dict[str, Any], is_class: bool) -> tuple[Side, ...]:
    names = {"member": "members", "stranger": "strangers" if is_class else "all rows"}
    return tuple(
        Side(
            side=names[key],
            shares=tuple(row[f"{key}_profile"]),
            lows=tuple(row[f"{key}_profile_low"]),
            highs=tuple(row[f"{key}_profile_high"]),
            shape=row[f"{key}_shape"],
            odds_ratio=row[f"{key}_odds_ratio"],
        )
        for key in names
        if row[f"{key}_profile"] is not None
    )


def _sibling(row: dict[str, Any]) -> Sibling:
    concept = f"{row['source']}: {shortened(row['concept'])}"
    return Sibling(row["band"], concept, row["odds_ratio"], row["q_value"], row["confirmed"])


def spots_of(material: Material, unit: int, concept: str, has: np.ndarray) -> tuple[Spot, ...]:
    """Return the places of a unit's range, members before strangers, bottom first, with rows of each."""
    bands, values, spots = material.bands(unit), material.values(unit), []
    for side, mask in _masks(material, unit):
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


def _masks(material: Material, unit: int) -> tuple[tuple[str, np.ndarray], ...]:
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
