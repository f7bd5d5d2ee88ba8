"""Effects against the smallest of interest, and against what the top band shows: levels by simulation, exact tails."""

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from scipy import sparse, stats
from support.associations import dataset

from hf_midrange.association import associate
from hf_midrange.association.details import _beyond_top
from hf_midrange.association.screening import Level, Problem, UnitRows, p_values
from hf_midrange.association.sources import Sources
from hf_midrange.association.tables import Tables, pooled_odds_ratio


def weak(seed, rows, shift, concepts=20):
    """Concepts that each raise the second class's logit by some standard deviations."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(rows) % 2)
    present = rng.random((rows, concepts)) < 0.3
    z = rng.normal(size=rows) + 3 * ids - 1.5 + shift * (present.sum(axis=1) - 0.3 * concepts)
    return dataset(np.stack([-z, z], 1), ids, present, [f"c{j}" for j in range(concepts)])


def test_many_rows_do_not_confirm_what_is_too_small_to_matter():
    findings = associate(weak(0, 60_000, 0.06))
    assert len(set(findings["concept"])) > 15  # seen they are
    assert not any(findings["confirmed"])


def test_an_effect_that_matters_is_confirmed_of_as_many_rows():
    assert len({row["concept"] for row in associate(weak(0, 20_000, 0.3, 5)) if row["confirmed"]}) == 5


@pytest.mark.parametrize("ratio", [0.8, 1.0, 1.25])
def test_the_test_of_the_smallest_effect_keeps_its_level(ratio):
    rng = np.random.default_rng(0)
    odds = 0.25 * ratio
    a, c = rng.binomial(1000, odds / (1 + odds), 4000), rng.binomial(1000, 0.2, 4000)
    tables = Tables(
        *(np.asarray(part, dtype=float)[None] for part in (a, np.full(4000, 1000), a + c, np.full(4000, 2000)))
    )
    share = np.mean(pooled_odds_ratio(tables).p_beyond(1.25) <= 0.05)
    assert share <= stats.binom.ppf(0.99, 4000, 0.05) / 4000
    assert share < 0.01 if ratio == 1 else share > 0.035


def halves(seed, member, strong, sources, rows=1200):
    """Return both halves of rows of one label, where the middle and the top say as much of a concept, by strength."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(2):
        source = np.repeat(np.arange(rows // 5), 5) if sources else np.arange(rows)
        bands = rng.choice(3, len(source), p=[0.5, 0.25, 0.25])[source].astype(np.int8)
        # presence in the middle speaks for the concept in strangers, absence in members
        share = 0.3 + strong * (np.array([0.0, -1.0, 1.0]) if member else np.array([-1.0, 1.0, 1.0]))
        present = sparse.csr_matrix((rng.random(len(source))[source] < share[bands])[:, None])
        ids = np.zeros(rows, dtype=int)
        shared = Sources.of(source, ids) if sources else None
        parts.append(Problem(bands[:, None], np.arange(rows), ids, present, 1, 3, (0 if member else None,), shared))
    return [UnitRows.of(part, 0, np.array([0])) for part in parts]


def beyond(seed, **kind):
    first, again = halves(seed, **kind)
    own = [rows.row_scores(rows.residuals(1, np.array([True])), 0) for rows in (first, again)]
    return _beyond_top(first, again, np.array([0]), [own])[0]


def test_the_middle_is_said_to_show_more_only_where_it_does():
    p = [beyond(seed, member=True, strong=0.1, sources=False) for seed in range(40)]
    assert np.mean(np.array(p) <= 0.05) <= stats.binom.ppf(0.999, 40, 0.05) / 40


@pytest.mark.slow
@pytest.mark.parametrize("sources", [False, True])
@pytest.mark.parametrize("strong", [0.0, 0.05, 0.1])
@pytest.mark.parametrize("member", [True, False])
def test_the_level_of_what_the_top_would_have_missed(member, strong, sources):
    p = [beyond(seed, member=member, strong=strong, sources=sources) for seed in range(400)]
    assert sum(value <= 0.05 for value in p) <= stats.binom.ppf(0.99, 400, 0.05)


def exact_mid_p(tables):
    """Two-sided mid-p of the sum over strata, in whole numbers."""
    law = [Fraction(1)]
    for in_band, with_concept, total in tables[1:].astype(int).T:
        possible = range(min(in_band, with_concept) + 1)
        ways = [comb(with_concept, a) * comb(total - with_concept, in_band - a) for a in possible]
        own, whole = [Fraction(way, comb(total, in_band)) for way in ways], [Fraction(0)] * (len(law) + len(ways) - 1)
        for i, left in enumerate(law):
            for j, right in enumerate(own):
                whole[i + j] += left * right
        law = whole
    observed = int(tables[0].sum())
    tails = sum(law[:observed], law[observed] / 2), sum(law[observed + 1 :], law[observed] / 2)
    return float(min(1, 2 * min(tails)))


@pytest.mark.parametrize(("sizes", "excess"), [([300, 200, 150], 26), ([80, 60, 40], 14), ([500, 300], 25)])
def test_far_tails_over_strata_are_those_of_whole_numbers(sizes, excess):
    total = np.array(sizes, dtype=float)
    in_band, with_concept = np.round(total * 0.3), np.round(total * 0.25)
    a = np.round(in_band * with_concept / total)
    a[0] += excess
    tables = np.stack([a, in_band, with_concept, total])
    p = p_values(Tables(*(part[:, None] for part in tables)), Level())[0]
    assert p < 1e-4
    assert p == pytest.approx(exact_mid_p(tables), rel=1e-8)
