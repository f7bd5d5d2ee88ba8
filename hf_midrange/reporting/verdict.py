"""What is wrong, how sure that is, and what to do now: in sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hf_midrange.reporting.facts import Card, Verdict
from hf_midrange.reporting.inputs import Material
from hf_midrange.verdicts import CANNOT, NONE, SHOWN, SUSPECTED, unchanged


NAMED = 3
"""Shortcuts named in the first sentence."""


def verdict_of(material: Material, cards: Sequence[Card], suspected: int, has_head: bool) -> Verdict:
    """Return the verdict on everything the report holds."""
    curation = material.curation or {}
    found = [card for card in cards if card.confounder]
    verdict = curation.get("verdict", "not curated")
    sentence = f"{_found(found, material.provenance)}{_done(curation, bool(found))}"
    return Verdict(verdict, sentence, _sure(material), _steps(verdict, found, suspected, has_head))


def _found(found: Sequence[Card], facts: dict[str, Any]) -> str:
    if not found:
        return f"No cue was confirmed in {facts.get('tested', 'the')} tests"
    ties = [f"“{card.concept}” for “{card.unit}”" for card in found]
    more = f" and {len(ties) - NAMED} more" if len(ties) > NAMED else ""
    return f"The model uses {'a cue' if len(ties) == 1 else 'cues'}: {', '.join(ties[:NAMED])}{more}"


def _done(curation: dict[str, Any], found: bool) -> str:
    verdict = curation.get("verdict")
    if verdict == SHOWN or (verdict == SUSPECTED and not unchanged(curation)):
        before, after = (f"{100 * curation[f'worst_{key}']:.0f} %" for key in ("before", "after"))
        gain = f"the worst pseudo-group from {before} to {after}, cross-validated"
        return f"{'' if found else ', but rows that break a tie stand apart'}; retraining the last layer takes {gain}."
    if verdict == CANNOT:
        without = " without it" if found else " everywhere"
        return f"; features do not carry the class{without}, or labels are wrong: no last layer can repair it."
    if verdict == SUSPECTED:
        return "; that rows break a tie is suspected, but not sure enough to repair the last layer."
    if verdict == NONE:
        return "; no sign was seen that the last layer needs repair, so it was left as it is."
    return "."


def _sure(material: Material) -> tuple[str, ...]:
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
    return tuple(sure)


DONE = {
    SUSPECTED: "Look at the rows that the curation lists; if they break a tie, curate with act_on='suspected'.",
    NONE: "Nothing needs doing. Concepts that no source describes stay unseen: add sources if in doubt.",
    CANNOT: "Look at the labels of these rows; else collect more that break the tie and fine-tune the network itself.",
}


def _steps(verdict: str, found: Sequence[Card], suspected: int, has_head: bool) -> tuple[str, ...]:
    steps = []
    if verdict == SHOWN:
        made = "Put the head into the model" if has_head else "Make a head with retrain_head and put it into the model"
        steps.append(f"{made} (head.merge_into(model)), and score it on held-out rows with known groups if you can.")
    if verdict in DONE:
        steps.append(DONE[verdict])
    elif verdict != SHOWN:
        steps.append("Curate the rows (curate), retrain the head (retrain_head), and make this report again.")
    if found:
        steps.append("Look at the cards of the confirmed cues: only you know which of them belong to the class.")
    if suspected:
        rows = "row" if suspected == 1 else f"{suspected} rows"
        steps.append(f"Look at the {rows} that may be mislabelled, which no cue explains (explore marks rows).")
    return tuple(steps)
