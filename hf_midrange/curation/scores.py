"""Scores of rows per unit: where a row lies between typical strangers and typical members, and how scores lean."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp
from scipy.stats import rankdata

from hf_midrange.bands.units import class_relative_position
from hf_midrange.curation.ridge import Fit, Space, left_out_scores
from hf_midrange.io.blocks import Matrix


LATE, EARLY = 0.001, 0.3
"""Ridge of the late and of the early fit on the embedding: weak confounders show late, strong ones early."""

ROWS = 65_536
"""Rows of which all classes are looked at together."""

MIXTURES = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5)


def normed(scores: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Return scores minus the midpoint of the two label means, over the deviation within labels."""
    inside, outside = scores[members], scores[~members]
    within = np.sqrt((inside.var() + outside.var()) / 2)
    return (scores - (inside.mean() + outside.mean()) / 2) / max(float(within), 1e-12)


def robust_skewness(scores: np.ndarray) -> float:
    """Return the moment skewness of scores clipped at five robust deviations from the median."""
    centre = np.median(scores)
    spread = 1.4826 * np.median(np.abs(scores - centre))
    if spread <= 0:
        return 0.0
    clipped = np.clip((scores - centre) / spread, -5.0, 5.0)
    centred = clipped - clipped.mean()
    return float(np.mean(centred**3) / max(np.mean(centred**2) ** 1.5, 1e-12))


def opposite_skew(scores: np.ndarray, members: np.ndarray) -> float:
    """Return the skewness within strangers minus that within members.

    Rows against a tie form a tail towards the other class on both sides, which makes it positive.
    """
    return robust_skewness(scores[~members]) - robust_skewness(scores[members])


def auc(scores: np.ndarray, positives: np.ndarray) -> float:
    """Return the area under the ROC curve of `scores` for `positives` (`(n,)` bool); NaN if one side is empty."""
    if positives.all() or not positives.any():
        return float("nan")
    ups, ranks = int(positives.sum()), rankdata(scores)
    return float((ranks[positives].sum() - ups * (ups + 1) / 2) / (ups * (len(scores) - ups)))


def margins(logits: np.ndarray) -> np.ndarray:
    """Return each logit minus the log-sum-exp of the others, `(n, C)`; with two classes, the logit difference."""
    found = np.empty(logits.shape)
    for first in range(0, len(logits), ROWS):
        part = logits[first : first + ROWS].astype(np.float64)
        for k in range(part.shape[1]):
            found[first : first + ROWS, k] = part[:, k] - logsumexp(np.delete(part, k, axis=1), axis=1)
    return found


def view_scores(
    values: Matrix,
    labels: np.ndarray,
    ridge: float,
    sources: np.ndarray | None,
    sample: np.ndarray | None = None,
) -> np.ndarray:
    """Return one left-out score per class, `(n, C)`, of a view of shape `(n, m)` (step 1 of the default)."""
    fits = [Fit(labels == k, (ridge,)) for k in units(labels)]
    return mirrored(left_out_scores(values, fits, sources, sample))


def embedding_scores(space: Space, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return one score per class, `(n, C)`, from the embedding and the logits (step 2 of the default).

    `e = norm(late - beta early)`, both left-out ridge scores averaged with the logit; `beta` is the mixture with the
    largest opposite skew.
    """
    own, even = margins(logits), 1 / np.bincount(labels)[labels]
    fits = [Fit(labels == k, (LATE, EARLY), even) for k in units(labels)]
    left_out = space.left_out(fits).reshape(len(labels), -1, 2)
    scores = []
    for k, pair in zip(units(labels), left_out.transpose(1, 2, 0), strict=True):
        members = labels == k
        logit = normed(own[:, k], members)
        late, early = (normed(normed(score, members) + logit, members) for score in pair)
        mixed = [normed(late - beta * early, members) for beta in MIXTURES]
        scores.append(max(mixed, key=lambda score: opposite_skew(score, members)))
    return mirrored(np.column_stack(scores))


def units(labels: np.ndarray) -> list[int]:
    """Return the classes that need a score of their own: of two, the first mirrors the second."""
    count = int(labels.max()) + 1
    return [1] if count == 2 else list(range(count))


def mirrored(scores: np.ndarray) -> np.ndarray:
    """Return scores `(n, C)` of all classes, from those of `units`."""
    return np.column_stack([-scores, scores]) if scores.shape[1] == 1 else scores


def own_position(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return each row's position in the score of its own class, `(n,)`: 1 typical, 0 like a stranger."""
    placed = np.empty(len(labels))
    for k in range(scores.shape[1]):
        mine = labels == k
        placed[mine] = class_relative_position(scores[:, k], mine)[mine]
    return placed


def pointed(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the other class whose normed score is highest in each row, `(n,)`."""
    rated = np.column_stack([normed(scores[:, k], labels == k) for k in range(scores.shape[1])])
    rated[np.arange(len(labels)), labels] = -np.inf
    return rated.argmax(axis=1)


def mean_over_classes(values: list[float]) -> float:
    """Return the mean of the finite figures of the classes, NaN if there is none."""
    finite = [value for value in values if np.isfinite(value)]
    return float(np.mean(finite)) if finite else float("nan")


def skew_of(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the opposite skew, averaged over the units of `scores` `(n, C)`."""
    return mean_over_classes([opposite_skew(scores[:, k], labels == k) for k in range(scores.shape[1])])


def auc_of(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the AUC with which each unit's score tells members from strangers, averaged over units."""
    return mean_over_classes([auc(scores[:, k], labels == k) for k in range(scores.shape[1])])
