"""The default rule: what a class is tied to, how sure that is, and how strong a repair the typical rows can pay.

docs/how-auto-decides.md tells it in a page, with how each of its constants was calibrated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from hf_midrange.curation.candidates import (
    EMBEDDING,
    TOGETHER,
    Candidate,
    joined,
    of_embedding,
    of_views,
    refined,
    spoken,
)
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
from hf_midrange.verdicts import CANNOT, NONE, SHOWN, SUSPECTED


@dataclass(frozen=True)
class Rule:
    """The constants that decide."""

    tells: float = 0.87
    """A tie tells its class with at least this AUC, by a view and, refined, by the embedding. Where nothing is tied,
    refined scores stay below .86; ties that more than 12 % of the rows break look the same."""
    even: float = 0.45
    """Share of the rows around position 0, of those around 0 and half-way, in the tail of a cue that has degrees."""
    rare: float = 1 / 3
    """A repair must pay where a third of the rows are contrary."""
    evidence: float = 2.5
    """Sum of two z-scores (contrary rows stand apart; the repair pays) at which a tie is shown."""
    price: float = 0.02
    """Accuracy that typical rows may lose at most where contrary rows do not stand apart by half the `evidence`."""
    wrong: float = 0.35
    """Above this share of suspected wrong labels among the contrary rows, standing apart is no evidence."""
    cleaned: float = 0.92
    """The AUC that then is asked of the rows that remain without suspected labels."""
    surely: float = 4.0
    """Standard errors by which contrary rows that remain must then gain."""


RULE = Rule()
SETTLED_BY = 12
"""Rows that a person is shown when a tie is suspected."""
FEWEST_CONTRARY = 3 * MINIMUM
"""Contrary rows that a tie is shown by, without suspected labels where these leave; fewer: twice the evidence."""
MOST_CONTRARY = 1 / 6
"""Share of rows up to which contrary rows may be those of a tie and wrong labels together; beyond, a cue is skewed."""
MOST_TIES = 3
ROWS_OF_TIE, LARGEST_TIE = 170, 0.12
"""Rows of a class below which too few break a tie to be seen, and the largest share of it that may break one: with
more the refined scores tell the class by less than `RULE.tells`."""


class Tie(NamedTuple):
    """What one candidate says."""

    view: Candidate
    rows: Candidate
    """The candidate read together with the embedding's own score: whose rows are judged and named."""
    hidden: Candidate
    """What the embedding says of it: whose rows the head is fitted to."""
    tells: float
    wrong: float
    """Estimated share of wrong labels among its contrary rows."""
    apart: float
    change: Change
    evidence: float
    shown: bool
    left_out: np.ndarray
    """Rows with a suspected label, if these leave, `(n,)` bool."""
    weights: np.ndarray
    terms: np.ndarray
    """Terms of logits `(n, C)` by corrections fitted without the row's fold."""
    price: float
    """What typical rows may pay for it."""

    def strength(self) -> int:
        """Return the index of the strength."""
        return self.change.strongest(self.price)

    def facts(self) -> dict[str, Any]:
        """Return the figures for the report."""
        return {
            "view": self.view.name,
            "auc": self.tells,
            "wrong_labels": self.wrong,
            "apart": self.apart,
            "pays": self.change.surest(),
            "evidence": self.evidence,
            "contrary_rows": int(self.rows.contrary.sum()),
        }


def auto(inputs: Inputs) -> Selection:
    """Contrary rows of the views that show a tie; the head follows what the embedding says of these ties.

    A label head on a view is read leave-one-out; rows of low position in the score of their own class lack what is
    tied to it. Related to learning from weak models' errors (Sanh et al. 2020, Clark et al. 2020), here as a selection
    of rows. Of the views that tell the class the one is followed whose contrary rows stand apart most. The embedding
    then says whether something beside the class is tied to it, and a correction whether it pays on rows that it was
    not fitted to. Where a tie is shown, views whose contrary rows are others may show further ties; the head follows
    all of them.
    """
    views = of_views(inputs)
    lead, *others = _leads(views, inputs) or [of_embedding(inputs)]
    first = judged(lead, inputs)
    ties = [first, *(_further(others, first, inputs) if first.shown and lead.name != TOGETHER else [])]
    best = _together(ties, inputs)
    verdict, why = _verdict(best, inputs, bool(views))
    best, form = _as_far_as_rows_suffice(best, inputs) if verdict in (SHOWN, SUSPECTED) else (best, {})
    selection = best.rows.selection(inputs, _what(best.view, inputs), best.left_out)
    strength = float(STRENGTHS[best.strength()])
    facts = {
        **selection.facts,
        **best.facts(),
        **form,
        "ties": [tie.facts() for tie in ties],
        "strength": strength,
        "prior": "classes weigh the same, whatever their shares",
    }
    if verdict == SUSPECTED:
        facts["rows_to_look_at"] = _telling_rows(best, inputs.labels)
    return replace(
        selection,
        weights=best.weights,
        facts=facts,
        verdict=verdict,
        why=why,
        strength=strength,
        held_out=_nested(best, inputs),
    )


