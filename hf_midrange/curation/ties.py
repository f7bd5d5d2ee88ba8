"""Ties: what a class goes with, as one view or the embedding shows it, and the rows of each class that break it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_midrange.curation.evidence import Evidence
from hf_midrange.curation.ridge import Fit, left_out_scores
from hf_midrange.curation.scores import (
    auc,
    mean_over_classes,
    mirrored,
    normed,
    own_position,
    pointed,
    skew_of,
    units,
    weighted_auc,
)
from hf_midrange.curation.selection import MINIMUM, Reasons, Selection, lowest, split_by_contrary
from hf_midrange.curation.views import View


CONFIRMED, CONFIRMED_OF_MANY = 0.8, 0.7
"""The embedding joins a view that finds the rows low in it with an AUC above the first; with more than two classes
above the second: of one class against the rest a view mixes several confounders, which the embedding tells apart.
The second was set on seeds 100 and 101 of the benchmark task "clothes 5"."""
VIEW_EDGE, EMBEDDING_EDGE = 0.3, 0.5


@dataclass(frozen=True)
class Tie:
    """One tie of class and confounder, and how it was read."""

    name: str
    """Where it shows: a view's column, or what else gave the scores."""
    rule: str
    edge: float
    """Rows below this position in the score of their own class are contrary."""
    positions: np.ndarray
    """Position of each row in the score of its own class, `(n,)`."""
    contrary: np.ndarray
    """Rows that break the tie, `(n,)` bool; at least five of each class."""
    towards: np.ndarray
    """The class that each row looks like, if not its own, `(n,)`."""
    auc: float = float("nan")
    """How well the scores tell the class, with earlier ties balanced away."""
    skew: float = float("nan")
    """Opposite skew of the scores."""
    confirmation: float = float("nan")
    """AUC with which the scores find the rows that the embedding gets wrong, or nearly."""

    def facts(self) -> dict[str, object]:
        """Return the figures for the report."""
        rows = int(self.contrary.sum())
        return {"view": self.name, "rule": self.rule, "auc": self.auc, "skew": self.skew,
                "confirmation": self.confirmation, "contrary_rows": rows}  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """Scores per class `(n, C)` of one view and what they say; a first reading, or one after earlier ties."""

    name: str
    scores: np.ndarray
    auc: float
    skew: float
    confirmation: float = float("nan")


def first_reading(view: View, evidence: Evidence) -> Reading:
    """Return what a view says of a tie by itself."""
    return Reading(view.name, view.scores, view.auc, view.skew, confirmation_of(view.scores, evidence))


def later_reading(view: View, evidence: Evidence, contrary: np.ndarray) -> Reading:
    """Return what a view says with the ties already found balanced away: label x contrary weigh the same.

    A view of a tie already found then tells the class no better than chance, be it the same view or another one; one
    that tells it still shows another tie. The embedding does not confirm it, as it follows the earlier ties too.
    """
    labels = evidence.labels
    weights = [_balanced_weights(labels == k, contrary) for k in units(labels)]
    fits = [Fit(labels == k, (view.ridge,), w) for k, w in zip(units(labels), weights, strict=True)]
    scores = left_out_scores(view.values, fits, evidence.sources, evidence.sample)
    aucs = [weighted_auc(scores[:, j], fit.members, weights[j]) for j, fit in enumerate(fits)]
    scores = mirrored(scores)
    return Reading(view.name, scores, mean_over_classes(aucs), skew_of(scores, labels))


def _balanced_weights(members: np.ndarray, contrary: np.ndarray) -> np.ndarray:
    cells = 2 * members.astype(int) + contrary
    return len(cells) / np.bincount(cells, minlength=4)[cells]


def tie_of(reading: Reading, evidence: Evidence) -> Tie:
    """Return the tie of a reading: contrary rows by the view, mixed with the embedding where that confirms it."""
    labels, scores = evidence.labels, reading.scores
    rule, edge = "view", VIEW_EDGE
    if reading.confirmation > (CONFIRMED if len(evidence.classes) == 2 else CONFIRMED_OF_MANY):
        rule, edge = "view and embedding", EMBEDDING_EDGE
        mixed = [normed(scores[:, k], labels == k) + evidence.scores[:, k] for k in range(scores.shape[1])]
        scores = np.column_stack(mixed)
    figures = (reading.auc, reading.skew, reading.confirmation)
    return tie_by_position(reading.name, rule, edge, scores, labels, *figures)


