"""Latent concepts: planted clusters are found, named by what is over-represented in them, and frozen."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value
from scipy import stats

from hf_midrange import columns
from hf_midrange.concepts import Annotations, LatentConcepts, annotate
from hf_midrange.concepts.latent import _z, in_the_middle, stable_number
from hf_midrange.io.blocks import discovery_half


@pytest.fixture(scope="module")
def planted():
    """Four blobs; blob 2 is where it is night. The last channel is near dead, but not on row 0."""
    rng = np.random.default_rng(0)
    n = 600
    blob = rng.integers(0, 4, n)
    embedding = (np.eye(4)[blob] * 6 + rng.normal(size=(n, 4))).astype(np.float32)
    embedding = np.hstack([embedding, np.zeros((n, 1), np.float32)])
    night = np.where(blob == 2, rng.random(n) < 0.9, rng.random(n) < 0.1)
    features = Features(
        {
            "embedding": List(Value("float32"), length=5),
            "band": List(Value("int8"), length=2),
            "label": ClassLabel(names=["a", "b"]),
            "night": Value("bool"),
            "blob": Value("int64"),
        }
    )
    rows = {"embedding": embedding, "band": rng.integers(0, 3, (n, 2)).astype(np.int8), "label": rng.integers(0, 2, n)}
    return Dataset.from_dict({**rows, "night": night, "blob": blob}, features=features)


def test_planted_clusters_are_found_and_named(planted):
    out = annotate(planted, [LatentConcepts(), Annotations(["night"])])
    names = columns.vocabulary(out.features, "concepts_latent")
    found = columns.presence(out, "concepts_latent").toarray()
    assert (found.sum(axis=1) == 1).all()
    assert len(names) == 4
    assert [name.endswith("(night)") for name in names].count(True) == 1
    night = next(j for j, name in enumerate(names) if name.endswith("(night)"))
    blob = np.asarray(planted["blob"])
    assert (blob[found[:, night]] == 2).all()
    for j in range(4):
        assert len(np.unique(blob[found[:, j]])) == 1


def test_only_mid_rows_of_the_discovery_half_are_clustered(planted):
    fitted = LatentConcepts(k=4, seed=3).fit(planted)
    half = discovery_half(columns.labels(planted), None, 3)
    mid = (columns.matrix(planted, "band") == 1).any(axis=1)
    standardised = columns.matrix(planted, "embedding").copy()
    standardised[~half] += 100.0  # neither scaled by nor clustered
    band = np.where((half & mid)[:, None], 1, 0).astype(np.int8) * np.ones((1, 2), dtype=np.int8)
    moved = {"embedding": (standardised, planted.features["embedding"]), "band": (band, planted.features["band"])}
    again = LatentConcepts(k=4, seed=3).fit(columns.with_columns(planted, moved))
    assert again.centres == fitted.centres


def test_what_is_fitted_is_frozen_saved_and_independent_of_batches(planted, tmp_path):
    fitted = LatentConcepts().fit(planted)
    fitted.save(tmp_path / "latent.json")
    loaded = LatentConcepts.load(tmp_path / "latent.json")
    assert loaded == fitted
    whole = annotate(planted, [fitted])["concepts_latent"][:]
    order = np.random.default_rng(0).permutation(len(planted))
    assert annotate(planted.select(order), [loaded], batch_size=7)["concepts_latent"][:] == [whole[i] for i in order]
    assert [row["concepts_latent"] for row in annotate(planted.to_iterable_dataset(), [loaded])] == whole


def test_a_dead_channel_that_wakes_up_moves_no_row(planted):
    fitted = LatentConcepts(k=4).fit(planted)
    awake = columns.matrix(planted, "embedding").copy()
    awake[:, 4] = 1e5
    changed = columns.with_columns(planted, {"embedding": (awake, planted.features["embedding"])})
    assert annotate(changed, [fitted])["concepts_latent"][:] == annotate(planted, [fitted])["concepts_latent"][:]


def test_over_representation_is_the_mantel_haenszel_statistic():
    from scipy import sparse
    from statsmodels.stats.contingency_tables import StratifiedTable

    rng = np.random.default_rng(1)
    labels, inside = rng.integers(0, 3, 300), rng.random(300) < 0.3
    concept = rng.random(300) < 0.2 + 0.3 * inside
    tables = [
        [[(inside & concept & rows).sum(), (inside & ~concept & rows).sum()],
         [(~inside & concept & rows).sum(), (~inside & ~concept & rows).sum()]]
        for rows in (labels == k for k in range(3))
    ]  # fmt: skip
    expected = StratifiedTable(tables).test_null_odds(correction=False)
    z = _z(sparse.csr_matrix(concept[:, None]), inside, labels)[0]
    assert z**2 == pytest.approx(expected.statistic)
    assert 2 * stats.norm.sf(z) == pytest.approx(expected.pvalue)


def test_nothing_is_named_when_nothing_is_over_represented(planted):
    rng = np.random.default_rng(5)
    noise = planted.add_column("coin", rng.random(len(planted)) < 0.5)
    out = annotate(noise, [Annotations(["coin"]), LatentConcepts(k=4)])
    assert columns.vocabulary(out.features, "concepts_latent") == [f"cluster {j}" for j in range(1, 5)]


def test_the_number_of_clusters_follows_the_data():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(8, 6)) * 12
    points = centres[rng.integers(0, 8, 800)] + rng.normal(size=(800, 6))
    assert stable_number(points, rng) == 8


def test_splits_that_are_only_read_need_no_bands(planted):
    splits = DatasetDict(curation=planted.select(range(400)), test=planted.select(range(400, 600)))
    splits["test"] = splits["test"].select_columns(["embedding", "blob"])
    out = annotate(splits, [LatentConcepts(k=4)], fit_split="curation")
    fitted = LatentConcepts(k=4).fit(splits["curation"])
    assert out["test"]["concepts_latent"][:] == annotate(splits["test"], [fitted])["concepts_latent"][:]


def test_what_is_missing_is_named(planted):
    with pytest.raises(KeyError, match=r"'band'.*LogitBands"):
        annotate(planted.remove_columns("band"), [LatentConcepts()])
    with pytest.raises(KeyError, match=r"'embedding'.*extract"):
        annotate(planted.remove_columns("embedding"), [LatentConcepts()])
    with pytest.raises(ValueError, match="mid-band rows"):
        annotate(planted.select(range(10)), [LatentConcepts()])
    alike = np.ones((len(planted), 5), dtype=np.float32)
    with pytest.raises(ValueError, match="1 different embeddings"):
        annotate(
            columns.with_columns(planted, {"embedding": (alike, planted.features["embedding"])}), [LatentConcepts()]
        )
    with pytest.raises(ValueError, match="from 2 to 1000 clusters, or 'auto', but is 1"):
        LatentConcepts(k=1)
    with pytest.raises(ValueError, match="must be called 'latent'"):
        LatentConcepts(name="clusters")


def in_bands(ds, count):
    """Return the rows with bands 0 to `count - 1` at random, as `LogitBands` writes them."""
    band = np.random.default_rng(0).integers(0, count, (len(ds), 2)).astype(np.int8)
    feature = columns.with_facts(columns.vector(2, "int8"), bands=[f"band {k}" for k in range(count)])
    return columns.with_columns(ds, {"band": (band, feature)})


def test_the_middle_is_every_band_but_the_lowest_and_the_highest(planted):
    ds = in_bands(planted, 10)
    band = columns.matrix(ds, "band")
    np.testing.assert_array_equal(in_the_middle(ds), ((band > 0) & (band < 9)).any(axis=1))
    few = ds.select(np.flatnonzero(np.isin(band, (0, 8, 9)).all(axis=1)))  # none of them is in band 1
    assert len(LatentConcepts(k=2).fit(few).centres) == 2


def test_two_bands_have_no_middle(planted):
    with pytest.raises(ValueError, match=r"only the bands \['band 0', 'band 1'\]; fit LogitBands with 3 bands"):
        annotate(in_bands(planted, 2), [LatentConcepts(k=2)])


def test_clusters_are_marked_as_derived(planted, tmp_path):
    out = annotate(planted, [LatentConcepts(k=4), Annotations(["night"])])
    out.save_to_disk(tmp_path)
    kept = Dataset.load_from_disk(tmp_path)
    assert columns.facts(kept.features, "concepts_latent") == {"derived": True}
    assert columns.facts(kept.features, "concepts_annotations") == {}
