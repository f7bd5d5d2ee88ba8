"""What a page says of each shortcut, of what was done, and what to do now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hf_midrange import columns
from hf_midrange.publishing.escaping import shortened
from hf_midrange.reporting.examples import evenly, examples
from hf_midrange.reporting.inputs import Material
from hf_midrange.ties.telling import UNNAMED
from hf_midrange.verdicts import CANNOT, NONE, SHOWN, SUSPECTED, unchanged


MOST, PICTURES, SENTENCES = 12, 4, 2
"""Shortcuts in a report, and examples of rows of either side with what is tied and without."""
LISTED = 100
"""Findings in the table; the findings themselves hold the rest."""
_PROFILE = ("shape", "profile", "profile_low", "profile_high")


def cards_of(material: Material) -> list[dict[str, Any]]:
    """Return what is said of each shortcut, most harmful first: its words, figures, rows, and profile."""
    if not material.shortcuts:
        return []
    right = columns.matrix(material.ds, columns.LOGITS).argmax(axis=1) == material.ids
    return [_card(material, right, number, one) for number, one in enumerate(material.shortcuts[:MOST], 1)]


def _card(material: Material, right: np.ndarray, number: int, one: dict[str, Any]) -> dict[str, Any]:
    told = {name: one[name] for name in ("strength", "errors_explained", "reading", "seen_in")}
    rows = [material.findings[k] for k in one["findings"]]
    named = [row for row in rows if (row["source"], row["concept"]) == (one["source"], one["concept"])]
    return {
        "number": number,
        "name": shortened(one["name"]),
        "class": shortened(one["class"]),
        "sentence": one["sentence"],
        "rows": len(one["rows"]),
        "findings": len(rows),
        **told,
        "cells": _cells(material, right, number, one),
        "profile": _profile((named or rows)[0]) if rows else None,
    }


def _cells(material: Material, right: np.ndarray, number: int, one: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows from typical to contrary: the class with it and without, the others with it and without."""
    member = material.ids == one["unit"]
    contrary = np.zeros(len(member), dtype=bool)
    contrary[one["rows"]] = True
    values = material.values(one["unit"])
    classes = material.classes
    others = f"“{classes[1 - one['unit']]}”" if len(classes) == 2 else "others"
    most = PICTURES if columns.IMAGE in material.shown.column_names else SENTENCES
    cells: list[dict[str, Any]] = []
    for side, name in ((member, f"“{classes[one['unit']]}”"), (~member, others)):
        for has in (True, False):
            rows = np.flatnonzero(side & ((member != contrary) == has))
            chosen = evenly(rows[np.argsort(-values[rows], kind="stable")], most)
            cells.append(
                {
                    "title": f"{name} {'with' if has else 'without'} it",
                    "breaks": bool(has != (side is member)),
                    "rows": len(rows),
                    "right": float(right[rows].mean()) if len(rows) else None,
                    "examples": examples(material, chosen, (one["concept"] or "") if has else ""),
                    "mean": f"mean {number}.{len(cells)}",
                    "mean_of": evenly(rows, 48).tolist(),
                }
            )
    return cells


def _profile(row: dict[str, Any]) -> dict[str, Any]:
    """Return how often the concept of a finding occurs along the range, on either side."""
    sides = [
        {"side": f"{side}s", **{name: row[f"{side}_{name}"] for name in _PROFILE}}
        for side in ("member", "stranger")
        if row[f"{side}_profile"] is not None
    ]
    return {"concept": shortened(row["concept"]), "unit": shortened(row["unit_name"]), "sides": sides}


def listed(material: Material) -> list[dict[str, Any]]:
    """Return the first findings as a table shows them, confirmed ones first."""
    kept = ("band", "source", "odds_ratio", "ci_low", "ci_high", "q_value", "q_confirm", "confirmed", "reading")
    rows = sorted(material.findings, key=lambda row: (not row["confounder"], not row["confirmed"], row["derived"]))
    return [
        {
            "concept": shortened(row["concept"]),
            "unit": shortened(row["unit_name"]),
            **{name: row[name] for name in kept},
        }
        for row in rows[:LISTED]
    ]


def verdict_of(
    material: Material, cards: Sequence[dict[str, Any]], groups: dict[str, Any], suspected: int, has_head: bool
) -> dict[str, Any]:
    """Return the verdict in a word and a sentence, how sure it is, and what to do now."""
    curation = material.curation or {}
    verdict = curation.get("verdict", "not curated")
    sentence = f"{_found(cards, material.provenance)}{_done(curation, groups)}"
    steps = _steps(verdict, cards, suspected, has_head)
    return {"verdict": verdict, "sentence": sentence, "sure": _sure(material), "steps": steps}


