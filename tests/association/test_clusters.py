"""Rows that share sources: variances by source against plain loops and statsmodels, level and power by simulation."""

import numpy as np
import pytest
import statsmodels.api as sm
from datasets import Value
from scipy import sparse, stats
from support.associations import dataset

from hf_midrange import columns
from hf_midrange.association import associate, provenance
from hf_midrange.association.ranks import areas, label_ranks, stratified_shift
from hf_midrange.association.sources import Sources, clustered_log_error
from hf_midrange.association.tables import cell_tables, pooled_odds_ratio


def rows_of_sources(seed, mixed, n=300, number=40):
    """Return sources, labels and concepts; a source has rows of one label, or of all."""
    rng = np.random.default_rng(seed)
    sources = rng.integers(0, number, n)
    ids = rng.integers(0, 3, n) if mixed else sources % 3
    scene = rng.random((number, 6)) < 0.3
    return sources, ids, scene[sources] ^ (rng.random((n, 6)) < 0.2)


def squares_by_loop(residuals, present, ids, sources):
    less = present - np.stack([present[ids == k].mean(axis=0) for k in range(3)])[ids]
    return sum((residuals[sources == one].T @ less[sources == one]) ** 2 for one in np.unique(sources))


@pytest.mark.parametrize("mixed", [False, True])
def test_squares_of_sources_equal_a_plain_loop(mixed):
    sources, ids, present = rows_of_sources(0, mixed)
    residuals = np.random.default_rng(1).normal(size=(300, 4))
    residuals -= np.stack([residuals[ids == k].mean(axis=0) for k in range(3)])[ids]
    found, table = Sources.of(sources, ids), sparse.csc_matrix(present)
    column, concept = np.divmod(np.arange(24), 6)
    turn = np.array([[1, -1, 0], [1, 1, 1], [0, 1, 0]])[:, np.arange(24) % 3]
    picked = found.picked(table, concept)
    values = residuals[picked.rows, column[picked.test]] * turn[ids[picked.rows], picked.test]
    sums = np.stack([np.bincount(found.pair, some) for some in residuals.T], axis=1)
    share = np.stack([present[ids == k].mean(axis=0) for k in range(3)])[:, concept] * turn
    got = found.squares(picked, values, sums, column, share)
    for j in range(24):
        signed = residuals[:, [column[j]]] * turn[ids, j][:, None]
        expected = squares_by_loop(signed, present[:, [concept[j]]], ids, sources)
        np.testing.assert_allclose(got[j], expected, rtol=1e-9)


@pytest.mark.parametrize("mixed", [False, True])
def test_sources_with_and_without_a_concept_and_in_a_band_are_counted_once(mixed):
    sources, ids, present = rows_of_sources(0, mixed)
    found, labels, bands = Sources.of(sources, ids), np.array([True, False, True]), np.arange(300) % 2
    having, lacking = found.having(found.picked(sparse.csc_matrix(present), np.arange(6)), labels, 6)
    kept = labels[ids]
    assert having.tolist() == [len(set(sources[kept & present[:, j]])) for j in range(6)]
    assert lacking.tolist() == [len(set(sources[kept & ~present[:, j]])) for j in range(6)]
    inside = np.stack([np.bincount(found.pair, bands == b) for b in range(2)], axis=1)
    number = min(len(set(sources[kept & (bands == b)])) for b in range(2))
    assert found.in_band(inside, np.stack([labels, labels])).tolist() == [number, number]


@pytest.mark.parametrize("seed", range(4))
def test_the_error_of_one_labels_odds_ratio_is_the_sandwich_of_a_logistic_regression(seed):
    sources, _, present = rows_of_sources(seed, mixed=True)
    ids, bands, has = np.zeros(300, dtype=int), np.arange(300) % 3, present[:, 0]
    tables = cell_tables(bands, ids, 1, sparse.csc_matrix(has[:, None]), np.array([[1, 0]]))
    ratio = pooled_odds_ratio(tables).ratio[0]
    error, _ = clustered_log_error(tables, ratio, bands == 1, has, ids, sources)
    design = sm.add_constant((bands == 1).astype(float))
    kwds = {"groups": sources, "use_correction": False}
    fitted = sm.Logit(has.astype(float), design).fit(disp=0, tol=1e-12, cov_type="cluster", cov_kwds=kwds)
    assert np.log(ratio) == pytest.approx(fitted.params[1], rel=1e-6)
    assert error == pytest.approx(fitted.bse[1], rel=1e-6)


