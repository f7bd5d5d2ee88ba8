"""From findings to cards, one per unit and group of like concepts, the most telling ones first."""

from __future__ import annotations

from typing import Any

from hf_midrange.association.range_patterns import BY_TIE
from hf_midrange.association.schema import RANGE
from hf_midrange.publishing.escaping import shortened
from hf_midrange.reporting.examples import exceptions_of, spots_of
from hf_midrange.reporting.facts import Card, Sibling, Side
from hf_midrange.reporting.inputs import Material


MOST = 100
"""Cards in a report; the findings themselves hold the rest."""


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
    told |= {name: row[name] for name in ("q_confirm", "confirmed", "confounder", "derived", "rests_on")}
    told["pattern"] = row["reading"]
    told["concept"] = shortened(row["concept"])
    return Card(
        number=number,
        unit=shortened(row["unit_name"]),
        is_class=is_class,
        **told,
        p_beyond_top=row["p_beyond_top"],
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
        "cue": f"The model uses {name} for {unit}: the score is higher for rows with it, whether they belong to it or "
        f"not. {_tie(row)}",
        "hardness": f"{name} makes rows hard rather than misleading: it lowers members of {unit}, raises strangers.",
        "one-sided": f"{name} raises members of {unit}, and hardly any row of another class has it, as with a "
        "watermark: no row can show whether it belongs to the class.",
    }
    text = said.get(row["reading"])
    if text is None:
        way = "with" if row["odds_ratio"] > 1 else "against"
        text = f"In the {where} {name} goes {way} {unit}, but members and strangers together show no pattern of a "
        text += "cue on the rows kept for confirmation."
    if row["derived"]:
        text += " This concept was computed from the network's own features, so its p-values are no evidence."
    return text


def _tie(row: dict[str, Any]) -> str:
    """Return whether the data tie a cue to the class, in a sentence."""
    if row["rests_on"] != BY_TIE:
        return "The data do not tie it to the class."
    rows = f"{row['broken_by']} rows break" if row["broken_by"] != 1 else "1 row breaks"
    return (
        f"The data tie it to the class, and {rows} the tie. It may belong to the class: you can tell, or a test can."
    )


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