def _found(cards: Sequence[dict[str, Any]], facts: dict[str, Any]) -> str:
    if not cards:
        return f"No shortcut was found in {facts.get('tested', 'the')} tests"
    first, more = cards[0], len(cards) - 1
    name = "something that no concept names" if first["name"].startswith(UNNAMED) else f"“{first['name']}”"
    others = f", and {more} more {'shortcut' if more == 1 else 'shortcuts'}" if more else ""
    return f"The model takes {name} for “{first['class']}”{others}"


def _done(curation: dict[str, Any], groups: dict[str, Any]) -> str:
    verdict = curation.get("verdict")
    if verdict == SHOWN or (verdict == SUSPECTED and not unchanged(curation)):
        worst = {score["name"]: score["metrics"]["worst_group"] for score in groups["scores"]}
        before, after, which = worst["before"], worst.get("after, cross-validated", worst.get("after")), "group"
        if after is None or groups["by"] != columns.GROUP:  # cross-validated with the choice of the rows
            before, after, which = curation["worst_before"], curation["worst_after"], "pseudo-group"
        return f". Retraining the last layer takes the worst {which} from {100 * before:.0f} % to {100 * after:.0f} %."
    if verdict == CANNOT:
        return ". Its features do not carry the class without it, or labels are wrong: no last layer can repair it."
    if verdict == SUSPECTED:
        return ". Something is suspected, but not surely enough to repair the last layer."
    if verdict == NONE:
        return ". No sign was seen that the last layer needs repair, so it was left as it is."
    return "."


def _sure(material: Material) -> list[str]:
    facts, rows = material.provenance, material.findings
    confirmed = sum(row["confirmed"] for row in rows)
    sure = [
        f"{facts.get('tested', 'An unknown number of')} associations were tested within each label on "
        f"{facts.get('discovery_rows', 'some')} rows; {len(rows)} passed at a false-discovery rate of "
        f"{facts.get('options', {}).get('alpha', 'unknown')}, and {confirmed} of these held again on "
        f"{facts.get('confirmation_rows', 'the other')} rows that had no part in finding them."
    ]
    blind = facts.get("power", {}).get("tests_below_0.8", 0)
    if blind:
        sure.append(f"{blind} tests had less than 80 % power to see an odds ratio of 3: absence there is no proof.")
    if material.curation is not None:
        sure.append(f"The curation's own reason: {material.curation['explanation']}.")
    sure.append("A tie is an association: that the model would go wrong without it, only a test on new rows can show.")
    return sure


DONE = {
    SUSPECTED: "Look at the rows above; if they break a tie that you do not want, curate with act_on='suspected'.",
    NONE: "Nothing needs doing. Concepts that no source describes stay unseen: add sources if in doubt.",
    CANNOT: "Look at the labels of these rows; else collect more that break the tie and fine-tune the network itself.",
}


def _steps(verdict: str, cards: Sequence[dict[str, Any]], suspected: int, has_head: bool) -> list[str]:
    steps = []
    if verdict == SHOWN:
        made = "Put the head into the model" if has_head else "Make a head with retrain_head and put it into the model"
        steps.append(f"{made} (head.merge_into(model)), and score it on held-out rows with known groups if you can.")
    if verdict in DONE:
        steps.append(DONE[verdict])
    elif verdict != SHOWN:
        steps.append("Curate the rows (curate), retrain the head (retrain_head), and make this report again.")
    if cards:
        steps.append("Say of each shortcut whether it belongs to the class, as a beak does to a bird: only you can.")
    if suspected:
        rows = "row" if suspected == 1 else f"{suspected} rows"
        steps.append(f"Look at the {rows} that may be mislabelled, which no shortcut explains (explore marks rows).")
    return steps


def reasons_of(material: Material, most: int = 40) -> list[dict[str, Any]]:
    """Return why rows count as they do: size and mean weight of each pseudo-group, and the reason of its first row."""
    columns.require(material.ds, columns.PSEUDO_GROUP, columns.WEIGHT, columns.REASON)
    cells, weights = columns.labels(material.ds, columns.PSEUDO_GROUP), columns.numbers(material.ds, columns.WEIGHT)
    names, reasons = columns.class_label(material.ds.features, columns.PSEUDO_GROUP).names, material.ds[columns.REASON]
    found = []
    for cell in np.unique(cells)[:most]:
        rows = np.flatnonzero(cells == cell)
        told = {"pseudo_group": shortened(names[cell]), "rows": len(rows), "weight": float(weights[rows].mean())}
        found.append({**told, "example": shortened(str(reasons[int(rows[0])]), 2000)})
    return found
