"""The default strategy: contrary rows from a side view, confirmed by the embedding."""

from __future__ import annotations

import numpy as np

from hf_midrange.curation.evidence import Evidence
from hf_midrange.curation.scores import auc, mean_over_classes, normed, own_position, pointed, skew_of
from hf_midrange.curation.selection import Selection, lowest, split_by_contrary
from hf_midrange.curation.views import View


IS_CLASS = -0.7
"""A view whose opposite skew lies below this is the class itself."""

SIGN_IN_EMBEDDING = 1.0
"""Without a view, the embedding score is trusted if its opposite skew exceeds this."""

TIED_AUC, TIED_CONFIRMATION = 0.85, 0.75
"""Below both, a view shows no sign of a confounder: its label AUC, and the confirmation of its rows by the embedding.

The second was set between the tied (.81 and more) and untied (.57 and less) runs of a dozen digit dominoes; ties that
leave 25 % contrary rows also stay below it and are seen by the first alone.
"""

CONFIRMED = 0.8
VIEW_EDGE, EMBEDDING_EDGE = 0.3, 0.5


def auto(evidence: Evidence) -> Selection:
    """Contrary rows by the best view at hand, mixed with the embedding where that confirms it, else by the embedding.

    Steps 1-5 of the default: a label head on the view, read leave-one-out; rows of low position in the score of their
    own class lack what is tied to it. Related to learning from weak models' errors (Sanh et al. 2020, Clark et al.
    2020), here as a selection of rows.
    """
    usable = [view for view in evidence.views if view.skew >= IS_CLASS]
    if usable:
        return by_view(evidence, max(usable, key=lambda view: view.skew))
    return by_embedding(evidence)


def by_view(evidence: Evidence, view: View) -> Selection:
    """Return label x contrary by the view's score (steps 4 and 5)."""
    labels = evidence.labels
    confirmation = confirmation_of(view.scores, evidence)
    scores, threshold = view.scores, VIEW_EDGE
    if confirmation > CONFIRMED:
        mixed = [normed(view.scores[:, k], labels == k) + evidence.scores[:, k] for k in range(scores.shape[1])]
        scores, threshold = np.column_stack(mixed), EMBEDDING_EDGE
    rule = "view and embedding" if confirmation > CONFIRMED else "view"
    sign = view.auc > TIED_AUC or confirmation > TIED_CONFIRMATION
    facts: dict[str, object] = {"view": view.name, "confirmation": confirmation, "rule": rule, "sign": sign}
    return selection_by_position(evidence, scores, threshold, view.name, facts)


def by_embedding(evidence: Evidence) -> Selection:
    """Return label x contrary by the embedding score, for data without a usable view."""
    skew = skew_of(evidence.scores, evidence.labels)
    facts: dict[str, object] = {"view": None, "rule": "embedding", "embedding_skew": skew}
    facts["sign"] = skew > SIGN_IN_EMBEDDING
    return selection_by_position(evidence, evidence.scores, EMBEDDING_EDGE, "embedding score", facts)


def confirmation_of(scores: np.ndarray, evidence: Evidence) -> float:
    """Return the AUC with which a view's score finds the rows low in the embedding score, averaged over labels."""
    labels = evidence.labels
    low = lowest(own_position(evidence.scores, labels), labels, EMBEDDING_EDGE)
    own = scores[np.arange(len(labels)), labels]
    return mean_over_classes([auc(-own[labels == k], low[labels == k]) for k in range(len(evidence.classes))])


def selection_by_position(
    evidence: Evidence, scores: np.ndarray, threshold: float, name: str, facts: dict[str, object]
) -> Selection:
    """Return label x (position in `scores` below `threshold`), with reasons that give the position."""
    labels, classes = evidence.labels, evidence.classes
    positions = own_position(scores, labels)
    contrary, towards = lowest(positions, labels, threshold), pointed(scores, labels)
    reasons = [
        f"member of *{classes[label]}* at {place:.2f} of {name}"
        + (f" (edge {threshold}), looks like *{classes[other]}*" if low else ", typical")
        for label, place, low, other in zip(labels, positions, contrary, towards, strict=True)
    ]
    found = split_by_contrary(labels, contrary, towards, classes, reasons)
    found.facts.update(facts)
    return found
