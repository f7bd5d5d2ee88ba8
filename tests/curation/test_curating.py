import json
import subprocess
import sys

import numpy as np
import pytest
from datasets import (
    Dataset,
    DatasetDict,
    Features,
    List,
    Value,
    concatenate_datasets,
    load_dataset,
    load_from_disk,
)
from support.tied_rows import WIDTH, simulate

from hf_midrange import columns, curate, curation_report
from hf_midrange.curation import STRATEGIES, Inputs, Selection, by_label_and_part


def findings_of(*names):
    return Dataset.from_dict(
        {
            "source": ["side"] * len(names),
            "concept": list(names),
            "confirmed": [True] * len(names),
            "confounder": [True] * len(names),
        }
    )


@pytest.fixture(scope="module")
def curated(tied):
    return curate(tied)


@pytest.mark.parametrize("strategy", list(STRATEGIES))
def test_every_strategy_writes_the_columns_and_a_report(tied, strategy):
    result = curate(tied, findings_of("word 0", "word 1"), strategy=strategy)
    weight, keep = np.array(result["weight"]), np.array(result["keep"])
    assert result.column_names[: len(tied.column_names)] == tied.column_names
    assert result.features["weight"] == Value("float32")
    assert weight.min() >= 0
    assert weight.mean() == pytest.approx(1, abs=1e-5)
    assert 0 < keep.sum() <= len(tied)
    labels = np.array(tied["label"])
    assert all(keep[labels == k].any() and weight[labels == k].sum() > 0 for k in range(2))
    report = curation_report(result)
    assert report["strategy"] == strategy
    assert sum(cell["rows"] for cell in report["cells"]) == (weight > 0).sum()
    assert report["worst_before"] == min(cell["before"]["accuracy"] for cell in report["cells"])


def test_a_function_of_the_users_own_is_a_strategy(tied):
    def by_parity(inputs: Inputs) -> Selection:
        parts = np.arange(len(inputs.labels)) // 2 % 2
        return by_label_and_part(inputs.labels, parts, inputs.classes, ["even", "odd"], ["parity"] * len(parts))

    result = curate(tied, strategy=by_parity)
    assert result.features["pseudo_group"].names == ["class 0, even", "class 0, odd", "class 1, even", "class 1, odd"]
    report = curation_report(result)
    assert report["strategy"] == "by_parity"
    assert [cell["rows"] for cell in report["cells"]] == [100] * 4


def test_there_is_no_argument_that_nobody_reads(tied):
    with pytest.raises(TypeError, match="model"):
        curate(tied, model="view")


