"""A gate: what passes, what fails and is named, what cannot be told; figures against statsmodels."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest
from datasets import ClassLabel
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportions_ztest
from support.checked_rows import rows

import hf_midrange as hm
from hf_midrange.checking.baseline import Baseline
from hf_midrange.checking.gate import fallen, holm
from hf_midrange.commands.app import main


def judged(outcome):
    return {judgement.name: judgement for judgement in outcome.judgements}


@pytest.fixture(scope="module")
def clean():
    return Baseline.of(rows(seed=1000))


def test_the_same_model_on_fresh_rows_passes(clean):
    outcome = hm.check(None, rows(seed=1), baseline=clean)
    assert outcome.status == "pass"
    assert outcome.exit_status == 0
    assert list(judged(outcome)) == ["worst group", "shortcuts", "drift"]


def test_a_new_shortcut_fails_and_is_named(clean):
    outcome = hm.check(None, rows(seed=1, lean=1.0), baseline=clean)
    assert outcome.exit_status == 1
    assert judged(outcome)["shortcuts"].status == "fail"
    assert "tags: concept 0 for dog" in judged(outcome)["shortcuts"].message


def test_a_shortcut_that_the_baseline_has_too_passes():
    before = Baseline.of(rows(seed=1000, tie=0.7, lean=0.8))
    assert judged(hm.check(None, rows(seed=2, tie=0.7, lean=0.8), baseline=before))["shortcuts"].status == "pass"


def test_a_worse_group_fails_and_is_named(clean):
    worse = judged(hm.check(None, rows(seed=1, shift=1.0), baseline=clean))["worst group"]
    assert worse.status == "fail"
    assert worse.message.startswith("cat ")


def test_logits_that_drift_fail_although_all_answers_stay(clean):
    drifted = rows(seed=1).map(lambda row: {"logits": [1.5 * z for z in row["logits"]]})
    found = judged(hm.check(None, drifted, baseline=clean))
    assert found["drift"].status == "fail"
    assert found["worst group"].status == "pass"


def test_a_floor_is_held_under_groups_and_under_rows_that_break_a_cue():
    ds = rows(seed=1, tie=0.9, lean=1.5, core=1.0)
    found = judged(hm.check(None, ds, floor=0.7))
    assert found["worst group"].status == "pass"
    assert found["shortcuts"].status == "fail"
    assert judged(hm.check(None, ds, floor=0.99))["worst group"].status == "fail"


def test_known_groups_are_judged_in_place_of_classes(clean):
    ds = rows(seed=1, lean=1.5, core=0.5, tie=0.9)
    has = np.array([0 in found for found in ds["concepts_tags"]])
    groups = 2 * np.array(ds["label"]) + has
    names = ClassLabel(names=["cat, without", "cat, with", "dog, without", "dog, with"])
    ds = ds.add_column("group", groups.tolist()).cast_column("group", names)
    found = judged(hm.check(None, ds, floor=0.6))["worst group"]
    assert found.status == "fail"
    assert "cat, with " in found.message
    assert found.details[0].keys() >= {"group", "accuracy", "rows", "p_value", "p_adjusted"}


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda ds: ds.select([]),
        lambda ds: ds.select(range(5)),
        lambda ds: ds.map(lambda row: {"logits": [float("nan")] * 2}),
        lambda ds: ds.filter(lambda row: row["label"] == 0),
    ],
    ids=["no rows", "five rows", "nan", "one class"],
)
def test_what_cannot_be_told_is_not_a_pass(clean, spoilt):
    outcome = hm.check(None, spoilt(rows(seed=1)), baseline=clean)
    assert outcome.exit_status == 3


def test_other_classes_fail(clean):
    outcome = hm.check(None, rows(seed=1, names=("dog", "cat")), baseline=clean)
    assert judged(outcome)["classes"].status == "fail"


def test_nothing_to_compare_with_is_refused():
    with pytest.raises(ValueError, match="floor"):
        hm.check(None, rows(20))
    with pytest.raises(ValueError, match="between 0 and 1"):
        hm.check(None, rows(20), floor=80)


def test_a_fall_is_the_score_test_of_two_proportions():
    rng = np.random.default_rng(0)
    for _ in range(20):
        rows_, before = rng.integers(20, 500, 2)
        right, was = rng.integers(1, rows_), rng.integers(1, before)
        theirs = proportions_ztest([right, was], [rows_, before], alternative="smaller")[1]
        assert fallen(right, rows_, was, before) == pytest.approx(theirs, abs=1e-9)


def test_holm_is_that_of_statsmodels():
    rng = np.random.default_rng(0)
    for size in (1, 2, 30):
        p = rng.random(size) ** 3
        np.testing.assert_allclose(holm(p), multipletests(p, method="holm")[1], atol=1e-12)


def test_what_is_written_says_the_same_and_is_the_same_bytes(clean):
    ds = rows(seed=1, lean=1.0, names=("cat", "dog"))
    outcome, again = (hm.check(None, ds, baseline=clean) for _ in range(2))
    assert outcome.to_json() == again.to_json()
    told = json.loads(outcome.to_json())
    assert told["schema_version"] == 1
    assert told["status"] == "fail"
    suite = ElementTree.fromstring(outcome.to_junit())
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "2", "0")
    assert outcome.to_markdown().count("\n") == 7


def test_names_from_data_are_shown_literally():
    names = ("a|b](http://x)\n# c\x1b[31m", "<script>")
    outcome = hm.check(None, rows(seed=1, names=names, shift=1.0), baseline=Baseline.of(rows(seed=2, names=names)))
    table = outcome.to_markdown()
    assert "<script>" not in table
    assert len(table.splitlines()) == 7
    assert "\x1b" not in str(outcome) + outcome.to_junit()
    ElementTree.fromstring(outcome.to_junit())


def test_a_baseline_is_a_small_file(clean, tmp_path):
    clean.save_pretrained(tmp_path)
    assert Baseline.from_pretrained(tmp_path) == clean
    assert (tmp_path / "midrange_baseline.json").stat().st_size < 50_000


def ended(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def test_the_command_exits_as_it_says(tmp_path, capsys):
    from support.classifiers import images
    from transformers import ResNetConfig, ResNetForImageClassification, ViTImageProcessor

    names = {"id2label": {0: "a", 1: "b", 2: "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    model = ResNetForImageClassification(
        ResNetConfig(hidden_sizes=[8, 8], depths=[1, 1], embedding_size=8, layer_type="basic", **names)
    )
    for part in (model, ViTImageProcessor(size={"height": 32, "width": 32})):
        part.save_pretrained(tmp_path / "model")
    ds = images(90).cast_column("label", ClassLabel(names=["a", "b", "c"]))
    ds.save_to_disk(tmp_path / "rows")
    given = ("check", tmp_path / "model", tmp_path / "rows")
    assert ended(*given) == 2
    assert ended(*given, "--floor", "0.99") == 1
    assert ended(*given, "--baseline", tmp_path / "nothing-here") == 2
    kept = (
        "--save-baseline",
        tmp_path / "kept",
        "--junit",
        tmp_path / "junit.xml",
        "--markdown",
        tmp_path / "told.md",
    )
    assert ended(*given, "--baseline", tmp_path / "model", *kept) == 0
    assert (tmp_path / "junit.xml").is_file()
    assert (tmp_path / "told.md").is_file()
    capsys.readouterr()
    assert ended(*given, "--baseline", tmp_path / "kept", "--json") == 0
    assert json.loads(capsys.readouterr().out)["status"] == "pass"


@pytest.mark.slow
def test_forty_draws_of_the_same_model_and_of_a_planted_tie(clean):
    draws = range(40)
    same = [hm.check(None, rows(seed=seed), baseline=clean).status for seed in draws]
    leaning = Baseline.of(rows(seed=1000, tie=0.5, lean=0.8))
    same_leaning = [hm.check(None, rows(seed=seed, tie=0.5, lean=0.8), baseline=leaning).status for seed in draws]
    assert same.count("fail") <= 4
    assert same_leaning.count("fail") <= 4
    tied = [judged(hm.check(None, rows(seed=seed, lean=1.0), baseline=clean))["shortcuts"] for seed in draws]
    assert sum(one.status == "fail" and "concept 0" in one.message for one in tied) >= 38


@pytest.mark.slow
def test_a_drift_of_ten_points_is_seen():
    before = Baseline.of(rows(2000, seed=1000))
    shift = 0.42  # moves about ten of a hundred members and strangers over an edge of a band
    seen = [judged(hm.check(None, rows(2000, seed=seed, shift=shift), baseline=before))["drift"] for seed in range(20)]
    assert np.mean([one.status == "fail" for one in seen]) >= 0.9
