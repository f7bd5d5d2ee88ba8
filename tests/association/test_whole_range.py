"""The whole range: rank tests against scipy and enumeration, readings, and concepts inside others."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from support.associations import dataset

from hf_midrange import associate
from hf_midrange.association.ranks import Areas, areas, generalised_odds, label_ranks, stratified_shift
from hf_midrange.association.readings import needless_ranges, one_row_a_pair, range_patterns, same_concepts, ties
from hf_midrange.io.blocks import discovery_half


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


def test_readings_need_both_sides():
    members = np.array([8.0, 8.0, 8.0, 8.0, -8.0, 0.0, -8.0, np.nan])
    strangers = np.array([8.0, 0.0, np.nan, np.nan, 8.0, 8.0, -8.0, 8.0])
    absent = np.array([False, False, True, False, False, False, False, False])
    expected = ["cue", "none", "one-sided", "none", "hardness", "none", "none", "none"]
    assert range_patterns(members, strangers, absent, 0.05).tolist() == expected


def test_ties_are_odds_ratios_of_concept_and_class_and_count_the_rows_that_break_them():
    found = ties(np.array([[30.0], [5.0], [0.0]]), np.array([40.0, 50, 10]), np.array([0, -1]), np.array([0, 0]))
    assert found.ratio[0] == pytest.approx(30.5 * 55.5 / 10.5 / 5.5)
    assert found.broken_by[0] == 10 + 5
    assert 1 < found.low[0] < found.ratio[0]
    assert np.isnan(found.ratio[1])


def test_a_pair_is_flagged_in_the_middle_or_else_where_it_is_clearest():
    flagged = np.array([True, True, True, False, True])
    middle = np.array([False, True, False, True, False])
    pairs = np.array([[0, 0], [0, 0], [1, 0], [1, 0], [1, 0]])
    kept = one_row_a_pair(flagged, middle, pairs, np.array([1e-9, 1e-3, 1e-4, 1e-8, 1e-6]))
    assert kept.tolist() == [False, True, False, False, True]


def test_the_whole_range_is_told_of_where_no_band_holds():
    whole_range = np.array([False, True, False, True, True, False, True, False, True])
    holds = np.array([True, True, False, True, False, False, False, False, False])
    pairs = np.array([[0, 0], [0, 0], [0, 1], [0, 1], [1, 0], [1, 1], [1, 1], [2, 0], [2, 1]])
    needless = needless_ranges(whole_range, holds, pairs)
    assert np.flatnonzero(needless).tolist() == [1, 6]


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


def rare_confounder(seed=2, n=2000, prevalence=0.03):
    """Return two classes and a concept that raises the second class's logit, but is in few rows of any band."""
    rng = np.random.default_rng(seed)
    ids, present = rng.integers(0, 2, n), rng.random((n, 40)) < prevalence
    logit = 2 * ids + rng.normal(size=n) + 0.9 * present[:, 0]
    return logit, ids, present


def rank_odds(values, ids, has):
    """Return the odds ratio and van Elteren's p-value by comparing every pair of rows."""
    won = total = excess = variance = 0.0
    for k in np.unique(ids):
        with_it, without = values[(ids == k) & has], values[(ids == k) & ~has]
        n = len(with_it) + len(without)
        if not (len(with_it) and len(without)):
            continue
        above = (with_it[:, None] > without).sum() + 0.5 * (with_it[:, None] == without).sum()
        pairs = len(with_it) * len(without)
        won, total = won + above / (n + 1), total + pairs / (n + 1)
        excess += (above - pairs / 2) / (n + 1)
        ties = np.unique(np.concatenate([with_it, without]), return_counts=True)[1].astype(float)
        variance += pairs / 12 * (n + 1 - (ties**3 - ties).sum() / n / (n - 1)) / (n + 1) ** 2
    return won / (total - won), 2 * stats.norm.sf(abs(excess) / np.sqrt(variance))


