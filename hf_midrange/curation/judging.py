"""Evidence about a tie: wrong labels among the rows that break it, whether these stand apart, what a repair pays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hf_midrange.curation.candidates import Candidate
from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.ridge import Fit
from hf_midrange.curation.scores import mirrored, units


CORE_RIDGE = 0.01
STRENGTHS = np.linspace(0, 1, 11)
LEAST_ERROR, LEAST_CONTRARY_ERROR = 1e-4, 0.02
"""Standard errors are at least these: a change of no row is no certainty."""


def suspected_labels(candidate: Candidate, inputs: Inputs) -> tuple[float, np.ndarray]:
    """Return the estimated share of wrong labels among the contrary rows, and the rows that remain, `(n,)` bool.

    A row of class A with a wrong label is a typical row of the class B that it looks like. So a left-out score of A
    against B, with the four cells label x contrary balanced, puts half of such rows below the median of B's typical
    rows, and next to none of those that are A. Twice the share found below is the share of wrong labels; so many of
    the lowest rows are suspected, and do not remain. Features that do not carry A look the same.
    """
    labels, weights = inputs.labels, candidate.weights(inputs.labels, share=0.5)
    fits = [Fit(labels == k, (CORE_RIDGE,), weights) for k in units(labels)]
    scores = mirrored(inputs.space.left_out(fits))
    remain, below, rows = np.ones(len(labels), dtype=bool), 0, 0
    for own, other in np.unique(np.column_stack([labels, candidate.towards])[candidate.contrary], axis=0):
        mine = np.flatnonzero((labels == own) & candidate.contrary & (candidate.towards == other))
        typical = (labels == other) & ~candidate.contrary
        if len(mine) < 2 or not typical.any():
            continue
        margin = scores[:, own] - scores[:, other]
        low = int((margin[mine] < np.median(margin[typical])).sum())
        remain[mine[np.argsort(margin[mine], kind="stable")[: 2 * low]]] = False
        below, rows = below + low, rows + len(mine)
    return min(1.0, 2 * below / max(rows, 1)), remain


def stands_apart(candidate: Candidate, even: float) -> float:
    """Return the z-score with which contrary rows gather where strangers are, and not half-way there.

    Rows that lack a discrete thing lie about position 0, where rows of other classes have their median. The tail of a
    cue that comes in degrees thins out towards it: of the rows in [-.25, .5) a share `even` at most lies below .25.
    """
    positions = candidate.positions
    there = int(((positions > -0.25) & (positions < 0.25)).sum())
    total = there + int(((positions >= 0.25) & (positions < 0.5)).sum())
    return float((there - even * total) / np.sqrt(max(even * (1 - even) * total, 1e-9)))


class Change(NamedTuple):
    """How accuracies change with the strength of a correction, cross-validated; each figure `(11,)`."""

    right: np.ndarray
    """Which rows are right at each of `STRENGTHS`, `(11, n)` bool."""
    typical: np.ndarray
    """Change of accuracy of typical rows, averaged over labels."""
    contrary: np.ndarray
    """The same of contrary rows."""
    contrary_error: np.ndarray
    """Its standard error."""
    worth: np.ndarray
    """Change of accuracy where the contrary rows are as many as the rule supposes."""
    error: np.ndarray
    """Standard error of the worth."""

    def surest(self) -> float:
        """Return the largest worth in standard errors."""
        return float((self.worth / self.error).max())

    def strongest(self, price: float) -> int:
        """Return the largest strength within one standard error of the best that typical rows can pay, as an index."""
        within = (self.worth >= self.worth.max() - self.error.max()) & (self.typical >= -price)
        return int(np.flatnonzero(within).max(initial=0))


def right_at_strengths(inputs: Inputs, terms: np.ndarray) -> np.ndarray:
    """Return which rows are right if a strength of `terms` `(n, C)` is added to their logits, `(11, n)` bool."""
    return np.array([(inputs.logits + s * terms).argmax(axis=1) == inputs.labels for s in STRENGTHS])


def change(right: np.ndarray, typical: np.ndarray, contrary: np.ndarray, labels: np.ndarray, rare: float) -> Change:
    """Return what a correction changes on typical and contrary rows.

    Typical rows count `1 - rare` and contrary rows `rare`: a repair that does not pay then is none where contrary rows
    are as rare as that. Wrong labels never pay below a half: what their correction gains on them, typical rows lose.

    Args:
        right: rows that are right at each strength, by corrections fitted without them, `(11, n)` bool.
        typical: `(n,)` bool.
        contrary: `(n,)` bool.
        labels: of the rows, `(n,)`.
        rare: weight of the contrary rows.
    """
    moved = right.astype(np.float64) - right[0]
    means, variances = np.zeros((2, len(right))), np.zeros((2, len(right)))
    count = 0
    for k in range(int(labels.max()) + 1):
        parts = [(labels == k) & part for part in (typical, contrary)]
        if all(part.any() for part in parts):
            count += 1
            for side, part in enumerate(parts):
                means[side] += moved[:, part].mean(axis=1)
                variances[side] += moved[:, part].var(axis=1) / part.sum()
    (kept, gained), (spread, gained_spread) = means / max(count, 1), variances / max(count, 1) ** 2
    error = np.sqrt((1 - rare) ** 2 * spread + rare**2 * gained_spread) + LEAST_ERROR
    worth = (1 - rare) * kept + rare * gained
    return Change(right, kept, gained, np.sqrt(gained_spread) + LEAST_CONTRARY_ERROR, worth, error)
