"""The statistics against statsmodels, scipy and brute force."""

import itertools
import warnings
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats
from statsmodels.stats.contingency_tables import StratifiedTable

from hf_midrange.association.profile import fifths, profile, shape_of, trend_and_hump
from hf_midrange.association.ranks import label_ranks
from hf_midrange.association.screening import Level, adjusted, margins, p_values, unit_sides
from hf_midrange.association.tables import (
    Tables,
    cell_tables,
    chi_square_p,
    mid_p_values,
    moments,
    orient,
    pooled_odds_ratio,
)
from hf_midrange.association.tables import testable_sides as sides_with_rows


def cmh(tables):
    return chi_square_p(*moments(tables))


def random_tables(seed, strata=4, tests=30, high=25):
    """Cells a, b, c, d of shape (4, S, m), small enough that zero cells and zero margins occur."""
    rng = np.random.default_rng(seed)
    cells = rng.integers(0, high, size=(4, strata, tests))
    cells[rng.random(cells.shape) < 0.15] = 0
    return cells, of_cells(cells)


def of_cells(cells):
    a, b, c, d = cells.astype(float)
    return Tables(a, a + b, a + c, a + b + c + d)


def referee(cells, test, where):
    return StratifiedTable([cells[:, s, test].reshape(2, 2).astype(float) for s in np.flatnonzero(where[:, test])])


@pytest.mark.parametrize("seed", range(5))
def test_statistics_equal_statsmodels_after_dropping_the_same_strata(seed):
    cells, tables = random_tables(seed)
    live, ratio = tables.informative(), pooled_odds_ratio(tables)
    p = cmh(tables)
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for test in np.flatnonzero(live.sum(0) > 1):
            table = referee(cells, test, live)
            assert p[test] == pytest.approx(table.test_null_odds(correction=False).pvalue, rel=1e-9, abs=1e-12)
            assert ratio.ratio[test] == pytest.approx(table.oddsratio_pooled, rel=1e-9)
            if not 0 < ratio.ratio[test] < np.inf:
                continue
            low, high = table.oddsratio_pooled_confint()
            assert (ratio.low[test], ratio.high[test]) == pytest.approx((low, high), rel=1e-9)
            compared += 1
    assert compared > 15


def test_one_stratum_gives_the_plain_odds_ratio_and_woolf_interval():
    a, b, c, d = 12.0, 5.0, 7.0, 20.0
    found = pooled_odds_ratio(of_cells(np.array([a, b, c, d]).reshape(4, 1, 1)))
    error = np.sqrt(1 / a + 1 / b + 1 / c + 1 / d)
    assert found.ratio[0] == pytest.approx(a * d / (b * c))
    assert np.log(found.high[0] / found.ratio[0]) == pytest.approx(stats.norm.ppf(0.975) * error)


def test_empty_cells_give_open_intervals():
    never = pooled_odds_ratio(of_cells(np.array([0, 20, 30, 50]).reshape(4, 1, 1)))
    always = pooled_odds_ratio(of_cells(np.array([20, 0, 30, 50]).reshape(4, 1, 1)))
    assert never.ratio[0] == never.low[0] == 0
    assert 0 < never.high[0] < 1
    assert always.ratio[0] == always.high[0] == np.inf
    assert 1 < always.low[0] < np.inf


def brute_mid_p(cells):
    """Enumerate every combination of the strata's possible `a`."""
    laws = []
    for a, b, c, d in cells.T.astype(int):
        n1, m1, t = a + b, a + c, a + b + c + d
        if not (0 < n1 < t and 0 < m1 < t):
            laws.append([(a, 1.0)])
            continue
        support = range(max(0, n1 + m1 - t), min(n1, m1) + 1)
        laws.append([(x, comb(m1, x) * comb(t - m1, n1 - x) / comb(t, n1)) for x in support])
    observed = cells[0].sum()
    below = same = above = 0.0
    for point in itertools.product(*laws):
        weight, total = np.prod([w for _, w in point]), sum(x for x, _ in point)
        below, same, above = (
            below + weight * (total < observed),
            same + weight * (total == observed),
            above + weight * (total > observed),
        )
    return min(1.0, 2 * min(below + same / 2, above + same / 2))