def _leads(views: list[Candidate], inputs: Inputs) -> list[Candidate]:
    """Return the views that tell the class, by how contrary rows stand apart; else the one that tells most."""
    tells = {view.name: view.tells(inputs.labels) for view in views}
    telling = [view for view in views if tells[view.name] >= RULE.tells]
    ordered = sorted(telling, key=lambda view: -stands_apart(view, RULE.even))
    return ordered or sorted(views, key=lambda view: -tells[view.name])[:1]


def _further(others: list[Candidate], first: Tie, inputs: Inputs) -> list[Tie]:
    """Return further ties, by views whose contrary rows are mostly others; with half of the evidence of a first."""
    found: list[Tie] = []
    for view in others:
        known = np.any([tie.rows.contrary for tie in (first, *found)], axis=0)
        if len(found) + 1 < MOST_TIES and view.name != TOGETHER and known[view.contrary].mean() < 0.5:
            tie = judged(view, inputs)
            if tie.tells >= RULE.tells and tie.wrong <= RULE.wrong and tie.evidence >= RULE.evidence / 2:
                found.append(tie)
    return found


def judged(view: Candidate, inputs: Inputs) -> Tie:
    """Return what a view says of a tie: does it tell the class, stand apart, pay; and are its labels right."""
    labels = inputs.labels
    rows = view if view.name == EMBEDDING else joined(view, inputs)
    hidden = refined(refined(view, inputs), inputs)
    wrong, remain = suspected_labels(rows, inputs)
    noisy = wrong > RULE.wrong
    tells = min(view.tells(labels), hidden.tells(labels))
    apart = max(stands_apart(each, RULE.even) for each in (view, rows, hidden))
    weights = hidden.weights(labels)
    terms, changed = _corrected(view, rows, weights, np.ones(len(labels), dtype=bool), inputs)
    counted = 0.0 if noisy else max(apart, 0.0)
    evidence = counted + changed.surest()
    price = 1.0 if apart >= RULE.evidence / 2 else RULE.price
    gains = changed.contrary[changed.strongest(price)] >= 0
    needed = RULE.evidence * (1 if rows.contrary.sum() >= FEWEST_CONTRARY else 2)
    shown = bool(tells >= RULE.tells and evidence >= needed and gains)
    whole = Tie(view, rows, hidden, tells, wrong, apart, changed, evidence, shown, np.zeros(len(labels), dtype=bool),
                weights, terms, price)  # fmt: skip
    return whole if shown or not noisy else _mended(whole, remain, inputs)


def _mended(whole: Tie, remain: np.ndarray, inputs: Inputs) -> Tie:
    """Return the tie without its suspected labels, if the rows that remain show it; else as it is."""
    labels, kept = inputs.labels, suspected_labels(whole.hidden, inputs)[1]
    left = whole.rows.contrary & remain
    tells = min(each.tells(labels, remain) for each in (whole.view, whole.hidden))
    if tells < RULE.cleaned or left.sum() < FEWEST_CONTRARY or whole.rows.contrary.mean() > MOST_CONTRARY:
        return whole
    weights = whole.hidden.weights(labels, kept)
    terms, changed = _corrected(whole.view, whole.rows, weights, remain, inputs)
    gains = float(changed.contrary[-1] / changed.contrary_error[-1])
    if gains < RULE.surely:
        return whole
    return whole._replace(tells=tells, change=changed, evidence=gains, shown=True, left_out=~kept, weights=weights,
                          terms=terms)  # fmt: skip


def _corrected(
    view: Candidate, rows: Candidate, weights: np.ndarray, remain: np.ndarray, inputs: Inputs
) -> tuple[np.ndarray, Change]:
    terms = held_out_terms(inputs, 2 * inputs.labels + view.contrary, weights, choose=False).terms
    right = right_at_strengths(inputs, terms)
    return terms, change(right, ~rows.contrary, rows.contrary & remain, inputs.labels, RULE.rare)


