"""Rule `auto`: the middle chosen from the rows, on the discovery half, only where it is better beyond noise."""

from types import SimpleNamespace

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_midrange import columns
from hf_midrange.bands import LogitBands
from hf_midrange.bands.information import PRIOR_ROWS, Sample, information
from hf_midrange.bands.search import FEWEST_IN_BAND, MOST_ROWS, _chosen, candidates_of
from hf_midrange.split_halves import discovery_half


def simulated(seed=0, n=1600, classes=2, concepts=20, window=None, dense=0):
    """Return rows with independent concepts; concept k is turned over in a window of unit k, within each label."""
    rng = np.random.default_rng(seed)
    ids = np.arange(n) % classes
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), ids] += 2.5
    present = rng.random((n, concepts)) < 0.2
    for k in range(classes if window else 0):
        member = ids == k
        low, high = np.median(logits[~member, k]), np.median(logits[member, k])
        position = (logits[:, k] - low) / (high - low)
        inside = (position >= window[0]) & (position < window[1])
        present[:, k] = rng.random(n) < np.where(inside == member, 0.2, 0.8)
    words = [f"w{i}" for i in range(concepts)]
    added = {"logits": (logits.astype(np.float32), columns.vector(classes))}
    if concepts:
        added["concepts_words"] = (columns.concept_arrow(present, words), columns.concept_list(words))
    if dense:
        added["embedding"] = (rng.normal(size=(n, dense)).astype(np.float32), columns.vector(dense))
    features = Features({"label": ClassLabel(names=[f"c{k}" for k in range(classes)])})
    return columns.with_columns(Dataset.from_dict({"label": ids}, features=features), added)


@pytest.mark.parametrize("window", [(0.25, 0.75), (0.5, 1.25), (-0.5, 0.5)])
def test_a_planted_window_is_found(window):
    ds = simulated(window=window)
    fitted = LogitBands("auto").fit(ds)
    for k, (unit, found) in enumerate(zip(fitted.fitted, fitted.search.values(), strict=True)):
        assert found.edges == window
        assert found.stability > 0.5
        low, high = unit.typical
        assert unit.cuts == pytest.approx([low + edge * (high - low) for edge in window])
        values = columns.matrix(ds, "logits")[:, k].astype(float)
        assert columns.matrix(fitted.transform(ds), "band")[:, k].tolist() == np.digitize(values, unit.cuts).tolist()
    assert fitted.names == ("low", "mid", "high")


def test_without_an_effect_the_default_stays():
    left = 0
    for seed in range(20):
        search = LogitBands("auto").fit(simulated(seed, n=800)).search
        left += sum(found.chosen != found.default for found in search.values())
        assert all(found.candidates[found.default].edges == (0.0, 1.0) for found in search.values())
    assert left <= 4  # of 40; at most one in twenty is expected


def test_where_the_default_is_right_it_stays():
    search = LogitBands("auto").fit(simulated(window=(0.0, 1.0))).search
    assert [(found.edges, found.stability) for found in search.values()] == [((0.0, 1.0), 1.0)] * 2
    assert LogitBands("auto").fit(simulated()).fitted[0].cuts == LogitBands().fit(simulated()).fitted[0].cuts


