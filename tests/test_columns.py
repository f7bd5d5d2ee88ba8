import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value, load_dataset, load_from_disk
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from hf_midrange import columns


@pytest.fixture
def ds():
    features = Features({"label": ClassLabel(names=["a", "b"])})
    return Dataset.from_dict({"label": [0, 1, 1, 0]}, features=features)


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=8))
def test_presence_gives_back_what_concept_arrow_stored(rows):
    table = np.array(rows)
    stored = columns.concept_arrow(sparse.csr_matrix(table), ["u", "v", "w"])
    base = Dataset.from_dict({"label": list(range(len(rows)))})
    made = columns.with_columns(base, {"concepts_x": (stored, columns.concept_list(["u", "v", "w"]))})
    np.testing.assert_array_equal(columns.presence(made, "concepts_x").toarray(), table)


def test_matrix_follows_the_rows_that_select_and_shuffle_left(ds):
    values = np.arange(12, dtype=np.float32).reshape(4, 3)
    ds = columns.with_columns(ds, {"embedding": (values, columns.vector(3))})
    assert columns.matrix(ds, "embedding").dtype == np.float32
    np.testing.assert_array_equal(columns.matrix(ds.select([2, 0]), "embedding"), values[[2, 0]])
    assert columns.matrix(ds.select([]), "embedding").shape == (0, 3)


def test_with_columns_replaces_and_resolves_indices(ds):
    ds = columns.with_columns(ds, {"weight": (np.ones(4, np.float32), Value("float32"))})
    again = columns.with_columns(ds.select([3, 1]), {"weight": (np.array([5, 6], np.float32), Value("float32"))})
    assert again["weight"][:] == [5, 6]
    assert again["label"][:] == [0, 1]
    with pytest.raises(ValueError, match="3 values for 4 rows"):
        columns.with_columns(ds, {"weight": (np.ones(3), Value("float64"))})


def test_missing_columns_say_which_step_adds_them(ds):
    with pytest.raises(KeyError, match=r"`extract`"):
        columns.require(ds, "logits")
    with pytest.raises(KeyError, match="rename_column"):
        columns.require(ds, "image")


def test_labels_without_names_or_out_of_range_are_refused(ds):
    with pytest.raises(TypeError, match="class_encode_column"):
        columns.labels(ds.cast_column("label", Value("int64")))
    unlabelled = columns.with_columns(ds, {"label": (np.array([0, -1, 1, 0]), ds.features["label"])})
    with pytest.raises(ValueError, match=r"rows: \[1\]"):
        columns.labels(unlabelled)


def test_a_class_without_rows_is_named(ds):
    with pytest.raises(ValueError, match="'c'"):
        columns.require_every_class(np.array([0, 1]), ["a", "b", "c"])


def test_nan_is_refused_by_row(ds):
    values = np.zeros((4, 2), dtype=np.float32)
    values[2, 1] = np.nan
    ds = columns.with_columns(ds, {"logits": (values, columns.vector(2))})
    with pytest.raises(ValueError, match=r"rows: \[2\]"):
        columns.finite_matrix(ds, "logits")


def read_back(ds, how, folder):
    if how == "save_to_disk":
        ds.save_to_disk(folder / "saved")
        return load_from_disk(folder / "saved")
    if how == "parquet":
        ds.to_parquet(folder / "rows.parquet")
        return load_dataset("parquet", data_files=str(folder / "rows.parquet"), split="train", cache_dir=str(folder))
    return ds.cast(Features._from_yaml_list(ds.features._to_yaml_list()))  # what a card of the Hub holds


@pytest.mark.parametrize("how", ["save_to_disk", "parquet", "card"])
def test_facts_go_where_the_column_goes(how, tmp_path):
    kinds = {
        "band": (columns.vector(2, "int8"), [[0, 1]]),
        "concepts_x": (columns.concept_list(["a: b", "c"]), [[1]]),
        "pseudo_group": (ClassLabel(names=["a"]), [0]),
        "number": (Value("int64"), [3]),
    }
    noted = {"bands": ["low", "mid\n", "\u00e9"], "derived": True}
    features = Features({name: columns.with_facts(feature, **noted) for name, (feature, _) in kinds.items()})
    ds = Dataset.from_dict({name: values for name, (_, values) in kinds.items()}, features=features)
    found = read_back(ds, how, tmp_path)
    assert {name: columns.facts(found.features, name) for name in kinds} == dict.fromkeys(kinds, noted)
    assert columns.facts(found.map(lambda row: row, batched=True).select([0]).features, "band") == noted
    assert found[0] == ds[0]


def test_facts_are_added_and_missing_ones_are_none():
    feature = columns.with_facts(columns.with_facts(Value("string"), a=1, b=2), b=3)
    features = Features({"one": feature, "other": Value("string", id="someone's"), "plain": Value("string")})
    assert columns.facts(features, "one") == {"a": 1, "b": 3}
    assert [columns.facts(features, name) for name in ("other", "plain", "absent")] == [{}, {}, {}]


def test_a_column_of_lists_without_rows_is_an_empty_matrix():
    ds = Dataset.from_dict({"v": []}, features=Features({"v": List(Value("float32"))}))
    assert columns.matrix(ds, "v").shape == (0, 0)


@pytest.mark.parametrize("values", [["a", None, "b", "c"], [1.0, float("nan"), 2.0, 3.0]])
def test_a_row_without_a_source_is_named(values):
    with pytest.raises(ValueError, match=r"'source_id' is empty in 1 of 4 rows, first in row 1"):
        columns.source_ids(Dataset.from_dict({"source_id": values}))


def test_sources_are_what_the_column_holds():
    assert columns.source_ids(Dataset.from_dict({"x": [1]})) is None
    assert columns.source_ids(Dataset.from_dict({"source_id": ["b", "a"]})).tolist() == ["b", "a"]
