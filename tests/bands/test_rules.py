"""Which column is divided, into how many bands, and what happens at the margins."""

import json
import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given, settings
from hypothesis import strategies as st
from support.banded_rows import dataset, rows

import hf_midrange.bands.fitting as reading
from hf_midrange import columns
from hf_midrange.bands import LogitBands


def of(values, units="embedding", **more):
    values = np.asarray(values, np.float32)
    ds = Dataset.from_dict({"row": list(range(len(values))), **more})
    return columns.with_columns(ds, {units: (values, columns.vector(values.shape[1]))})


def test_embedding_and_any_other_vector_column_are_units_without_labels():
    values = np.random.default_rng(0).normal(size=(90, 4))
    for column in ("embedding", "view_thumbnail"):
        out = LogitBands("quantile", units=column).fit(of(values, column)).transform(of(values, column))
        for k in range(4):
            expected = np.digitize(
                values[:, k].astype(np.float32),
                np.quantile(values[:, k].astype(np.float32).astype(float), [1 / 3, 2 / 3]),
            )
            assert columns.matrix(out, "band")[:, k].tolist() == expected.tolist()
        assert np.isnan(columns.matrix(out, "position")).all()


def test_class_relative_bands_of_a_column_with_a_unit_per_class():
    ds = rows().rename_column("logits", "view_score")
    assert LogitBands(units="view_score").fit(ds).fitted == LogitBands().fit(rows()).fitted


def test_columns_that_hold_no_units_are_refused():
    with pytest.raises(ValueError, match="stand for no class.*'quantile'"):
        LogitBands(units="embedding")
    with pytest.raises(TypeError, match="'row' must hold a vector"):
        LogitBands("quantile", units="row").fit(of([[1.0], [2.0]]))
    with pytest.raises(KeyError, match="'view_x'"):
        LogitBands("quantile", units="view_x").fit(of([[1.0], [2.0]]))
    ragged = Dataset.from_dict(
        {"embedding": [[1.0], [2.0, 3.0]]}, features=Features({"embedding": List(Value("float32"))})
    )
    with pytest.raises(ValueError, match="row 1"):
        LogitBands("quantile", units="embedding").fit(ragged)


@pytest.mark.parametrize("rule", ["class-relative", "quantile", "range", "std"])
def test_three_bands_are_the_default_and_ten_refine_it(rule):
    assert LogitBands(rule, n_bands=3).edges == pytest.approx(LogitBands(rule).edges)
    ten, ds = LogitBands(rule, n_bands=10), rows(n=600)
    assert len(ten.edges) == 9
    assert ten.names == ("low", *(f"mid_{i}" for i in range(1, 9)), "high")
    if rule in ("class-relative", "std"):
        assert ten.edges == pytest.approx(np.linspace(*LogitBands(rule).edges, 9))
    else:
        assert ten.edges == pytest.approx(np.arange(1, 10) / 10)
    band = columns.matrix(ten.fit(ds).transform(ds), "band")
    assert set(band.ravel()) == set(range(10))


def test_quantile_bands_have_equal_shares_and_two_bands_part_in_the_middle():
    ds = rows(n=1000)
    band = columns.matrix(LogitBands("quantile", n_bands=10).fit(ds).transform(ds), "band")
    assert all(np.bincount(band[:, k]).tolist() == [100] * 10 for k in range(3))
    assert [LogitBands(rule, n_bands=2).edges for rule in ("class-relative", "quantile", "range", "std")] == [
        (0.5,), (0.5,), (0.5,), (0.0,)
    ]  # fmt: skip
    assert LogitBands(n_bands=2).names == ("low", "high")


def test_127_bands_are_the_most():
    ds = rows(n=600)
    band = columns.matrix(LogitBands("range", n_bands=127).fit(ds).transform(ds), "band")
    assert band.max() == 126
    assert band.min() == 0
    for bad in (128, 1, 0, -3, True, 2.5):
        with pytest.raises(ValueError, match="from 2 to 127"):
            LogitBands(n_bands=bad)
    with pytest.raises(ValueError, match="at most 127"):
        LogitBands("edges", tuple(range(127)))
    with pytest.raises(ValueError, match="not both"):
        LogitBands(edges=(0.2, 0.8), n_bands=5)
    with pytest.raises(ValueError, match="n_bands"):
        LogitBands("edges", n_bands=4)


def test_ties_share_a_band_and_empty_the_bands_between_equal_cuts():
    ds = of([[0.0]] * 90 + [[1.0]] * 5 + [[-1.0]] * 5)
    fitted = LogitBands("quantile", n_bands=10, units="embedding").fit(ds)
    assert fitted.fitted[0].cuts == (0.0,) * 9
    assert columns.matrix(fitted.transform(ds), "band")[:, 0].tolist() == [9] * 95 + [0] * 5
    spread = LogitBands("range", units="embedding").fit(of([[0.0]] * 399 + [[1.0]]))
    assert spread.fitted[0].band(np.array([-0.1, 0.0, 1.0])).tolist() == [0, 2, 2]
    assert spread.fitted[0].quantile(np.array([0.0])).tolist() == [pytest.approx(399 / 800)]


