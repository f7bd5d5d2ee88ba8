import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from hf_midrange.bands.units import class_relative_position
from hf_midrange.curation.ridge import Fit, class_weights, left_out_scores, sampled
from hf_midrange.curation.scores import auc, margins, opposite_skew, own_position, robust_skewness
from hf_midrange.curation.selection import balanced, contrary_share, split_by_contrary


def brute_force(features, members, ridge, blocks):
    """Refit scikit-learn's ridge without each block, on the full objective's own weights and penalty."""
    targets, weights = np.where(members, 1.0, -1.0), class_weights(members)
    scores = np.empty(len(targets))
    for block in np.unique(blocks):
        out = blocks == block
        model = Ridge(alpha=ridge * len(targets)).fit(features[~out], targets[~out], weights[~out])
        scores[out] = model.predict(features[out])
    return scores


def standard(raw):
    return np.clip((raw - raw.mean(axis=0)) / raw.std(axis=0), -4, 4)


def normalised(raw):
    features = standard(raw)
    return features / np.sqrt(np.square(features).sum(axis=1).mean())


@pytest.mark.parametrize("width", [5, 36, 60])
@pytest.mark.parametrize("shared", [False, True])
def test_left_out_scores_equal_refitting(width, shared):
    rng = np.random.default_rng(0)
    raw, members = rng.normal(size=(40, width)), rng.random(40) < 0.3
    sources = np.arange(40) // 3 if shared else np.arange(40)
    scores = left_out_scores(raw, [Fit(members, (0.05, 0.3)), Fit(~members, (0.05,))], sources)
    for j, ridge in enumerate((0.05, 0.3)):
        expected = brute_force(normalised(raw), members, ridge, sources)
        np.testing.assert_allclose(scores[:, j], expected, atol=1e-9)
    np.testing.assert_allclose(scores[:, 2], -scores[:, 0], atol=1e-9)


def test_left_out_scores_equal_kernel_ridge_with_free_intercept():
    rng = np.random.default_rng(1)
    raw, members = rng.normal(size=(30, 50)), rng.random(30) < 0.5
    kernel = standard(raw) @ standard(raw).T
    kernel /= np.trace(kernel) / 30
    system = np.zeros((31, 31))
    system[:30, :30] = kernel + np.diag(0.02 * 30 / class_weights(members))
    system[:30, 30] = system[30, :30] = 1
    targets = np.where(members, 1.0, -1.0)
    inverse = np.linalg.inv(system)
    alpha = (inverse @ np.append(targets, 0))[:30]
    expected = targets - alpha / np.diag(inverse)[:30]
    np.testing.assert_allclose(left_out_scores(raw, [Fit(members, (0.02,))])[:, 0], expected, atol=1e-8)


@pytest.mark.parametrize("width", [4, 80])
def test_rows_outside_the_sample_are_scored_by_its_fit(width):
    rng = np.random.default_rng(3)
    raw, members = rng.normal(size=(60, width)), np.arange(60) % 3 == 0
    sample = np.arange(0, 60, 2)
    scores = left_out_scores(raw, [Fit(members, (0.05,))], sample=sample)[:, 0]
    alone = left_out_scores(raw[sample], [Fit(members[sample], (0.05,))])[:, 0]
    np.testing.assert_allclose(scores[sample], alone)
    kept = raw[sample]
    scaled = np.clip((raw - kept.mean(axis=0)) / kept.std(axis=0), -4, 4)
    scaled /= np.sqrt(np.square(scaled[sample]).sum(axis=1).mean())
    targets, weights = np.where(members, 1.0, -1.0)[sample], class_weights(members[sample])
    model = Ridge(alpha=0.05 * 30).fit(scaled[sample], targets, weights)
    np.testing.assert_allclose(scores[1::2], model.predict(scaled[1::2]), atol=1e-9)


