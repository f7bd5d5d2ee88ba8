"""`hm.debias`: the whole way in one call, and what it refuses before the model runs."""

import json
from dataclasses import replace

import pytest
import torch
from datasets import DatasetDict, Value, load_from_disk
from support.trainer_parts import CLASSES, pictures, processor, resnet
from support.training_rows import arguments, assert_same, weights_of
from transformers import AutoModelForImageClassification

import hf_midrange as hm


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small network that has learnt the tie."""
    args = arguments(tmp_path_factory.mktemp("out"), max_steps=40, per_device_train_batch_size=32, learning_rate=3e-3)
    trainer = hm.MidRangeTrainer(resnet(), args, train_dataset=pictures(600, 0.95), processing_class=processor())
    trainer.train()
    return trainer.model


@pytest.fixture(scope="module")
def outcome(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("debiased")
    rows, test = pictures(240, 0.95, seed=5), pictures(200, 0.5, seed=6)
    before = weights_of(model)
    found = hm.debias(rows, model, test, [hm.Thumbnail()], folder, processor=processor())
    assert_same(weights_of(model), before)  # the model given is left as it is
    return found, folder, rows, test


def test_it_gives_what_the_trainer_gives(outcome, model, tmp_path):
    found, _, rows, test = outcome
    copy = resnet()
    copy.load_state_dict(model.state_dict())
    args = arguments(tmp_path, curation_seed=0)
    trainer = hm.MidRangeTrainer(copy, args, curation_dataset=rows, eval_dataset=test, processing_class=processor())
    report = trainer.debias(sources=[hm.Thumbnail()])
    torch.testing.assert_close(found.head.weight, report.head.weight, atol=1e-5, rtol=1e-4)
    assert_same(weights_of(found.model), weights_of(trainer.model), atol=1e-5)
    for scores, theirs in ((found.before, report.before), (found.after, report.after)):
        assert scores == pytest.approx({name: theirs[name] for name in scores})
        assert "worst_group_accuracy" in scores


def test_everything_is_written_and_loads(outcome):
    found, folder, rows, _ = outcome
    loaded = AutoModelForImageClassification.from_pretrained(folder / "model")
    assert_same(weights_of(loaded), weights_of(found.model))
    assert len(load_from_disk(folder / "curated")) == len(rows)
    assert hm.LinearHead.from_pretrained(folder / "head").weight.tolist() == found.head.weight.tolist()
    assert hm.LogitBands.from_pretrained(folder / "bands").names == found.bands.names
    assert found.verdict in json.loads((folder / "debias_report.json").read_text())["verdict"]
    assert "<html" in (folder / "report.html").read_text()
    assert (folder / "model" / "preprocessor_config.json").is_file()


def test_one_sentence_is_printed_and_a_second_call_reads_what_is_there(outcome, model, capsys, monkeypatch):
    found, folder, rows, test = outcome
    monkeypatch.setattr("hf_midrange.pipeline.curate", None)  # would fail if it were called
    again = hm.debias(rows, model, test, [hm.Thumbnail()], folder, processor=processor())
    said = capsys.readouterr().out
    assert said == found.sentence + "\n"
    assert said.startswith("shown: ")
    assert "worst group 0." in said
    assert again.head.weight.tolist() == found.head.weight.tolist()


def test_without_a_tie_the_model_comes_back_and_none_is_written(model, tmp_path):
    rows = pictures(240, 0.5, seed=5).remove_columns("group").rename_columns({"image": "img", "label": "target"})
    found = hm.debias(DatasetDict(held_out=rows), model, rows, [hm.ImageProperties()], tmp_path, processor=processor())
    assert found.verdict in ("none seen", "suspected")
    assert found.model is model
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "head").is_dir()
    assert found.before == found.after
    assert "worst_class_accuracy" in found.before


def test_a_head_that_is_worse_on_the_evaluation_rows_is_not_written_as_a_model(outcome, tmp_path):
    found = outcome[0]
    worse = replace(found, before={"worst_group_accuracy": 0.8}, after={"worst_group_accuracy": 0.4})
    assert worse.is_changed
    assert not worse.is_better
    worse.write(tmp_path)
    assert not (tmp_path / "model").exists()
    assert worse.sentence.endswith("worst group 0.800 before, 0.400 after")


def test_labels_as_text_are_the_models_or_are_refused_before_it_runs(model, monkeypatch):
    rows = pictures(60, 0.95, seed=5)
    named = rows.cast_column("label", Value("string"))
    texts = [CLASSES[k] for k in rows["label"]]
    named = named.remove_columns("label").add_column("label", texts)
    other = named.remove_columns("label").add_column("label", ["cat", "dog"] * 30)
    found = hm.debias(named, model, sources=[hm.Thumbnail()], processor=processor())
    assert found.curated["label"][:] == rows["label"][:]

    def runs(*_, **__):
        raise AssertionError("the model ran")

    monkeypatch.setattr(type(model), "forward", runs)
    for call in (lambda: hm.debias(other, model), lambda: hm.debias(rows, model, evaluation=other)):
        with pytest.raises(ValueError, match="labels 'cat', 'dog', the model the classes 'bar', 'beam'"):
            call()


def test_the_trainer_encodes_text_labels_and_groups_alike(model, tmp_path):
    rows = pictures(60, 0.5, seed=5)
    groups = rows.features["group"].names
    named = rows.remove_columns(["label", "group"])
    named = named.add_column("label", [CLASSES[k] for k in rows["label"]])
    named = named.add_column("group", [groups[k] for k in rows["group"]])
    results = []
    for ds in (rows, named):
        trainer = hm.MidRangeTrainer(
            model, arguments(tmp_path), train_dataset=ds, eval_dataset=ds, processing_class=processor()
        )
        results.append(trainer.evaluate())
    for name in ("eval_loss", "eval_worst_group_accuracy"):
        assert results[0][name] == pytest.approx(results[1][name])
    other = named.remove_columns("label").add_column("label", ["cat", "dog"] * 30)
    with pytest.raises(ValueError, match="labels 'cat', 'dog', the model the classes 'bar', 'beam'"):
        hm.MidRangeTrainer(model, arguments(tmp_path), train_dataset=other, processing_class=processor())


def test_a_bare_timm_model_is_repaired_too():
    import timm

    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=2)
    rows = pictures(120, 0.95, seed=5)
    found = hm.debias(rows, model, rows, [hm.Thumbnail()])
    assert found.verdict
    assert type(found.model) is type(model)
    assert found.after["accuracy"] >= 0
