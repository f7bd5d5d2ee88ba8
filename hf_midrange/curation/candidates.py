"""Candidates: what may be tied to a class, each as one score per class and the rows of each class that lack it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.ridge import Fit
from hf_midrange.curation.scores import auc_of, mirrored, normed, own_position, pointed, units
from hf_midrange.curation.selection import MINIMUM, Reasons, Selection, contrary_share, lowest, split_by_contrary


VIEW_EDGE, EMBEDDING_EDGE = 0.3, 0.5
"""Rows below these positions in the score of their own class are contrary: by a view, and by embedding or logit."""

POINTING_RIDGE = 0.01
TOGETHER = "all views together"


@dataclass(frozen=True)
class Candidate:
    """One thing that classes may be tied to, as scores show it: every label falls into typical and contrary rows."""

    name: str
    """Where it shows: a view's column, or what else gave the scores."""
    scores: np.ndarray
    """Per class, `(n, C)`."""
    edge: float
    """Rows below this position in the score of their own class are contrary."""
    positions: np.ndarray
    """Position of each row in the score of its own class, `(n,)`: 1 a typical member, 0 a typical stranger."""
    contrary: np.ndarray
    """Rows that lack what is tied to their class, `(n,)` bool; at least five of each class."""
    towards: np.ndarray
    """The class that each row looks like, if not its own, `(n,)`."""

    @classmethod
    def of(cls, name: str, scores: np.ndarray, labels: np.ndarray, edge: float) -> Candidate:
        """Return the candidate whose contrary rows lie below `edge` in the score of their own class."""
        positions = own_position(scores, labels)
        return cls(name, scores, edge, positions, lowest(positions, labels, edge), pointed(scores, labels))

    def tells(self, labels: np.ndarray, rows: np.ndarray) -> float:
        """Return the AUC with which the scores tell the class among some `rows`, averaged over classes."""
        return auc_of(self.scores[rows], labels[rows])

    def weights(self, labels: np.ndarray, kept: np.ndarray, share: float | None = None) -> np.ndarray:
        """Return weights of rows of mean 1: labels equal, and contrary rows by the class that they look like.

        Args:
            labels: class ids, `(n,)`.
            kept: rows that weigh something, `(n,)` bool.
            share: of the contrary rows in a label's weight; None: `contrary_share` of how many there are.
        """
        contrary, classes = self.contrary & kept, int(labels.max()) + 1
        minority = float(np.mean([contrary[labels == k].sum() / (labels == k).sum() for k in range(classes)]))
        share = contrary_share(minority, contrary.sum() / classes) if share is None else share
        found = np.zeros(len(labels))
        for k in range(classes):
            typical = (labels == k) & kept & ~self.contrary
            parts = _parts(np.flatnonzero((labels == k) & contrary), self.towards)
            for part in parts:
                found[part] = share / len(parts) / len(part)
            if typical.any():
                found[typical] = (1 - share if parts else 1.0) / typical.sum()
        return found / found.mean()

    def selection(self, inputs: Inputs) -> Selection:
        """Return label x (typical, or contrary by the class it looks like), with reasons."""
        labels, classes = inputs.labels, inputs.classes

        def sentence(row: int) -> str:
            place = f"member of *{classes[labels[row]]}* at {self.positions[row]:.2f} of {self.name}"
            if not self.contrary[row]:
                return f"{place}, typical"
            return f"{place} (edge {self.edge}), looks like *{classes[self.towards[row]]}*"

        return split_by_contrary(labels, self.contrary, self.towards, classes, Reasons(len(labels), sentence))


def _parts(rows: np.ndarray, towards: np.ndarray) -> list[np.ndarray]:
    """Return rows by the class that they look like; parts of fewer than five are one."""
    parts = [rows[towards[rows] == k] for k in np.unique(towards[rows])]
    small = [part for part in parts if len(part) < MINIMUM]
    return [part for part in parts if len(part) >= MINIMUM] + ([np.concatenate(small)] if small else [])


def of_views(inputs: Inputs) -> list[Candidate]:
    """Return a candidate for every view, and if there are several one for their normed sum, which comes first."""
    labels = inputs.labels
    found = [Candidate.of(view.name, view.scores, labels, VIEW_EDGE) for view in inputs.views]
    if len(found) < 2:
        return found
    summed = np.sum([_normed(each.scores, labels) for each in found], axis=0)
    return [Candidate.of(TOGETHER, summed, labels, VIEW_EDGE), *found]


def of_embedding(inputs: Inputs, view: Candidate | None) -> list[Candidate]:
    """Return candidates that read the embedding: its own score, joined with any view's, and the confounder head."""
    labels, scores, name = inputs.labels, inputs.scores, "embedding"
    if view is not None:
        scores, name = scores + _normed(view.scores, labels), f"{view.name} and embedding"
    joined = Candidate.of(name, scores, labels, EMBEDDING_EDGE)
    return [joined, Candidate.of("confounder head", pointing_scores(inputs), labels, EMBEDDING_EDGE)]


def pointing_scores(inputs: Inputs) -> np.ndarray:
    """Return left-out scores `(n, C)` of heads for what the network points to, seeded at T < .5 of the logit margin.

    In the table label x pointed-to class, the label carries the core concept and the pointing carries the confounder.
    One ridge head per class learns "points to this class" with labels balanced within both answers.
    """
    labels = inputs.labels
    points_to = np.where(inputs.margin_position < EMBEDDING_EDGE, pointed(inputs.logits, labels), labels)
    fits = [_pointing_fit(points_to == k, labels == k) for k in units(labels)]
    return mirrored(inputs.space.left_out(fits))


def _pointing_fit(points: np.ndarray, members: np.ndarray) -> Fit:
    cells = 2 * points.astype(int) + members
    sizes = np.bincount(cells, minlength=4)
    return Fit(points, (POINTING_RIDGE,), len(points) / (4 * np.maximum(sizes[cells], 1)))


def _normed(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.column_stack([normed(scores[:, k], labels == k) for k in range(scores.shape[1])])
