"""Contrary rows among many classes: scores explained as what the class adds, plus what the confounder adds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hf_midrange.curation.evidence import Evidence
from hf_midrange.curation.selection import lowest
from hf_midrange.curation.ties import Tie


ROUNDS = 5
ROWS_PER_SCORE = 10
"""Fewest rows per score: with less, a covariance says little."""

SOFTENED = 1e-3
"""Added to the variances of standardised scores within a cell: those of all classes nearly sum to a constant."""


def refined(tie: Tie, evidence: Evidence) -> Tie:
    """Return the tie with as many contrary rows as it has, chosen anew by all scores together; same for two classes.

    Of one class against the rest, a score mixes what tells the class with several confounders, and a row that is hard
    to tell from one other class looks like one that breaks the tie. With more than two classes these come apart: the
    scores of all views and of the embedding, side by side, of a row of class y with confounder c are modelled
    as normal with mean `a_y + b_c` and one covariance. The tie's rows say which c to begin with. Then the means are
    fitted by least squares, and the rows with the lowest log odds of their own confounder against the best other are
    the contrary ones, `ROUNDS` times: classification EM (Celeux and Govaert 1992) whose number of contrary rows stays.
    Positions are log odds over their median: 1 is typical, at 0 another confounder is as likely. Nothing changes
    where there are fewer than `ROWS_PER_SCORE` rows per score.
    """
    classes, labels = len(evidence.classes), evidence.labels
    width = classes * (len(evidence.views) + 1)
    if classes == 2 or len(labels) < ROWS_PER_SCORE * width:
        return tie
    scores = _standard(np.hstack([*(view.scores for view in evidence.views), evidence.scores]))
    count, contrary, towards = int(tie.contrary.sum()), tie.contrary, tie.towards
    for _ in range(ROUNDS):
        odds, towards = other_odds(scores, labels, np.where(contrary, towards, labels), classes)
        edge = float(np.partition(odds, count)[count])
        contrary = lowest(odds, labels, edge)
    typical = float(np.median(odds))
    if typical <= 0:
        return tie
    return replace(
        tie,
        rule=f"{tie.rule}, all scores together",
        edge=round(edge / typical, 2),
        positions=odds / typical,
        contrary=contrary,
        towards=towards,
    )


def other_odds(
    scores: np.ndarray, labels: np.ndarray, confounders: np.ndarray, classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return log odds of each row's own confounder against the likeliest other, `(n,)`, and which that is, `(n,)`.

    Args:
        scores: `(n, d)`, of mean 0.
        labels: class of each row, `(n,)`; its own confounder has the same number.
        confounders: which confounder each row goes with, for the fit of the means, `(n,)`.
        classes: number of classes and of confounders.
    """
    cells = np.bincount(labels * classes + confounders, minlength=classes**2).reshape(classes, classes)
    design = np.block([[np.diag(cells.sum(axis=1)), cells], [cells.T, np.diag(cells.sum(axis=0))]])
    totals = np.vstack([_sums(scores, labels, classes), _sums(scores, confounders, classes)])
    # Class and confounder means are known up to a shift of one against the other, which the odds do not see.
    means = np.linalg.lstsq(design, totals, rcond=1e-10)[0]
    of_class, of_confounder = means[:classes], means[classes:]
    covariance = (scores.T @ scores - means.T @ totals) / len(scores)
    covariance += SOFTENED * np.eye(len(covariance))
    directions = np.linalg.solve(covariance, of_confounder.T)
    # The quadratic terms of a_y + b_c, without those that all confounders of a row have in common.
    offsets = of_class @ directions + np.einsum("ij,ji->i", of_confounder, directions) / 2
    odds = scores @ directions - offsets[labels]
    every = np.arange(len(labels))
    own = odds[every, labels]
    odds[every, labels] = -np.inf
    towards = odds.argmax(axis=1)
    return own - odds[every, towards], towards


def _sums(scores: np.ndarray, groups: np.ndarray, count: int) -> np.ndarray:
    """Return the sum of the scores of each group, `(count, d)`."""
    return np.stack([scores[groups == k].sum(axis=0) for k in range(count)])


def _standard(scores: np.ndarray) -> np.ndarray:
    centred = scores - scores.mean(axis=0)
    return centred / np.maximum(centred.std(axis=0), 1e-12)