def test_the_sample_keeps_rare_classes_and_whole_sources(monkeypatch):
    monkeypatch.setattr("hf_midrange.curation.ridge.FITTED_ROWS", 300)
    labels = (np.arange(3000) % 100 == 0).astype(int)
    sources = np.arange(3000) // 5
    chosen = sampled(labels, sources, seed=0)
    assert labels[chosen].sum() == 30
    assert 300 <= len(chosen) < 450
    assert set(np.bincount(sources[chosen])) <= {0, 5}
    assert sampled(labels[:300], None, seed=0) is None


def test_single_precision_agrees(monkeypatch):
    rng = np.random.default_rng(4)
    for width in (30, 500):
        raw, members = rng.normal(size=(200, width)).astype(np.float32), rng.random(200) < 0.3
        fits = [Fit(members, (0.001, 0.3))]
        expected = left_out_scores(raw, fits)
        monkeypatch.setattr("hf_midrange.head.correction.SINGLE", 10)
        np.testing.assert_allclose(left_out_scores(raw, fits), expected, atol=2e-3)
        monkeypatch.undo()


def test_two_classes_mirror_each_other():
    rng = np.random.default_rng(0)
    labels, logits = np.arange(50) % 2, rng.normal(size=(50, 2))
    logits[np.arange(50), labels] += 1
    difference = margins(logits)
    np.testing.assert_allclose(difference[:, 0], -difference[:, 1])
    mirrored = own_position(difference, labels)
    other_way = 1 - class_relative_position(difference[:, 1], labels == 1)
    np.testing.assert_allclose(mirrored[labels == 0], other_way[labels == 0])


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=4, max_size=40))
@settings(max_examples=40, deadline=None)
def test_auc_is_the_share_of_pairs_in_order(rows):
    up, down = ([score for score, positive in rows if positive == side] for side in (True, False))
    scores, positives = (np.array(part) for part in zip(*rows, strict=True))
    found = auc(scores.astype(float), positives.astype(bool))
    if not up or not down:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(np.mean([(a > b) + (a == b) / 2 for a in up for b in down]))


def test_contrary_tails_make_the_opposite_skew_positive():
    rng = np.random.default_rng(0)
    members = np.arange(800) % 2 == 1
    side = np.where(rng.random(800) < 0.05, ~members, members)
    assert opposite_skew(rng.normal(size=800) + 4.0 * side, members) > 1
    assert abs(opposite_skew(rng.normal(size=800) + 4.0 * members, members)) < 0.5
    assert robust_skewness(np.ones(5)) == 0


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.25, 0.5])
def test_contrary_share_is_the_square_root_rule_up_to_forty_rows(share):
    assert contrary_share(share, 40) == pytest.approx(1 / (1 + np.sqrt(share / (1 - share))))
    assert contrary_share(share, 4000) <= contrary_share(share, 40)
    assert contrary_share(share, 4000) >= 0.5 - 1e-9


@pytest.mark.parametrize("classes", [2, 4])
def test_classes_weigh_the_same_and_contrary_rows_get_their_share(classes):
    rng = np.random.default_rng(0)
    labels, contrary = rng.integers(0, classes, 600), rng.random(600) < 0.1
    towards = (labels + rng.integers(1, classes, 600)) % classes
    names = [f"c{k}" for k in range(classes)]
    found = split_by_contrary(labels, contrary, towards, names, [""] * 600)
    weight = found.weight().astype(float)
    for k in range(classes):
        mine = labels == k
        assert weight[mine].sum() == pytest.approx(600 / classes, rel=1e-5)
        assert weight[mine & contrary].sum() / weight[mine].sum() == pytest.approx(found.facts["q"][f"c{k}"], rel=1e-5)
    keep = found.keep(0)
    counts = [np.sum(keep & (labels == k)) for k in range(classes)]
    assert max(counts) - min(counts) <= classes


def test_balanced_keeps_cells_of_equal_size():
    cells = np.array([0] * 30 + [1] * 6 + [2] * 20)
    found = balanced(cells, ["a", "b", "c"], np.array([0, 0, 1]), [""] * 56)
    keep = found.keep(1)
    assert [int(keep[cells == cell].sum()) for cell in range(3)] == [6, 6, 12]