def test_rows_that_are_sources_of_their_own_are_tested_as_rows():
    ds = clustered(0, 400, 1, 0.5)
    plain, alone = associate(ds.remove_columns("source_id")), associate(ds)
    assert repr(plain[:]) == repr(alone[:])


def test_rank_tests_and_areas_of_sources_of_one_row_are_nearly_those_of_rows():
    rng = np.random.default_rng(0)
    values, ids, present = rng.normal(size=2000), rng.integers(0, 2, 2000), rng.random((2000, 3)) < 0.4
    values += 0.4 * present[:, 0]
    table, both = sparse.csc_matrix(present), np.ones(2, dtype=bool)
    own = Sources.of(np.arange(2000), ids)
    ranked = label_ranks(values, ids, 2)
    plain, robust = (stratified_shift(ranked, ids, table, both, shared=shared) for shared in (None, own))
    np.testing.assert_allclose(robust.error, plain.error, rtol=0.05)
    assert (robust.error >= plain.error).all()
    np.testing.assert_allclose(robust.sources, [present[:, j].sum() for j in range(3)])
    found, again = (areas(values, ids, table, both, sources) for sources in (None, np.arange(2000)))
    np.testing.assert_allclose(again.error, found.error, rtol=0.02)


def clustered(seed, number, each, icc, concepts=20, effect=0.0, mixed=False):
    """Rows of two classes from sources; concepts are those of a whole source, and the first may raise class b."""
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(number), each)
    ids = rng.integers(0, 2, number * each) if mixed else rng.permutation(np.arange(number) % 2)[source]
    present = (rng.random((number, concepts)) < 0.3)[source]
    z = np.where(ids == 1, 1.5, -1.5) + effect * present[:, 0]
    z = z + np.sqrt(icc) * rng.normal(size=number)[source] + np.sqrt(1 - icc) * rng.normal(size=len(source))
    names = [f"concept_{j}" for j in range(concepts)]
    ds = dataset(np.stack([-z, z], axis=1) / 2, ids, present, names)
    return columns.with_columns(ds, {"source_id": (source, Value("int64"))})


def any_confirmed(seeds, **kind):
    return sum(any(associate(clustered(seed, **kind), seed=seed)["confirmed"]) for seed in range(seeds))


def test_sources_of_many_rows_confirm_nothing_where_nothing_is():
    assert any_confirmed(4, number=100, each=20, icc=0.5) == 0
    assert any_confirmed(4, number=60, each=20, icc=0.5, mixed=True) == 0


KINDS = [
    {"number": number, "each": each, "icc": icc, "mixed": mixed}
    for number, each in ((400, 2), (200, 5), (100, 20), (40, 50))
    for icc in (0.0, 0.2, 0.5)
    for mixed in (False, True)
]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "-".join(map(str, kind.values())))
def test_the_level_holds_at_any_correlation_within_sources(kind):
    assert any_confirmed(100, **kind) <= stats.binom.ppf(0.99, 100, 0.05)


def test_a_planted_confounder_is_found_in_spite_of_sources():
    found = associate(clustered(0, 400, 5, 0.2, effect=1.5))
    assert {row["concept"] for row in found if row["confounder"]} == {"concept_0"}


def test_the_effective_number_of_rows_is_shown():
    found = {icc: associate(clustered(0, 400, 5, icc, effect=1.5)) for icc in (0.0, 0.8)}
    shown = {icc: np.mean([row["effective_rows"] for row in f if row["confounder"]]) for icc, f in found.items()}
    assert shown[0.8] < 0.7 * shown[0.0] < 1.3 * 1000  # of 1,000 rows that confirm
    facts = provenance(found[0.8])
    assert facts["sources"] == 400


def test_rows_that_look_alike_without_a_source_are_warned_of():
    rng = np.random.default_rng(0)
    ds = clustered(0, 100, 5, 0.2).remove_columns("source_id")
    scenes = np.repeat(rng.normal(size=(100, 32)), 5, axis=0) + 0.02 * rng.normal(size=(500, 32))
    alike = columns.with_columns(ds, {"embedding": (scenes.astype(np.float32), columns.vector(32))})
    with pytest.warns(UserWarning, match="100 % of .* look alike.*source_id"):
        associate(alike)


def test_rows_that_do_not_look_alike_are_not_warned_of(recwarn):
    rng = np.random.default_rng(0)
    ds = clustered(0, 500, 1, 0.0).remove_columns("source_id")
    values = rng.normal(size=(500, 32)).astype(np.float32)
    associate(columns.with_columns(ds, {"embedding": (values, columns.vector(32))}))
    assert not [warning for warning in recwarn if "look alike" in str(warning.message)]
