import json
import warnings

import numpy as np
import pytest
from datasets import DatasetDict, IterableDatasetDict, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from support.banded_rows import dataset, rows

from hf_midrange import columns
from hf_midrange.bands import LogitBands, class_relative_position


def test_class_relative_bands_follow_the_definition():
    ds = rows()
    out = LogitBands().fit(ds).transform(ds)
    values, ids = columns.matrix(ds, "logits").astype(float), columns.labels(ds)
    position, band = columns.matrix(out, "position"), columns.matrix(out, "band")
    for k in range(3):
        m1, m0 = np.median(values[ids == k, k]), np.median(values[ids != k, k])
        expected = (values[:, k] - m0) / (m1 - m0)
        np.testing.assert_allclose(position[:, k], expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(class_relative_position(values[:, k], ids == k), expected)
        assert band[:, k].tolist() == [0 if t < m0 else 1 if t < m1 else 2 for t in values[:, k]]
    assert (out.features["band"].length, out.features["band"].feature.dtype) == (3, "int8")
    assert out.features["position"] == out.features["quantile"] == columns.vector(3)


def test_quantile_is_the_mid_rank_and_ties_share_it():
    ds = dataset([[0.0], [0.0], [1.0], [3.0]], [0, 0, 0, 0], ["a"])
    out = LogitBands("quantile").fit(ds).transform(ds)
    assert columns.matrix(out, "quantile")[:, 0].tolist() == [0.25, 0.25, 0.625, 0.875]


def test_quantile_of_many_rows_is_within_its_bound():
    ds = rows(n=6000)
    out = columns.matrix(LogitBands().fit(ds).transform(ds), "quantile")
    exact = (stats.rankdata(columns.matrix(ds, "logits"), axis=0) - 0.5) / 6000
    assert np.abs(out - exact).max() <= 1 / 512


@pytest.mark.parametrize(
    ("rule", "edges", "cut"),
    [
        ("quantile", (0.25, 0.5), lambda v: np.quantile(v, [0.25, 0.5])),
        ("range", (0.5, 0.9), lambda v: np.interp([0.5, 0.9], [0, 1], np.quantile(v, [0.01, 0.99]))),
        ("std", (-1.0, 0.5), lambda v: v.mean() + np.array([-1.0, 0.5]) * v.std()),
        ("edges", (-0.5, 1.5), lambda v: np.array([-0.5, 1.5])),
    ],
)
def test_other_rules_cut_where_numpy_says(rule, edges, cut):
    ds = rows()
    values = columns.matrix(ds, "logits").astype(float)
    fitted = LogitBands(rule, edges).fit(ds)
    for k, unit in enumerate(fitted.fitted):
        np.testing.assert_allclose(unit.cuts, cut(values[:, k]), rtol=1e-12)
        np.testing.assert_array_equal(unit.band(values[:, k]), np.digitize(values[:, k], unit.cuts))


def test_ten_bands_have_ten_names():
    fitted = LogitBands("quantile", tuple(np.arange(1, 10) / 10)).fit(rows(n=500))
    assert len(fitted.names) == 10
    assert fitted.names[0] == "low"
    assert fitted.names[-1] == "high"
    counts = np.bincount(columns.matrix(fitted.transform(rows(n=500)), "band")[:, 0])
    assert counts.tolist() == [50] * 10


def test_saving_and_loading_gives_equal_bands(tmp_path):
    fitted = LogitBands(edges=(0.1, 0.7)).fit(rows())
    fitted.save_pretrained(tmp_path / "bands")
    assert LogitBands.from_pretrained(tmp_path / "bands") == fitted
    assert json.loads((tmp_path / "bands" / "bands.json").read_text())["rule"] == "class-relative"
    with pytest.raises(FileNotFoundError, match=r"bands\.json"):
        LogitBands.from_pretrained(tmp_path)


def test_transform_of_a_selection_a_dict_and_a_stream_agree():
    ds = rows()
    fitted = LogitBands().fit(ds)
    whole = columns.matrix(fitted.transform(ds), "band")
    picked = fitted.transform(ds.select([7, 3, 200]))
    np.testing.assert_array_equal(columns.matrix(picked, "band"), whole[[7, 3, 200]])
    assert isinstance(fitted.transform(DatasetDict({"a": ds})), DatasetDict)
    streams = fitted.transform(IterableDatasetDict({"a": ds.to_iterable_dataset()}))
    assert isinstance(streams, IterableDatasetDict)
    for splits in (DatasetDict({"a": ds}), streams):
        with pytest.raises(TypeError, match=r"ds\['a'\]"):
            LogitBands().fit(splits)
    stream = fitted.transform(ds.to_iterable_dataset())
    assert stream.features == fitted.transform(ds).features
    np.testing.assert_array_equal([row["band"] for row in stream], whole)
    assert LogitBands().fit(ds.to_iterable_dataset()) == fitted


def test_transform_keeps_other_columns_and_runs_twice():
    ds = rows().add_column("text", [str(i) for i in range(300)])
    fitted = LogitBands().fit(ds)
    twice = fitted.transform(fitted.transform(ds))
    assert twice["text"][:] == ds["text"][:]
    assert twice.column_names.count("band") == 1


def test_a_unit_that_does_not_know_its_class_is_named():
    ds = rows()
    values = columns.matrix(ds, "logits").copy()
    values[:, 1] *= -1
    ds = dataset(values, ds["label"][:], ["c0", "c1", "c2"])
    with pytest.warns(UserWarning, match=r"\['c1'\]"):
        fitted = LogitBands().fit(ds)
    out = fitted.transform(ds)
    assert set(columns.matrix(out, "band")[:, 1]) == {-1}
    assert np.isnan(columns.matrix(out, "position")[:, 1]).all()
    with pytest.raises(ValueError, match="no unit can be cut"):
        LogitBands().fit(dataset(-columns.matrix(rows(), "logits"), ds["label"][:], ["c0", "c1", "c2"]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_refused_by_row(bad):
    values = columns.matrix(rows(), "logits").copy()
    values[17, 2] = bad
    ds = dataset(values, rows()["label"][:], ["c0", "c1", "c2"])
    with pytest.raises(ValueError, match=r"\[17\]"):
        LogitBands().fit(ds)
    with pytest.raises(ValueError, match="row 17"):
        LogitBands().fit(rows()).transform(ds)


def test_bad_input_is_refused():
    ds = rows()
    with pytest.raises(ValueError, match="'missing'"):
        LogitBands().fit(dataset([[1.0, 2.0, 0.0], [2.0, 1.0, 0.0]], [0, 1], ["a", "b", "missing"]))
    with pytest.raises(TypeError, match="ClassLabel"):
        LogitBands().fit(ds.cast_column("label", Value("int64")))
    with pytest.raises(KeyError, match="label"):
        LogitBands().fit(ds.remove_columns("label"))
    with pytest.raises(KeyError, match="extract"):
        LogitBands().fit(ds.remove_columns("logits"))
    with pytest.raises(ValueError, match="no rows"):
        LogitBands().fit(ds.select([]))
    with pytest.raises(ValueError, match="3 units but `label` has 4"):
        LogitBands().fit(dataset(columns.matrix(ds, "logits"), ds["label"][:], list("abcd")))
    with pytest.raises(ValueError, match="not fitted"):
        LogitBands().transform(ds)
    with pytest.raises(ValueError, match="increase"):
        LogitBands(edges=(1.0, 0.0))
    with pytest.raises(ValueError, match="rule must be one of"):
        LogitBands("middle")


def test_memorised_rows_are_warned_about_and_others_not():
    with pytest.warns(UserWarning, match="curate on held-out data"):
        LogitBands().fit(rows(gap=20.0))
    with pytest.warns(UserWarning, match="trained on this split"):
        LogitBands().fit(rows(), training_split=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LogitBands().fit(rows())
        LogitBands().fit(rows(gap=20.0), training_split=False)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 10), st.floats(-5, 5))
def test_positions_do_not_change_with_scale_and_shift(seed, scale, shift):
    rng = np.random.default_rng(seed)
    values, ids = rng.normal(size=60), np.arange(60) % 2
    values[ids == 1] += 2
    np.testing.assert_allclose(
        class_relative_position(values * scale + shift, ids == 1), class_relative_position(values, ids == 1), atol=1e-9
    )