def tie_by_position(name: str, rule: str, edge: float, scores: np.ndarray, labels: np.ndarray, *figures: float) -> Tie:
    """Return the tie whose contrary rows lie below `edge` in the score of their own class."""
    positions = own_position(scores, labels)
    return Tie(name, rule, edge, positions, lowest(positions, labels, edge), pointed(scores, labels), *figures)


def confirmation_of(scores: np.ndarray, evidence: Evidence) -> float:
    """Return the AUC with which scores find the rows low in the embedding score, averaged over labels; else NaN."""
    labels = evidence.labels
    positions = own_position(evidence.scores, labels)
    if not any_low(positions, labels, EMBEDDING_EDGE):
        return float("nan")
    low = lowest(positions, labels, EMBEDDING_EDGE)
    own = scores[np.arange(len(labels)), labels]
    return mean_over_classes([auc(-own[labels == k], low[labels == k]) for k in range(len(evidence.classes))])


def any_low(positions: np.ndarray, labels: np.ndarray, edge: float) -> bool:
    """Return whether any class has rows enough below the edge; else its lowest rows merely fill up the minimum."""
    return bool(np.bincount(labels[positions < edge], minlength=1).max() >= MINIMUM)


def deficit(contrary: np.ndarray, evidence: Evidence) -> tuple[float, float]:
    """Return by how much the network is less accurate on contrary rows than on the others, and the standard error.

    Averaged over labels; the error is that of the contrary rows, whose accuracy counts a half more on either side.
    """
    falls, variances = [], []
    for k in range(len(evidence.classes)):
        wrong, against = evidence.wrong[evidence.labels == k], contrary[evidence.labels == k]
        if against.any() and not against.all():
            falls.append(float(wrong[against].mean() - wrong[~against].mean()))
            rate = (wrong[against].sum() + 0.5) / (against.sum() + 1)
            variances.append(rate * (1 - rate) / against.sum())
    return mean_over_classes(falls), float(np.sqrt(sum(variances))) / max(1, len(variances))


def selection_of(ties: list[Tie], evidence: Evidence) -> Selection:
    """Return label x (typical, or which ties a row breaks and the class it looks like), with reasons.

    A row that breaks several ties looks like the class that the first of them says.
    """
    labels, classes = evidence.labels, evidence.classes
    broken = np.column_stack([tie.contrary for tie in ties])
    patterns = broken @ (2 ** np.arange(len(ties)))
    towards = np.choose(broken.argmax(axis=1), [tie.towards for tie in ties])
    names = _told_apart([tie.name for tie in ties]) if len(ties) > 1 else []

    def sentence(row: int) -> str:
        return f"member of *{classes[labels[row]]}* {'; '.join(_place(tie, row, classes) for tie in ties)}"

    reasons = Reasons(len(labels), sentence)
    return split_by_contrary(labels, patterns, towards, classes, reasons, names)


def _told_apart(names: list[str]) -> list[str]:
    """Return names of ties, numbered where one view shows several: pseudo-groups need names of their own.

    >>> _told_apart(["view_thumbnail", "view_text", "view_thumbnail"])
    ['view_thumbnail (1)', 'view_text', 'view_thumbnail (2)']
    """
    return [
        f"{name} ({names[: k + 1].count(name)})" if names.count(name) > 1 else name for k, name in enumerate(names)
    ]


def _place(tie: Tie, row: int, classes: list[str]) -> str:
    """Return where a row stands by a tie, for people."""
    place = f"at {tie.positions[row]:.2f} of {tie.name}"
    if not tie.contrary[row]:
        return f"{place}, typical"
    return f"{place} (edge {tie.edge}), looks like *{classes[tie.towards[row]]}*"
