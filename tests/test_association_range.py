"""The whole range: rank tests against scipy and enumeration, signatures, and concepts inside others."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from hf_midrange.association.grouping import same_concepts
from hf_midrange.association.ranks import label_ranks, stratified_shift
from hf_midrange.association.signatures import one_row_a_pair, signatures
from hf_midrange.association.testing import Options


OPTIONS = Options(alpha=0.05, method="bh", least=5, exact_below=25.0)


def tied_values(seed, n=200, classes=3, concepts=4):
    rng = np.random.default_rng(seed)
    return np.round(rng.normal(size=n), 1), rng.integers(0, classes, n), rng.random((n, concepts)) < 0.25


def shift(values, ids, present, strata, **options):
    strata = np.asarray(strata, dtype=bool)
    return stratified_shift(label_ranks(values, ids, len(strata)), ids, sparse.csc_matrix(present), strata, **options)


@pytest.mark.parametrize("label", [0, 1, 2])
def test_one_label_is_the_mann_whitney_test(label):
    values, ids, present = tied_values(label)
    found = shift(values, ids, present, np.arange(3) == label)
    for j in range(present.shape[1]):
        own = ids == label
        with_it, without = values[own & present[:, j]], values[own & ~present[:, j]]
        expected = stats.mannwhitneyu(with_it, without, use_continuity=False, method="asymptotic")
        assert found.p[j] == pytest.approx(expected.pvalue, rel=1e-9)
        assert found.auc[j] == pytest.approx(expected.statistic / len(with_it) / len(without))
        assert np.sign(found.z[j]) == np.sign(found.auc[j] - 0.5)


def test_pooled_labels_are_standardised_by_their_exact_null_distribution():
    values = np.array([1.0, 2, 2, 3, 5, 0, 1, 4, 4])
    ids = np.array([0, 0, 0, 0, 0, 1, 1, 1, 1])
    present = np.array([0, 1, 0, 1, 0, 0, 1, 0, 1], dtype=bool)[:, None]
    draws = {}
    for label, picked in ((0, 2), (1, 2)):
        ranks = stats.rankdata(values[ids == label])
        chosen = itertools.combinations(ranks, picked)
        draws[label] = [sum(some) / (len(ranks) + 1) for some in chosen]
    null = np.add.outer(draws[0], draws[1]).ravel()
    observed = sum(
        stats.rankdata(values[ids == k])[present[ids == k, 0]].sum() / ((ids == k).sum() + 1) for k in (0, 1)
    )
    found = shift(values, ids, present, [True, True])
    assert found.z[0] == pytest.approx((observed - null.mean()) / null.std())


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_only_the_order_within_labels_matters(seed):
    values, ids, present = tied_values(seed)
    order = np.random.default_rng(seed).permutation(len(ids))
    one = shift(values, ids, present, [True, False, True])
    moved = shift(np.exp(values + 7 * ids)[order], ids[order], present[order], [True, False, True])
    negated = shift(-values, ids, present, [True, False, True])
    np.testing.assert_allclose(moved.z, one.z, rtol=1e-9)
    np.testing.assert_allclose(negated.z, -one.z, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(negated.auc, 1 - one.auc, rtol=1e-9)


def test_too_few_rows_are_not_tested():
    values, ids, _ = tied_values(0)
    present = np.column_stack([np.arange(200) < 3, np.zeros(200, dtype=bool), np.ones(200, dtype=bool)])
    assert np.isnan(shift(values, ids, present, [True] * 3, least=5).z).all()


def test_signatures_need_both_sides():
    members = np.array([8.0, 8.0, 8.0, -8.0, 0.0, -8.0, np.nan])
    strangers = np.array([8.0, 0.0, np.nan, 8.0, 8.0, -8.0, 8.0])
    expected = ["confounder", "none", "core", "hardness", "none", "none", "none"]
    assert signatures(members, strangers, OPTIONS).tolist() == expected


def test_a_pair_is_flagged_in_the_middle_or_else_where_it_is_clearest():
    flagged = np.array([True, True, True, False, True])
    middle = np.array([False, True, False, True, False])
    pairs = np.array([[0, 0], [0, 0], [1, 0], [1, 0], [1, 0]])
    kept = one_row_a_pair(flagged, middle, pairs, np.array([1e-9, 1e-3, 1e-4, 1e-8, 1e-6]))
    assert kept.tolist() == [False, True, False, False, True]


def test_a_phrase_inside_a_word_shares_its_group_and_chance_does_not():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2, 2000)
    there = rng.random(2000) < 0.2
    there_are = there & (rng.random(2000) < 0.3)
    everywhere, rare = rng.random(2000) < 0.97, np.zeros(2000, dtype=bool)
    rare[np.flatnonzero(everywhere)[:12]] = True
    concepts = [there, there_are, everywhere, rare, ~there]
    groups = same_concepts(sparse.csr_matrix(np.column_stack(concepts)), ids, 2)
    assert groups[0] == groups[1] == groups[4]
    assert len(set(groups)) == 3
