"""The default rule: what a class is tied to, how sure that is, and how strong a repair the typical rows can pay.

docs/how-auto-decides.md tells it in a page, with how each of its constants was calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hf_midrange.curation.candidates import Candidate, of_embedding, of_views
from hf_midrange.curation.cross_validation import folds_of, held_out_terms
from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.judging import (
    STRENGTHS,
    Change,
    change,
    right_at_strengths,
    stands_apart,
    suspected_labels,
)
from hf_midrange.curation.selection import MINIMUM, Selection
from hf_midrange.curation.views import confirmed
from hf_midrange.scoring import wilson_interval
from hf_midrange.verdicts import CANNOT, NONE, SHOWN, SUSPECTED


@dataclass(frozen=True)
class Rule:
    """The constants that decide."""

    tells: float = 0.88
    """A view speaks of a tie if its AUC for the class is at least this. Untied confounders stay below .75; more than
    12 % of contrary rows a class bring a tie's below."""
    even: float = 0.45
    """Share of the rows around position 0, of those around 0 and half-way, in the tail of a cue that has degrees."""
    rare: float = 0.25
    """A repair must pay where a quarter of the rows are contrary."""
    evidence: float = 2.5
    """Sum of two z-scores (contrary rows stand apart; the repair pays) at which a tie is shown."""
    wrong: float = 0.2
    """Above this share of suspected wrong labels among the contrary rows, these leave before anything is weighted."""
    mostly_wrong: float = 0.4
    """Above this share a repair that pays does not make up for rows that do not stand apart."""
    surely: float = 1.5
    """Where labels are suspected, the repair must pay by so many standard errors."""
    price: float = 0.05
    """Accuracy that typical rows may lose at most where contrary rows do not stand apart."""


RULE = Rule()
SETTLED_BY = 12
"""Rows that a person is shown when a tie is suspected."""

ROWS_OF_TIE, LARGEST_TIE = 170, 0.12
"""Rows of a class that hold the twenty against a tie that are seen in 8 of 10 cases, if no larger share is."""


class Finding(NamedTuple):
    """What one candidate says."""

    candidate: Candidate
    tells: float
    wrong: float
    """Estimated share of wrong labels among its contrary rows."""
    remain: np.ndarray
    """Rows that the head is fitted to, `(n,)` bool."""
    apart: float
    change: Change
    terms: np.ndarray
    """Terms of logits `(n, C)` by corrections fitted without the row's fold."""
    weights: np.ndarray
    evidence: float
    strength: int
    """Index of the strength."""

    def facts(self) -> dict[str, Any]:
        """Return the figures for the report."""
        return {
            "view": self.candidate.name,
            "auc": self.tells,
            "wrong_labels": self.wrong,
            "apart": self.apart,
            "pays": self.change.surest(),
            "evidence": self.evidence,
            "contrary_rows": int(self.candidate.contrary.sum()),
        }


def auto(inputs: Inputs) -> Selection:
    """Contrary rows of the view that shows a tie best; the head follows the view, the embedding and its pointing.

    A label head on a view is read leave-one-out; rows of low position in the score of their own class lack what is
    tied to it. Related to learning from weak models' errors (Sanh et al. 2020, Clark et al. 2020), here as a selection
    of rows. Suspected wrong labels leave first. Every view then is judged by the same evidence: that its contrary rows
    stand apart, and that a correction pays on rows that it was not fitted to. Where the sum is large enough the tie is
    shown, and the correction is applied as far as typical rows can pay.
    """
    labels, views = inputs.labels, of_views(inputs)
    leads = [views[0], *of_embedding(inputs, views[0])] if views else of_embedding(inputs, None)
    judge = _Judge(inputs, leads)
    found = [finding for view in views or leads[:1] for finding in judge.findings(view)]
    best = max(found, key=lambda each: (each.tells >= RULE.tells, each.evidence))
    verdict, why = _verdict(best, found, inputs, bool(views))
    selection = best.candidate.selection(inputs)
    left_out = ~best.remain
    cells = np.where(left_out, -1, selection.cells)
    facts = {
        **selection.facts,
        **best.facts(),
        "ties": [finding.facts() for finding in found],
        "strength": float(STRENGTHS[best.strength]),
        "prior": "classes weigh the same, whatever their shares",
    }
    if verdict == SUSPECTED:
        facts["rows_to_look_at"] = _telling_rows(best, labels)
    return replace(
        selection,
        cells=cells,
        weights=np.where(left_out, 0.0, best.weights),
        facts=facts,
        verdict=verdict,
        why=why,
        strength=float(STRENGTHS[best.strength]),
        held_out=_nested(best, inputs),
    )


