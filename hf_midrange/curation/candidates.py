"""Candidates: what may be tied to a class, each as one score per class and the rows of each class that lack it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.ridge import Fit
from hf_midrange.curation.scores import auc_of, margins, mirrored, normed, own_position, pointed, units
from hf_midrange.curation.selection import (
    Reasons,
    Selection,
    contrary_share,
    lowest,
    parts_by_look,
    split_by_contrary,
)


VIEW_EDGE, EMBEDDING_EDGE = 0.3, 0.5
"""Rows below these positions in the score of their own class are contrary: by a view, and by embedding or logit."""

REFINING_RIDGE = 0.01
TOGETHER = "all views together"
EMBEDDING = "embedding"


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

    def tells(self, labels: np.ndarray, rows: np.ndarray | None = None) -> float:
        """Return the AUC with which the scores tell the class among some `rows`, averaged over classes."""
        return auc_of(self.scores, labels) if rows is None else auc_of(self.scores[rows], labels[rows])

    def weights(self, labels: np.ndarray, kept: np.ndarray | None = None, share: float | None = None) -> np.ndarray:
        """Return weights of rows of mean 1: labels equal, and contrary rows by the class that they look like.

        Args:
            labels: class ids, `(n,)`.
            kept: rows that weigh something, `(n,)` bool; None: all.
            share: of the contrary rows in a label's weight; None: `contrary_share` of how many there are.
        """
        kept = np.ones(len(labels), dtype=bool) if kept is None else kept
        contrary, classes = self.contrary & kept, int(labels.max()) + 1
        minority = float(np.mean([contrary[labels == k].sum() / (labels == k).sum() for k in range(classes)]))
        share = contrary_share(minority, contrary.sum() / classes) if share is None else share
        found = np.zeros(len(labels))
        for k in range(classes):
            typical = (labels == k) & kept & ~self.contrary
            parts = parts_by_look(np.flatnonzero((labels == k) & contrary), self.towards)
            for part in parts:
                found[part] = share / len(parts) / len(part)
            if typical.any():
                found[typical] = (1 - share if parts else 1.0) / typical.sum()
        return found / found.mean()

    def selection(self, inputs: Inputs, what: str = "", doubtful: np.ndarray | None = None) -> Selection:
        """Return label x (typical, or contrary by the class it looks like), with reasons.

        Args:
            inputs: the rows.
            what: words for what is tied to the classes; empty: the name.
            doubtful: rows whose label may be wrong, which are left out, `(n,)` bool.
        """
        labels, classes, what = inputs.labels, inputs.classes, what or spoken(self.name)

        def sentence(row: int) -> str:
            own, other = classes[labels[row]], classes[self.towards[row]]
            if doubtful is not None and doubtful[row]:
                return f"labelled {own}, but looks like {other} in every way: the label may be wrong"
            if not self.contrary[row]:
                return f"labelled {own}, with what usually goes with it by {what}"
            return f"labelled {own}, but without what usually goes with it by {what}: looks like {other}"

        found = split_by_contrary(labels, self.contrary, self.towards, classes, Reasons(len(labels), sentence))
        return found if doubtful is None else replace(found, cells=np.where(doubtful, -1, found.cells))


def spoken(name: str) -> str:
    """Return the name of a view for people.

    >>> spoken("view_early_features")
    'early features'
    """
    return name.removeprefix("view_").removeprefix("concepts_").replace("_", " ")


def of_views(inputs: Inputs) -> list[Candidate]:
    """Return a candidate for every view, and if there are several one for their normed sum, which comes first."""
    labels = inputs.labels
    found = [Candidate.of(view.name, view.scores, labels, VIEW_EDGE) for view in inputs.views]
    if len(found) < 2:
        return found
    summed = np.sum([_normed(each.scores, labels) for each in found], axis=0)
    return [Candidate.of(TOGETHER, summed, labels, VIEW_EDGE), *found]


def of_embedding(inputs: Inputs) -> Candidate:
    """Return the candidate that the embedding's own score shows."""
    return Candidate.of(EMBEDDING, inputs.scores, inputs.labels, EMBEDDING_EDGE)


def joined(view: Candidate, inputs: Inputs) -> Candidate:
    """Return a view's candidate, read together with the embedding's own score."""
    scores = inputs.scores + _normed(view.scores, inputs.labels)
    return Candidate.of(view.name, scores, inputs.labels, EMBEDDING_EDGE)


def refined(candidate: Candidate, inputs: Inputs) -> Candidate:
    """Return what the embedding says of a candidate, by left-out scores of a head for what its rows look like.

    Typical rows look like their class and contrary ones like another; labels weigh the same within both, so that the
    head learns what goes with a class and not the class. Where the candidate is the class itself, little remains of
    it, and the refined scores tell the class worse; where something else is tied to the class, they still do.
    """
    labels = inputs.labels
    looks = np.where(candidate.contrary, candidate.towards, labels)
    weights = candidate.weights(labels, share=0.5)
    fits = [Fit(looks == k, (REFINING_RIDGE,), weights) for k in units(labels)]
    return Candidate.of(candidate.name, mirrored(inputs.space.left_out(fits)), labels, EMBEDDING_EDGE)


def of_pointing(inputs: Inputs) -> Candidate:
    """Return what the network itself points to, seeded at T < .5 of the logit margin: the confounder head."""
    return refined(Candidate.of("confounder head", margins(inputs.logits), inputs.labels, EMBEDDING_EDGE), inputs)


def _normed(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.column_stack([normed(scores[:, k], labels == k) for k in range(scores.shape[1])])