def _as_far_as_rows_suffice(tie: Tie, inputs: Inputs) -> tuple[Tie, dict[str, Any]]:
    """Return a tie, judged by the default's correction, with that which held-out rows choose, and its form."""
    held_out = held_out_terms(inputs, 2 * inputs.labels + tie.view.contrary, tie.weights)
    right = right_at_strengths(inputs, held_out.terms)
    remain = tie.rows.contrary & ~tie.left_out
    changed = change(right, ~tie.rows.contrary, remain, inputs.labels, RULE.rare)
    return tie._replace(terms=held_out.terms, change=changed), held_out.facts()


def _together(ties: list[Tie], inputs: Inputs) -> Tie:
    """Return several ties as one: a row is contrary that breaks any of them, and weighs the mean of its weights."""
    first = ties[0]
    if len(ties) == 1:
        return first
    weights, broken = np.mean([tie.weights for tie in ties], axis=0), [tie.rows.contrary for tie in ties]
    rows = replace(
        first.rows,
        contrary=np.any(broken, axis=0),
        towards=np.choose(np.argmax(broken, axis=0), [tie.rows.towards for tie in ties]),
        positions=np.min([tie.rows.positions for tie in ties], axis=0),
    )
    terms, changed = _corrected(first.view, rows, weights, np.ones(len(weights), dtype=bool), inputs)
    price = max(tie.price for tie in ties)
    return first._replace(rows=rows, weights=weights, terms=terms, change=changed, price=price)


def _verdict(best: Tie, inputs: Inputs, has_views: bool) -> tuple[str, str]:
    """Return the verdict, and a sentence that explains it."""
    what, count = _what(best.view, inputs), int(best.rows.contrary.sum())
    said = f"{count} of {len(inputs.labels)} rows lack what usually goes with their class by {what}"
    if best.shown and has_views:
        return SHOWN, said
    if best.wrong >= 2 * RULE.wrong and best.apart >= RULE.evidence:
        return CANNOT, (
            f"{said}, and the features do not tell them from rows of the class that they look like: their labels are "
            "wrong, or the features do not carry the class"
        )
    named = sorted(concept for _, concept in confirmed(inputs.findings))
    doubt = best.tells >= RULE.tells and (best.shown or (has_views and best.wrong <= RULE.wrong))
    if (doubt or named) and best.strength() > 0:
        rows = len(inputs.labels) * (RULE.evidence / np.clip(best.evidence, RULE.evidence / 4, RULE.evidence)) ** 2
        about = f"the findings name {', '.join(named[:3])} as confounders" if named else said
        return SUSPECTED, (
            f"{about}, which is too little to be sure; about {int(np.ceil(rows / 100) * 100)} rows would settle it, "
            "or a look at the rows listed in the report"
        )
    least = 20 * len(inputs.classes) / len(inputs.labels)
    if least >= LARGEST_TIE:
        return NONE, f"too few rows to see a tie: {ROWS_OF_TIE * len(inputs.classes)} are needed"
    where = "a view shows" if has_views else "a view (there is none: add sources) shows"
    share = f"{least:.1%} to {LARGEST_TIE:.0%} of each class"
    return NONE, f"no all-clear: a tie is seen only where {where} it and {share} break it, and not always there"


def _what(view: Candidate, inputs: Inputs) -> str:
    """Return words for what a view shows: its name, and the named entries that carry it."""
    words = next((each.named_carriers(inputs.labels) for each in inputs.views if each.name == view.name), [])
    return spoken(view.name) + (f" ({', '.join(words[:2])})" if words else "")


def _telling_rows(best: Tie, labels: np.ndarray) -> list[int]:
    """Return the contrary rows that look most like another class, by turns of the classes."""
    contrary, positions = best.rows.contrary, best.rows.positions
    turns = np.full(len(labels), np.inf)
    for k in np.unique(labels):
        mine = np.flatnonzero((labels == k) & contrary)
        turns[mine[np.argsort(positions[mine], kind="stable")]] = np.arange(len(mine))
    order = np.lexsort((labels, turns))
    return [int(row) for row in order[:SETTLED_BY] if contrary[row]]


def _nested(best: Tie, inputs: Inputs) -> np.ndarray:
    """Return predictions after the repair `(n,)`, whose fits and whose strength took no part of the row's fold."""
    labels, contrary = inputs.labels, best.rows.contrary
    folds = folds_of(inputs, 2 * labels + best.view.contrary)
    predictions = np.zeros(len(labels), dtype=np.int64)
    for fold in np.unique(folds):
        out = folds == fold
        counted = contrary & ~best.left_out & ~out
        changed = change(best.change.right, ~contrary & ~out, counted, labels, RULE.rare)
        strength = STRENGTHS[changed.strongest(best.price)]
        predictions[out] = (inputs.logits[out] + strength * best.terms[out]).argmax(axis=1)
    return predictions