@pytest.mark.parametrize("seed", range(3))
def test_mid_p_equals_enumeration(seed):
    cells, tables = random_tables(seed, strata=3, tests=12, high=7)
    expected = [brute_mid_p(cells[:, :, test]) for test in range(12)]
    np.testing.assert_allclose(mid_p_values(tables, np.arange(12)), expected, rtol=1e-9, atol=1e-12)


def test_mid_p_of_one_table_is_fishers_less_half_the_observed():
    cells = np.array([8, 2, 3, 9]).reshape(4, 1, 1)
    one_sided = stats.fisher_exact(cells.reshape(2, 2), alternative="greater").pvalue
    observed = stats.hypergeom(22, 11, 10).pmf(8)
    assert mid_p_values(of_cells(cells), np.array([0]))[0] == pytest.approx(2 * (one_sided - observed / 2))


def test_adjustment_equals_scipy_and_ignores_what_was_not_tested():
    p = np.random.default_rng(0).random((3, 5, 7)) ** 3
    p[0, 2] = np.nan
    q = adjusted(p)
    tested = ~np.isnan(p)
    np.testing.assert_allclose(q[tested], stats.false_discovery_control(p[tested]), rtol=1e-12)
    assert np.isnan(q[~tested]).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6))
def test_negating_the_concept_inverts_the_odds_ratio(seed):
    _, tables = random_tables(seed, tests=8)
    negated = tables.flipped(np.ones(tables.a.shape, dtype=bool))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(
            pooled_odds_ratio(negated).ratio, 1 / pooled_odds_ratio(tables).ratio, rtol=1e-9, equal_nan=True
        )
    np.testing.assert_allclose(cmh(negated), cmh(tables), rtol=1e-7, atol=1e-12)
    tests = np.arange(8)
    np.testing.assert_allclose(mid_p_values(negated, tests), mid_p_values(tables, tests), rtol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_strata_come_in_any_order(seed):
    _, tables = random_tables(seed, tests=8)
    order = np.random.default_rng(seed).permutation(4)
    moved = Tables(*(values[order] for values in tables))
    np.testing.assert_allclose(pooled_odds_ratio(moved).ratio, pooled_odds_ratio(tables).ratio, rtol=1e-9)
    np.testing.assert_allclose(cmh(moved), cmh(tables), rtol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_counts_equal_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    ids, bands = rng.integers(0, 3, 80), rng.integers(0, 3, 80).astype(np.int8)
    dense = rng.random((80, 5)) < 0.3
    tests = np.array(list(itertools.product(range(3), range(5))))
    tables = cell_tables(bands, ids, 3, sparse.csc_matrix(dense), tests)
    for j, (band, concept) in enumerate(tests):
        for label in range(3):
            own, inside, has = ids == label, bands == band, dense[:, concept]
            expected = [(own & inside & has).sum(), (own & inside).sum(), (own & has).sum(), own.sum()]
            assert [values[label, j] for values in tables] == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([None, 0, 2]))
def test_sums_by_matrix_products_equal_those_over_tables(seed, member):
    rng = np.random.default_rng(seed)
    ids, bands = rng.integers(0, 6, 60), rng.integers(0, 3, 60).astype(np.int8)
    ids[ids == 4] = 5  # one label has no row
    ids[0] = 3
    ids[1:][ids[1:] == 3] = 1  # and one a single row
    present = sparse.csr_matrix(rng.random((60, 7)) < rng.random(7))
    known = margins(present, ids, 6)
    members, strangers = unit_sides(bands, known, 3, member)
    for band in range(3):
        tables = cell_tables(bands, ids, 6, present.tocsc(), np.column_stack([np.full(7, band), np.arange(7)]))
        sides = sides_with_rows(tables, member)
        for fast, slow in ((members, sides.members), (strangers, sides.strangers)):
            excess, variance = moments(tables.kept(slow))
            np.testing.assert_allclose((fast.tested * fast.excess)[band], excess, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose((fast.tested * fast.variance)[band], variance, rtol=1e-12, atol=1e-12)


def test_orientation_keeps_opposite_sides_from_cancelling():
    cells = np.array([[1, 30, 60, 10], [30, 1, 10, 60]]).T.reshape(4, 2, 1)
    tables = of_cells(cells)
    assert pooled_odds_ratio(tables).ratio[0] == pytest.approx(1, abs=0.5)
    assert pooled_odds_ratio(orient(tables, 0, np.array([1]), 2)).ratio[0] > 50
    top, bottom = (orient(tables, 0, np.array([band]), 2) for band in (2, 0))
    np.testing.assert_array_equal(top.a, tables.a)
    np.testing.assert_array_equal(bottom.a, tables.in_band - tables.a)


def rows_of(hits, total=40):
    """Return bins, one label, and which rows have the concept."""
    bins = np.repeat(np.arange(len(hits)), total)
    return bins, np.zeros(len(bins), dtype=int), np.concatenate([np.arange(total) < hit for hit in hits])


def test_trend_equals_the_cochran_armitage_statistic():
    bins, label, has = rows_of([5, 9, 12, 18, 22])
    expected = np.corrcoef(bins, has)[0, 1] * np.sqrt(200)
    assert trend_and_hump(bins, label, has)[0] == pytest.approx(expected)


def test_the_trend_over_labels_is_mantels():
    rng = np.random.default_rng(0)
    bins, label = rng.integers(0, 5, 600), rng.integers(0, 3, 600)
    has = rng.random(600) < np.array([0.1, 0.4, 0.8])[label]
    excess = variance = 0.0
    for k in range(3):
        x, y = bins[label == k].astype(float), has[label == k]
        excess += (x * y).sum() - x.sum() * y.mean()
        variance += y.mean() * (1 - y.mean()) * len(x) * x.var()
    assert trend_and_hump(bins, label, has)[0] == pytest.approx(excess / np.sqrt(variance))


@pytest.mark.parametrize(
    ("hits", "shape"),
    [
        ([2, 8, 15, 25, 35], "rising"),
        ([35, 25, 15, 8, 2], "falling"),
        ([2, 20, 25, 20, 2], "humped"),
        ([25, 3, 2, 3, 25], "dipped"),
        ([10, 11, 9, 10, 10], "flat"),
        ([0, 0, 0, 0, 0], "flat"),
    ],
)
def test_shapes(hits, shape):
    assert shape_of(*trend_and_hump(*rows_of(hits))) == shape


def of_values(values, ids, has):
    return profile(fifths(label_ranks(values, ids, int(ids.max()) + 1), ids), ids, has)


def test_profile_bins_are_equal_shares_of_the_ranks():
    ranks, has = np.arange(100.0), np.arange(100) >= 60
    found = of_values(ranks[::-1], np.zeros(100, dtype=int), has[::-1])
    assert found.prevalence.tolist() == pytest.approx([0, 0, 0, 1, 1])
    assert found.low[0] == pytest.approx(0, abs=1e-12)
    assert found.shape == "rising"


def test_labels_that_differ_in_unit_and_concept_draw_no_shape():
    rng = np.random.default_rng(0)
    ids = np.arange(6000) % 3
    has = rng.random(6000) < np.array([0.1, 0.5, 0.9])[ids]
    values = rng.normal(size=6000) + 3 * ids
    found = of_values(values, ids, has)
    assert found.shape == "flat"
    np.testing.assert_allclose(found.prevalence, 0.5, atol=0.04)
    assert of_values(values + 0.5 * has, ids, has).shape == "rising"


def test_equal_values_are_never_split_over_bins():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2, 1000)
    values = np.round(rng.normal(size=1000) + 2 * ids, 0)
    bins = fifths(label_ranks(values, ids, 2), ids)
    for k, value in itertools.product((0, 1), np.unique(values)):
        assert len(set(bins[(ids == k) & (values == value)])) <= 1
    order = rng.permutation(1000)
    np.testing.assert_array_equal(fifths(label_ranks(values[order], ids[order], 2), ids[order]), bins[order])


@pytest.mark.parametrize(("total", "in_band", "with_concept"), [(50_000, 1000, 1500), (20_000, 600, 1000)])
def test_far_tails_are_those_of_the_hypergeometric_distribution(total, in_band, with_concept):
    law = stats.hypergeom(total, with_concept, in_band)
    variance = law.var()
    assert 25 < variance < 100
    for a in np.ceil(law.mean() + np.array([4.5, 5.5, 6.5]) * np.sqrt(variance)):
        tables = Tables(*(np.array([[value]]) for value in (a, float(in_band), float(with_concept), float(total))))
        exact = 2 * (law.sf(a) + law.pmf(a) / 2)
        assert p_values(tables, Level())[0] == pytest.approx(exact, rel=1e-6)
        assert cmh(tables)[0] < 0.8 * exact