@pytest.mark.parametrize("n", [1600, 150])
def test_the_whole_curve_comes_back_with_the_default_beside_it(n):
    ds = simulated(n=n, window=(0.25, 0.75))
    found = LogitBands("auto").fit(ds).search["c0"]
    assert [one.edges for one in found.candidates] == candidates_of("class-relative")
    assert len(found.candidates) == 24
    default, chosen = found.candidates[found.default], found.candidates[found.chosen]
    assert default.gain == default.gain_error == 0
    assert chosen.score == max(one.score for one in found.candidates if one.eligible) or chosen is default
    assert chosen.gain == pytest.approx(chosen.score - default.score)
    half = discovery_half(columns.labels(ds), None, 0)
    values, member = columns.matrix(ds, "logits")[half, 0].astype(float), columns.labels(ds)[half] == 0
    low, high = np.median(values[~member]), np.median(values[member])
    for one in found.candidates:
        band = np.digitize(values, [low + edge * (high - low) for edge in one.edges])
        inside, ends = band == 1, min(np.sum(band == 0), np.sum(band == 2))
        assert (one.members, one.others) == (np.sum(inside & member), np.sum(inside & ~member))
        assert one.eligible == (min(one.members, one.others, ends) >= FEWEST_IN_BAND)
    assert (found.rows, found.seed) == (n // 2, 0)


def test_the_score_is_the_fall_in_squared_error_held_out():
    """Against a loop over folds, sides, bands and targets."""
    rng = np.random.default_rng(0)
    n, folds = 120, rng.integers(0, 3, 120)
    residuals, side, cell = rng.normal(size=(n, 70)), rng.integers(0, 2, n), rng.integers(0, 5, n)
    weights = np.vstack([np.ones(n), rng.integers(0, 3, n)])
    pairs = [(0, 1), (0, 3), (2, 3)]
    found = information(Sample(residuals, folds, weights), side, cell, pairs)
    for row, weight in enumerate(weights):
        for column, (i, j) in enumerate(pairs):
            band = np.where(cell <= i, 0, np.where(cell <= j, 1, 2))
            predicted = np.zeros_like(residuals)
            for here in range(3 * 2 * 3):
                fold, of, where = here // 6, here // 3 % 2, here % 3
                rest = (folds != fold) & (side == of) & (band == where)
                mean = weight[rest] @ residuals[rest] / (weight[rest].sum() + PRIOR_ROWS)
                predicted[(folds == fold) & (side == of) & (band == where)] = mean
            fall = weight @ (residuals**2 - (residuals - predicted) ** 2).sum(axis=1)
            assert found[row, column] == pytest.approx(fall / 2 / weight.sum())


def test_a_middle_of_too_few_rows_is_never_taken():
    pairs, counts = [(0.0, 1.0), (0.5, 0.75), (0.25, 0.75)], [(50, 50), (9, 50), (20, 20)]
    scores = np.random.default_rng(0).normal([0.0, 0.5, 0.2], 0.01, size=(101, 3))
    rows = SimpleNamespace(values=np.zeros((200, 1)), seed=0, target="3 concepts")
    for eligible, chosen in (([True, True, True], 1), ([True, False, True], 2), ([True, False, False], 0)):
        found = _chosen(rows, scores, pairs, counts, np.array(eligible), 0)
        assert (found.chosen, found.stability) == (chosen, 1.0)


def test_only_the_discovery_half_is_read():
    ds = simulated(window=(0.25, 0.75))
    half = discovery_half(columns.labels(ds), None, seed=3)
    present = columns.presence(ds, "concepts_words").toarray()
    logits = columns.matrix(ds, "logits").copy()
    present[~half] = ~present[~half]
    logits[~half] += np.random.default_rng(0).normal(size=(int((~half).sum()), 2)).astype(np.float32)
    words = columns.vocabulary(ds.features, "concepts_words")
    changed = columns.with_columns(
        ds,
        {
            "concepts_words": (columns.concept_arrow(present, words), columns.concept_list(words)),
            "logits": (logits, columns.vector(2)),
        },
    )
    assert LogitBands("auto").fit(changed, seed=3).search == LogitBands("auto").fit(ds, seed=3).search
    assert LogitBands("auto").fit(changed, seed=4).search != LogitBands("auto").fit(ds, seed=4).search


def test_rows_of_one_source_stay_in_one_half_and_count_once():
    ds = simulated(n=600, window=(0.25, 0.75))
    twice = ds.select(np.repeat(np.arange(600), 2)).add_column("source_id", np.repeat(np.arange(600), 2))
    found, once = LogitBands("auto").fit(twice).search["c0"], LogitBands("auto").fit(ds).search["c0"]
    assert found.rows == 2 * once.rows
    gains = [(one.gain_error, other.gain_error) for one, other in zip(found.candidates, once.candidates, strict=True)]
    ratio = np.median([one / other for one, other in gains if other])
    assert 1.0 < ratio < 1.6  # 0.8 where copies are taken for new rows


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1000))
def test_the_same_seed_gives_the_same_bands_and_they_survive_saving(tmp_path_factory, seed):
    ds = simulated(n=300, window=(0.25, 0.75))
    fitted = LogitBands("auto").fit(ds, seed=seed)
    assert fitted == LogitBands("auto").fit(ds, seed=seed)
    folder = tmp_path_factory.mktemp("bands")
    fitted.save_pretrained(folder)
    assert LogitBands.from_pretrained(folder) == fitted


def test_hidden_units_are_searched_among_quantile_middles():
    ds = simulated(classes=2, dense=3)
    values = columns.matrix(ds, "embedding")[:, 0]
    inside = (values >= np.quantile(values, 0.45)) & (values < np.quantile(values, 0.55))
    view = (inside[:, None] * 3 + np.random.default_rng(1).normal(size=(len(ds), 2))).astype(np.float32)
    ds = columns.with_columns(ds.remove_columns("concepts_words"), {"view_thumbnail": (view, columns.vector(2))})
    for rows in (ds, ds.remove_columns("label")):
        search = LogitBands("auto", units="embedding").fit(rows).search
        assert [found.edges for found in search.values()] == [(0.45, 0.55), (1 / 3, 2 / 3), (1 / 3, 2 / 3)]
        assert search["unit_0"].target == "2 columns of ['view_thumbnail']"
        assert search["unit_0"].candidates[0].members == 0


def test_what_is_looked_for_is_the_first_at_hand():
    ds = simulated(n=200, dense=4)
    clusters = columns.concept_arrow(np.arange(200)[:, None] % 3 == np.arange(3), list("abc"))
    latent = columns.with_columns(ds, {"concepts_latent": (clusters, columns.concept_list(list("abc")))})
    assert LogitBands("auto").fit(latent).search["c0"].target == "20 concepts"
    bare = latent.remove_columns("concepts_words")
    assert LogitBands("auto").fit(bare).search["c0"].target == "4 columns of ['embedding']"
    hidden = LogitBands("auto", units="embedding").fit(bare)
    assert hidden.search["unit_0"].target == "2 columns of ['logits']"
    with pytest.raises(ValueError, match="`annotate` adds concepts"):
        LogitBands("auto").fit(simulated(n=200, concepts=0))


def test_too_few_members_leave_the_default_unsearched():
    ds = simulated(n=400, classes=2)
    few = ds.select([i for i in range(400) if i % 2 or i < 30])
    fitted = LogitBands("auto").fit(few)
    assert fitted.search == {}
    assert [unit.cuts for unit in fitted.fitted] == [unit.cuts for unit in LogitBands().fit(few).fitted]


def test_the_rows_searched_are_bounded():
    ds = simulated(n=2 * MOST_ROWS + 1000, concepts=3)
    assert LogitBands("auto").fit(ds).search["c1"].rows == MOST_ROWS


def test_auto_refuses_what_it_cannot_use(tmp_path):
    with pytest.raises(ValueError, match="chooses the edges"):
        LogitBands("auto", (0.0, 1.0))
    with pytest.raises(ValueError, match="labels or concepts"):
        LogitBands("auto").fit(tmp_path)