def test_a_rare_concept_shows_over_the_whole_range_where_no_band_shows_it():
    logit, ids, present = rare_confounder()
    names = ["planted", *(f"noise {j}" for j in range(39))]
    ds = dataset(np.column_stack([-logit, logit]), ids, present, names)
    findings = associate(ds)
    assert list(zip(findings["concept"], findings["band"], strict=True)) == [("planted", "range")]
    row, half = findings[0], discovery_half(ids, None, 0)
    ratio, p = rank_odds(logit[half], ids[half], present[half, 0])
    assert row["odds_ratio_discovery"] == pytest.approx(ratio, rel=1e-5)
    assert row["p_value"] == pytest.approx(p, rel=1e-5)
    again, p_again = rank_odds(logit[~half], ids[~half], present[~half, 0])
    assert row["odds_ratio"] == pytest.approx(again, rel=1e-5)
    assert p_again < row["q_confirm"] < 0.01  # against the smallest effect of interest, not against none
    assert 1 < row["ci_low"] < row["odds_ratio"] < row["ci_high"]
    assert row["confounder"]
    for side, k in (("member", 1), ("stranger", 0)):
        own = (ids == k) & ~half
        ratio, _ = rank_odds(logit[own], ids[own], present[own, 0])
        assert row[f"{side}_odds_ratio"] == pytest.approx(ratio, rel=1e-5)


def test_what_a_band_shows_is_not_reported_again_over_the_whole_range():
    logit, ids, present = rare_confounder(prevalence=0.2)
    ds = dataset(np.column_stack([-logit, logit]), ids, present, [f"c{j}" for j in range(40)])
    assert set(associate(ds)["band"]) <= {"low", "mid", "high"}


def test_odds_of_standing_above_are_open_ended_when_all_do():
    auc = np.array([0.0, 0.5, 1.0, 0.75])
    found = generalised_odds(Areas(auc, np.array([0.0, 0.1, 0.0, 0.1]), np.full(4, 1e6)), np.full(4, 0.1))
    np.testing.assert_allclose(found.ratio, [0, 1, np.inf, 3])
    np.testing.assert_array_equal(found.low < [0.1, 1, np.inf, 3], True)
    np.testing.assert_array_equal(found.high > [0, 1, 999, 3], True)
    assert found.high[0] < 1 < found.low[2]
    np.testing.assert_allclose(np.log(found.low[3]), np.log(3) - stats.norm.ppf(0.975) * 0.1 / 0.75 / 0.25, rtol=1e-4)


def delong(values, has):
    """The area and DeLong's variance, by comparing every pair of rows."""
    with_it, without = values[has], values[~has]
    above = (with_it[:, None] > without) + 0.5 * (with_it[:, None] == without)
    variance = above.mean(1).var(ddof=1) / len(with_it) + above.mean(0).var(ddof=1) / len(without)
    return above.mean(), variance


@pytest.mark.parametrize("seed", range(3))
def test_areas_and_their_errors_are_delongs_pooled_over_labels(seed, monkeypatch):
    monkeypatch.setattr("hf_midrange.association.ranks.SMOOTHED", 0)
    values, ids, present = tied_values(seed)
    found = areas(values, ids, sparse.csc_matrix(present), np.array([True, False, True]))
    for j in range(present.shape[1]):
        weights, parts = [], []
        for k in (0, 2):
            own = ids == k
            n1, n = present[own, j].sum(), own.sum()
            weights.append(n1 * (n - n1) / (n + 1))
            parts.append(delong(values[own], present[own, j]))
        share, (area, variance) = np.array(weights) / sum(weights), np.array(parts).T
        assert found.auc[j] == pytest.approx(share @ area)
        assert found.error[j] == pytest.approx(np.sqrt(share**2 @ variance))
    again = shift(values, ids, present, [True, False, True])
    np.testing.assert_allclose(found.auc, again.auc)


@pytest.mark.slow
@pytest.mark.parametrize("effect", [0, 1, 2, 3])
@pytest.mark.parametrize("number", [30, 100])
def test_intervals_of_areas_cover_them_also_near_one(effect, number):
    area, covered = stats.norm.cdf(effect / np.sqrt(2)), 0
    has, ids, only = np.arange(400) < number, np.zeros(400, dtype=int), np.array([True])
    for seed in range(600):
        values = np.random.default_rng(seed).normal(size=400) + effect * has
        found = areas(values, ids, sparse.csc_matrix(has[:, None]), only)
        odds = generalised_odds(found, shift(values, ids, has[:, None], only).error)
        covered += odds.low[0] <= area / (1 - area) <= odds.high[0]
    assert 0.93 <= covered / 600 <= 0.97