class _Judge:
    """Corrections by all leads together, with and without suspected wrong labels, made once."""

    def __init__(self, inputs: Inputs, leads: list[Candidate]) -> None:
        self.inputs, self.leads = inputs, leads
        self.suspects = {id(lead): suspected_labels(lead, inputs) for lead in leads}
        self.made: dict[bool, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def correction(self, mended: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean of the leads' weights, terms of logits by fits without the row's fold, and who is right.

        Args:
            mended: whether each lead leaves out its suspected wrong labels.
        """
        if mended not in self.made:
            labels, whole = self.inputs.labels, np.ones(len(self.inputs.labels), dtype=bool)
            kept = [self.suspects[id(lead)][1] if mended else whole for lead in self.leads]
            weights = np.mean(
                [lead.weights(labels, part) for lead, part in zip(self.leads, kept, strict=True)], axis=0
            )
            cells = 2 * labels + self.leads[0].contrary
            terms = held_out_terms(self.inputs, cells, weights)
            self.made[mended] = weights, terms, right_at_strengths(self.inputs, terms)
        return self.made[mended]

    def findings(self, candidate: Candidate) -> list[Finding]:
        """Return what a candidate says by the whole correction, and where labels are suspected by the mended one."""
        inputs, labels = self.inputs, self.inputs.labels
        known = self.suspects.get(id(candidate))
        wrong, remain = known if known is not None else suspected_labels(candidate, inputs)
        noisy = wrong > RULE.wrong
        rows = remain if noisy else np.ones(len(labels), dtype=bool)
        apart, tells = stands_apart(candidate, rows, RULE.even), candidate.tells(labels, rows)
        found = []
        for mended in (False, True) if noisy else (False,):
            weights, terms, right = self.correction(mended)
            changed = change(candidate, right, labels, RULE.rare, min(wrong, 0.9) if mended else 0.0)
            pays = changed.surest()
            strength = changed.strongest(RULE.price if apart < 0 else 1.0)
            floor = 0.0 if wrong <= RULE.mostly_wrong else -np.inf
            enough = (candidate.contrary & rows).sum() >= MINIMUM * len(inputs.classes) or not mended
            sure = strength > 0 and enough and (not noisy or pays >= RULE.surely)
            evidence = max(apart, floor) + pays if sure else min(max(apart, floor) + pays, 0.0)
            used = remain | ~candidate.contrary if mended else np.ones(len(labels), dtype=bool)
            found.append(Finding(candidate, tells, wrong, used & (weights > 0), apart, changed, terms, weights,
                                 float(evidence), strength))  # fmt: skip
        return found


def _verdict(best: Finding, found: list[Finding], inputs: Inputs, has_views: bool) -> tuple[str, str]:
    """Return the verdict, and a sentence that explains it."""
    name, tied = best.candidate.name, best.tells >= RULE.tells
    said = (
        f"rows that break the tie in {name} stand apart by {best.apart:.1f} and a repair pays by "
        f"{best.change.surest():.1f} standard errors"
    )
    if has_views and tied and best.evidence >= RULE.evidence:
        return SHOWN, said
    if not_told_apart := [each for each in found if _cannot(each, inputs)]:
        worst = not_told_apart[0]
        return CANNOT, (
            f"{int(worst.candidate.contrary.sum())} rows break the tie in {worst.candidate.name}, and the features do "
            "not tell them from rows of the class that they look like: their labels are wrong, or the features do not "
            "carry the class"
        )
    named = sorted(concept for _, concept in confirmed(inputs.findings))
    # Rows low in the embedding alone are merely hard, too: they must say as much as a tie to be suspected.
    doubt = tied and best.evidence >= RULE.evidence / (2 if has_views else 1)
    if doubt or named:
        rows = len(inputs.labels) * (RULE.evidence / max(best.evidence, RULE.evidence / 4)) ** 2
        about = f"the findings name {', '.join(named[:3])} as confounders" if named else said
        return SUSPECTED, (
            f"{about}, which is too little to be sure; about {int(np.ceil(rows / 100) * 100)} rows would settle it, "
            "or a look at the rows listed in the report"
        )
    least = 20 * len(inputs.classes) / len(inputs.labels)
    if least >= LARGEST_TIE:
        return NONE, f"too few rows to see a tie: {ROWS_OF_TIE * len(inputs.classes)} are needed"
    where = "a view shows" if has_views else "a view would show (there is none: add sources)"
    share = f"{least:.1%} to {LARGEST_TIE:.0%} of each class"
    return NONE, f"a tie that {where} and that {share} break would have been shown or suspected in 8 of 10 cases"


def _cannot(finding: Finding, inputs: Inputs) -> bool:
    """Return whether contrary rows stand apart, but cannot be told from the class that they look like."""
    candidate = finding.candidate
    whole = np.ones(len(inputs.labels), dtype=bool)
    if candidate.name == "embedding" or finding.wrong < 2 * RULE.mostly_wrong:
        return False
    if candidate.tells(inputs.labels, whole) < RULE.tells - 2 * candidate.contrary.mean():
        return False
    after = finding.change.right[-1][candidate.contrary]
    chance = 1 / len(inputs.classes)
    high = wilson_interval(int(after.sum()), len(after))[1]
    return stands_apart(candidate, whole, RULE.even) >= RULE.evidence and float(high) < 2 * chance


def _telling_rows(best: Finding, labels: np.ndarray) -> list[int]:
    """Return the contrary rows that look most like another class, by turns of the classes."""
    positions = np.where(best.candidate.contrary, best.candidate.positions, np.inf)
    order = [np.flatnonzero(labels == k)[np.argsort(positions[labels == k], kind="stable")] for k in np.unique(labels)]
    turns = [int(rows[j]) for j in range(SETTLED_BY) for rows in order if j < len(rows)]
    return [row for row in turns if best.candidate.contrary[row]][:SETTLED_BY]


def _nested(best: Finding, inputs: Inputs) -> np.ndarray:
    """Return predictions after the repair `(n,)`, whose fits and whose strength took no part of the row's fold."""
    labels = inputs.labels
    folds = folds_of(inputs, 2 * labels + best.candidate.contrary)
    predictions = np.zeros(len(labels), dtype=np.int64)
    for fold in np.unique(folds):
        out = folds == fold
        part = replace(
            best.candidate, contrary=best.candidate.contrary[~out], scores=best.candidate.scores[~out],
            positions=best.candidate.positions[~out], towards=best.candidate.towards[~out],
        )  # fmt: skip
        changed = change(part, best.change.right[:, ~out], labels[~out], RULE.rare)
        strength = STRENGTHS[changed.strongest(RULE.price if best.apart < 0 else 1.0)]
        predictions[out] = (inputs.logits[out] + strength * best.terms[out]).argmax(axis=1)
    return predictions