def test_curating_loads_no_torch(tied, tmp_path):
    tied.save_to_disk(tmp_path / "rows")
    code = (
        "import sys, datasets, hf_midrange as hm\n"
        f"ds = datasets.load_from_disk({str(tmp_path / 'rows')!r})\n"
        "hm.curation_report(hm.curate(ds))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("classes", [2, 5])
def test_the_default_finds_the_rows_that_break_the_tie(classes):
    ds = simulate(rows=400 * classes, classes=classes)
    result = curate(ds)
    contrary = np.array(["like" in result.features["pseudo_group"].names[cell] for cell in result["pseudo_group"]])
    truth = np.array(ds["label"]) != np.array(ds["group"])
    assert contrary[truth].mean() > 0.8
    assert truth[contrary].mean() > 0.8
    assert curation_report(result)["verdict"] == "shown"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("view", [True, False])
def test_untied_data_have_nothing_to_repair(view, seed):
    ds = simulate(contrary=0.5, seed=seed, view=view, strength=0.0)
    curated = curate(ds)
    # Without a view the rows low in the embedding may raise a suspicion; they are never repaired.
    assert curation_report(curated)["verdict"] in (["none seen"] if view else ["none seen", "suspected"])
    assert all(curated["keep"])
    assert set(curated["weight"]) == {1.0}


def test_without_a_view_a_strong_tie_is_suspected():
    report = curation_report(curate(simulate(rows=800, view=False)))
    assert report["view"] == "embedding"
    assert report["verdict"] == "suspected"


def test_features_that_lack_the_class_are_said_so():
    rng = np.random.default_rng(0)
    ds = simulate(rows=800)
    embedding = columns.matrix(ds, "embedding").copy()
    embedding[:, :2] = rng.normal(size=(800, 2))
    embedding[:, 4:] = 0
    logits = (embedding[:, 2:4]).astype(np.float32)
    ds = columns.with_columns(
        ds, {"embedding": (embedding, columns.vector(WIDTH)), "logits": (logits, columns.vector(2))}
    )
    assert curation_report(curate(ds))["verdict"] == "cannot be carried"


def test_the_report_names_the_entries_that_carry_the_tie(curated):
    (view,) = curation_report(curated)["views"]
    assert {view["carriers"][0]["name"], view["carriers"][1]["name"]} == {"word 0", "word 1"}
    assert view["auc"] > 0.85


def test_concept_columns_stand_in_for_views(tied):
    report = curation_report(curate(tied.remove_columns("view_side")))
    assert report["view"] == "concepts_side"
    assert report["verdict"] == "shown"


def test_reasons_are_readable(curated):
    low = next(reason for reason in curated["reason"] if "looks like" in reason)
    assert low.startswith("labelled class ")
    assert "but without what usually goes with it by side" in low
    assert "weighs " in low
    assert "*" not in low


def test_confounders_lists_the_confirmed_concepts_of_a_row(tied):
    result = curate(tied, findings_of("word 1"))
    has = columns.presence(result, "confounders").toarray()[:, 0]
    assert columns.vocabulary(result.features, "confounders") == ["word 1"]
    np.testing.assert_array_equal(has, columns.presence(tied, "concepts_side").toarray()[:, 1])


def test_a_notebook_shows_the_report_as_a_table(curated):
    report = curation_report(curated)
    page = report._repr_html_()
    assert page.count("<tr>") == 1 + len(report["cells"])
    assert report["verdict"] in page
    report["cells"][0]["name"] = "<script>"
    assert "<script>" not in report._repr_html_()


def test_concepts_of_one_name_from_two_sources_are_one(tied):
    twin = columns.with_columns(
        tied, {"concepts_twin": (tied.with_format("arrow")["concepts_side"][:], tied.features["concepts_side"])}
    )
    both = findings_of("word 1", "word 1")
    both = both.remove_columns("source").add_column("source", ["side", "twin"])
    result = curate(twin, both)
    assert columns.vocabulary(result.features, "confounders") == ["word 1"]
    has = columns.presence(result, "confounders").toarray()[:, 0]
    np.testing.assert_array_equal(has, columns.presence(tied, "concepts_side").toarray()[:, 1])


def test_the_report_travels(curated, tmp_path):
    report = curation_report(curated)
    some = curated.shuffle(seed=0).select(range(9)).filter(lambda row: row["label"] == 0)
    assert curation_report(some) == {**report, "rows_here": len(some)}
    curated.save_to_disk(tmp_path / "disk")
    assert curation_report(load_from_disk(tmp_path / "disk")) == report
    curated.to_parquet(tmp_path / "one.parquet")
    loaded = load_dataset("parquet", data_files=str(tmp_path / "one.parquet"), split="train", cache_dir=str(tmp_path))
    assert curation_report(loaded) == report
    yaml = Features._from_yaml_list(json.loads(json.dumps(curated.features._to_yaml_list())))
    assert json.loads(yaml["reason"].id) == report


def test_a_dataset_dict_comes_back_as_one(tied):
    splits = curate(DatasetDict({"a": tied, "b": tied}), strategy="class-balanced")
    assert set(curation_report(splits)) == {"a", "b"}


def test_same_seed_same_result(tied):
    first, second = curate(tied, seed=3), curate(tied, seed=3)
    assert first["keep"][:] == second["keep"][:]
    assert first["weight"][:] == second["weight"][:]


def test_only_group_reads_the_true_groups(tied):
    with_groups, without = curate(tied), curate(tied.remove_columns("group"))
    assert with_groups["weight"][:] == without["weight"][:]
    with pytest.raises(KeyError, match="group"):
        curate(tied.remove_columns("group"), strategy="group")


def test_bad_input_is_refused(tied):
    with pytest.raises(ValueError, match="'auto', 'view'"):
        curate(tied, strategy="magic")
    with pytest.raises(KeyError, match="extract"):
        curate(tied.remove_columns("embedding"))
    with pytest.raises(ValueError, match="class 1.*4 rows"):
        curate(concatenate_datasets([tied.filter(lambda r: r["label"] == 0), tied.select([1, 3, 5, 7])]))
    broken = columns.matrix(tied, "embedding").copy()
    broken[7, 0] = np.nan
    with pytest.raises(ValueError, match=r"NaN.*\[7\]"):
        curate(columns.with_columns(tied, {"embedding": (broken, columns.vector(WIDTH))}))
    wide = np.zeros((len(tied), 3), np.float32)
    with pytest.raises(ValueError, match="3 values per row"):
        curate(columns.with_columns(tied, {"logits": (wide, List(Value("float32"), length=3))}))
    with pytest.raises(ValueError, match="no report"):
        curation_report(columns.with_columns(tied, {"reason": (["x"] * len(tied), Value("string"))}))
    with pytest.raises(ValueError, match="associate"):
        curate(tied, strategy="concepts")
    with pytest.raises(ValueError, match="annotate"):
        curate(simulate(view=False), strategy="view")
