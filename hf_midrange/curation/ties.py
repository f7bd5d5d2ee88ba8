"""Ties: what a class goes with, as one score per class shows it, and the rows of each class that break it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.scores import own_position, pointed
from hf_midrange.curation.selection import Reasons, Selection, lowest, split_by_contrary


VIEW_EDGE, EMBEDDING_EDGE = 0.3, 0.5
"""Rows below these positions in the score of their own class are contrary: by a view, and by embedding or logit."""


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


def tie_by_position(name: str, rule: str, edge: float, scores: np.ndarray, labels: np.ndarray, *figures: float) -> Tie:
    """Return the tie whose contrary rows lie below `edge` in the score of their own class."""
    positions = own_position(scores, labels)
    return Tie(name, rule, edge, positions, lowest(positions, labels, edge), pointed(scores, labels), *figures)


def selection_of(ties: list[Tie], inputs: Inputs) -> Selection:
    """Return label x (typical, or which ties a row breaks and the class it looks like), with reasons.

    A row that breaks several ties looks like the class that the first of them says.
    """
    labels, classes = inputs.labels, inputs.classes
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