@pytest.mark.parametrize("rule", ["quantile", "range", "std"])
def test_constant_units_are_named_and_have_no_bands(rule):
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(size=60), np.full(60, 2.0)], axis=1)
    ds = columns.with_columns(of(values), {"view_x": (rng.normal(size=(60, 2)).astype(np.float32), columns.vector(2))})
    with pytest.warns(UserWarning, match=r"no bands for \['unit_1'\].*constant"):
        fitted = LogitBands(rule, units="embedding").fit(ds)
    assert set(columns.matrix(fitted.transform(ds), "band")[:, 1]) == {-1}
    assert set(columns.matrix(fitted.transform(ds), "quantile")[:, 1]) == {0.5}
    with pytest.raises(ValueError, match="no unit can be cut.*constant"):
        LogitBands(rule, units="view_c").fit(ds.rename_column("embedding", "view_d").add_column(
            "view_c", [[1.0]] * 60, feature=columns.vector(1)))  # fmt: skip


def test_constant_units_keep_plain_edges_and_are_unknown_classes():
    ds = dataset([[5.0, 0.0], [5.0, 1.0], [5.0, 2.0], [5.0, 3.0]], [0, 0, 1, 1], ["a", "b"])
    assert LogitBands("edges", (4.0, 6.0)).fit(ds).fitted[0].cuts == (4.0, 6.0)
    with pytest.warns(UserWarning, match=r"\['a'\].*median"):
        assert LogitBands().fit(ds).fitted[0].cuts is None


def test_one_class_is_refused_by_class_relative_only():
    one = dataset([[1.0], [2.0], [3.0]], [0, 0, 0], ["only"])
    with pytest.raises(ValueError, match="all 3 rows are of class 'only'"):
        LogitBands().fit(one)
    with pytest.raises(ValueError, match=r"'b' \(0 rows\)"):
        LogitBands().fit(dataset([[1.0, 0.0], [2.0, 0.0]], [0, 0], ["a", "b"]))
    assert LogitBands("quantile").fit(one).fitted[0].name == "only"


def test_a_class_of_one_row_has_that_row_for_its_typical_member():
    ds = dataset([[0.0, 2.0], [1.0, 3.0], [2.0, 4.0], [7.0, 0.0]], [1, 1, 1, 0], ["rare", "usual"])
    unit = LogitBands().fit(ds).fitted[0]
    assert unit.typical == (1.0, 7.0)
    assert unit.band(np.array([0.9, 1.0, 6.9, 7.0])).tolist() == [0, 1, 1, 2]


def test_a_wide_column_read_in_blocks_gives_the_same_bands(monkeypatch):
    ds = rows(n=700, classes=5, gap=30.0).select(range(650, -1, -1))
    with pytest.warns(UserWarning, match="memorised"):
        whole = LogitBands().fit(ds)
    monkeypatch.setattr(reading, "BLOCK_VALUES", 1400)
    monkeypatch.setattr(reading, "BATCH_VALUES", 1280)
    with pytest.warns(UserWarning, match="memorised"):
        assert LogitBands().fit(ds) == whole
    bad = columns.matrix(ds, "logits").copy()
    bad[600, 3] = np.nan
    with pytest.raises(ValueError, match=r"\[600\]"):
        LogitBands().fit(dataset(bad, ds["label"][:], ds.features["label"].names))


def test_files_of_the_first_release_are_read_and_other_formats_refused(tmp_path):
    fitted = LogitBands(n_bands=5).fit(rows())
    fitted.save_pretrained(tmp_path)
    path = tmp_path / "bands.json"
    saved = json.loads(path.read_text())
    first = {**saved, "fitted": [{**unit, "search": None} for unit in saved["fitted"]], "checksum": "0" * 64}
    path.write_text(json.dumps(first))
    assert LogitBands.from_pretrained(tmp_path) == fitted
    path.write_text(json.dumps({**saved, "format": 3}))
    with pytest.raises(ValueError, match="format 3; this version reads format 2"):
        LogitBands.from_pretrained(tmp_path)
    saved["fitted"][1]["cuts"].reverse()
    path.write_text(json.dumps(saved))
    with pytest.raises(ValueError, match="'c1' has the cuts.*fit the bands again"):
        LogitBands.from_pretrained(tmp_path)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["class-relative", "quantile", "range", "std"]), st.booleans())
def test_bands_do_not_depend_on_the_order_of_rows(seed, rule, ties):
    ds = rows(n=61, seed=seed)
    if ties:
        ds = dataset(np.round(columns.matrix(ds, "logits")), ds["label"][:], ["c0", "c1", "c2"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        shuffled = LogitBands(rule).fit(ds.shuffle(seed=seed))
        assert shuffled == LogitBands(rule).fit(ds)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["class-relative", "quantile", "range", "std"]), st.integers(2, 20))
def test_a_higher_value_is_never_lower_in_band_rank_or_position(seed, rule, n_bands):
    fitted = LogitBands(rule, n_bands=n_bands).fit(rows(n=90, seed=seed))
    values = np.sort(np.random.default_rng(seed).normal(0, 3, 200))
    for unit in fitted.fitted:
        for column in (unit.band(values), unit.quantile(values), unit.position(values)):
            assert not np.any(np.diff(column) < 0)


def test_label_that_is_no_class_label_does_not_hinder_rules_without_labels():
    ds = of([[1.0, 5.0], [2.0, 6.0], [3.0, 7.0]], label=[0, 1, 1])
    assert [unit.name for unit in LogitBands("std", units="embedding").fit(ds).fitted] == ["unit_0", "unit_1"]
    assert isinstance(rows().features["label"], ClassLabel)
