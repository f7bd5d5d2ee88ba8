"""Many classes: what the class adds to the scores is told from what the confounder adds."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from hf_midrange.curation.auto import SOFTENED, other_odds, refined
from hf_midrange.curation.ties import Tie


def additive_rows(classes=4, rows=1200, width=8, contrary=0.06, seed=0):
    """Return scores `a_y + b_c` plus noise, labels, and confounders of which a share is not the label's own."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    confounders = np.where(rng.random(rows) < contrary, (labels + rng.integers(1, classes, rows)) % classes, labels)
    of_class, of_confounder = 3 * rng.normal(size=(2, classes, width))
    return of_class[labels] + of_confounder[confounders] + rng.normal(size=(rows, width)), labels, confounders


def test_odds_are_those_of_normal_densities():
    scores, labels, confounders = additive_rows(seed=1)
    scores -= scores.mean(axis=0)
    design = np.hstack([np.eye(4)[labels], np.eye(4)[confounders]])
    means = np.linalg.lstsq(design, scores, rcond=1e-10)[0]
    covariance = np.cov((scores - design @ means).T, bias=True) + SOFTENED * np.eye(8)
    density = np.empty((len(labels), 4))
    for c in range(4):
        expected = means[labels] + means[4 + c]
        density[:, c] = multivariate_normal(np.zeros(8), covariance).logpdf(scores - expected)
    own = density[np.arange(len(labels)), labels]
    density[np.arange(len(labels)), labels] = -np.inf
    odds, towards = other_odds(scores, labels, confounders, 4)
    np.testing.assert_allclose(odds, own - density.max(axis=1), rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(towards, density.argmax(axis=1))


def half_right(classes, seed=0):
    """Return the rows' evidence, a tie half of whose contrary rows are others drawn at random, and the true ones."""
    scores, labels, confounders = additive_rows(classes, seed=seed)
    truth = confounders != labels
    rng = np.random.default_rng(seed + 100)
    contrary = truth & (rng.random(len(labels)) < 0.5)
    contrary[rng.choice(np.flatnonzero(~truth), int(truth.sum() - contrary.sum()), replace=False)] = True
    others = (labels + rng.integers(1, classes, len(labels))) % classes
    towards = np.where(truth, confounders, others)
    tie = Tie("view_side", "view", 0.3, np.zeros(len(labels)), contrary, towards)
    half = scores.shape[1] // 2
    view = SimpleNamespace(scores=scores[:, :half])
    evidence = SimpleNamespace(
        labels=labels, classes=[str(k) for k in range(classes)], views=[view], scores=scores[:, half:]
    )
    return evidence, tie, truth


@pytest.mark.parametrize("seed", range(3))
def test_half_right_rows_lead_to_the_others(seed):
    evidence, tie, truth = half_right(4, seed)
    found = refined(tie, evidence)
    assert truth[tie.contrary].mean() < 0.6
    assert truth[found.contrary].mean() > 0.95
    assert found.contrary.sum() == tie.contrary.sum()
    assert np.median(found.positions) == pytest.approx(1.0)
    assert (found.positions[found.contrary] < found.edge + 0.01).all()


def test_two_classes_and_few_rows_stay_as_they_are():
    evidence, tie, _ = half_right(2)
    assert refined(tie, evidence) is tie
    evidence, tie, _ = half_right(4)
    evidence.views = evidence.views * 100
    assert refined(tie, evidence) is tie
