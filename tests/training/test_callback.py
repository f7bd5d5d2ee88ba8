"""`MidRangeCallback` on the stock `Trainer`: what is logged, read back from tensorboard, and what stays as it was."""

import time

import numpy as np
import pytest
import torch
from support.trainer_parts import GROUPS, pictures, processor, resnet
from support.training_rows import arguments, as_transformed, assert_same, stacked, weights_of
from transformers import Trainer, TrainingArguments

import hf_midrange as hm
from hf_midrange import columns


@pytest.fixture(scope="module")
def test_rows():
    return hm.annotate(pictures(120, 0.5, seed=1), [hm.ImageProperties()])


@pytest.fixture(scope="module", autouse=True)
def weights(tmp_path_factory):
    """Those of a network whose classes score higher for their own rows."""
    args = arguments(tmp_path_factory.mktemp("out"), max_steps=40, per_device_train_batch_size=32, learning_rate=3e-3)
    trainer = hm.MidRangeTrainer(resnet(), args, train_dataset=pictures(600, 0.95), processing_class=processor())
    trainer.train()
    WEIGHTS.update(weights_of(trainer.model))


WEIGHTS = {}


def model():
    made = resnet()
    made.load_state_dict(WEIGHTS)
    return made


def stock(folder, rows, **options):
    args = arguments(folder, TrainingArguments, max_steps=4, eval_strategy="steps", eval_steps=2, **options)
    args.remove_unused_columns = False
    kept = as_transformed(rows.remove_columns([name for name in rows.column_names if name.startswith("concepts")]))
    return Trainer(model(), args, stacked, as_transformed(pictures(40)), kept)


def of_tensorboard(folder):
    """Return tag -> values by step, as TensorBoard reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder)).Reload()
    return {tag: [each.value for each in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_what_is_logged_is_what_tensorboard_reads_and_the_weights_are_the_same(test_rows, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    plain = stock(tmp_path / "plain", test_rows)
    plain.train()
    trainer = stock(tmp_path / "watched", test_rows, report_to=["tensorboard"])
    trainer.add_callback(hm.MidRangeCallback(trainer, rows=test_rows))
    trainer.train()
    assert_same(weights_of(plain.model), weights_of(trainer.model), atol=0)
    logged = [entry for entry in trainer.state.log_history if "eval_worst_group_accuracy" in entry]
    assert len(logged) == 2
    last = logged[-1]
    assert {"eval_mid_share_bar", "eval_mid_low_bar", "eval_mid_high_bar"} <= {*last}
    assert any(name.startswith("eval_odds_b") for name in last)
    read = of_tensorboard(next(path.parent for path in (tmp_path / "board").rglob("events*")))
    for name, value in last.items():
        if name.startswith("eval_"):
            assert read[name.replace("eval_", "eval/", 1)][-1] == pytest.approx(value, rel=1e-6), name


def test_the_figures_are_those_of_the_steps_by_hand(test_rows, tmp_path):
    trainer = stock(tmp_path, test_rows)
    trainer.add_callback(hm.MidRangeCallback(trainer, rows=test_rows))
    metrics = trainer.evaluate()
    ds = hm.extract(test_rows, trainer.model, processor())
    bands = hm.LogitBands().fit(ds)
    ds = bands.transform(ds)
    expected = hm.group_metrics(ds["prediction"][:], ds["label"][:], ds["group"][:], group_names=GROUPS)
    assert metrics["eval_worst_group_accuracy"] == pytest.approx(expected["worst_group"])
    middle = (columns.matrix(ds, "band") == 1).mean(axis=0)
    assert metrics["eval_mid_share_beam"] == pytest.approx(middle[1])
    first = hm.associate(ds)[0]
    name = f"eval_odds_{first['unit_name']}_{first['source']}: {first['concept']}"
    assert metrics[name] == pytest.approx(first["odds_ratio"], rel=1e-4)


def test_predictions_and_passes_in_between_are_not_taken_for_the_evaluation(test_rows, tmp_path):
    trainer = stock(tmp_path, test_rows)
    trainer.add_callback(hm.MidRangeCallback(trainer))
    first = trainer.evaluate()
    trainer.predict(as_transformed(pictures(30, seed=4)))
    with torch.no_grad():
        trainer.model.eval()(pixel_values=torch.zeros(7, 3, 16, 16))
    again = trainer.evaluate()
    name = "eval_worst_group_accuracy"
    assert first[name] == again[name]
    assert "eval_odds" not in " ".join(again)


def test_the_worst_group_chooses_the_best_checkpoint_of_a_stock_trainer(test_rows, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    trainer = stock(tmp_path, test_rows, metric_for_best_model="worst_group_accuracy", **options)
    trainer.add_callback(hm.MidRangeCallback(trainer))
    trainer.train()
    found = [entry["eval_worst_group_accuracy"] for entry in trainer.state.log_history if "eval_mid_low_bar" in entry]
    assert trainer.state.best_metric == max(found)


def test_in_our_trainer_it_adds_what_is_not_there(test_rows, tmp_path):
    rows = test_rows.remove_columns(["concepts_image_properties"])
    trainer = hm.MidRangeTrainer(model(), arguments(tmp_path), eval_dataset=rows, processing_class=processor())
    alone = trainer.evaluate()
    trainer.add_callback(hm.MidRangeCallback(trainer))
    both = trainer.evaluate()
    assert both["eval_worst_group_accuracy"] == alone["eval_worst_group_accuracy"]
    assert {name for name in both.keys() - alone.keys()} == {
        f"eval_mid_{what}_{name}" for what in ("share", "low", "high") for name in ("bar", "beam")
    }


def test_rows_that_are_not_known_are_not_scored(test_rows, tmp_path):
    trainer = stock(tmp_path, test_rows)
    trainer.add_callback(hm.MidRangeCallback(trainer, rows=test_rows.select(range(9))))
    trainer.eval_dataset = as_transformed(pictures(30, seed=4).remove_columns("group"))
    assert "eval_worst_class_accuracy" in trainer.evaluate()


def test_a_model_without_bands_is_scored_all_the_same(test_rows, tmp_path):
    trainer = stock(tmp_path, test_rows)
    with torch.no_grad():
        trainer.model.classifier[1].weight.mul_(-1)
    trainer.add_callback(hm.MidRangeCallback(trainer))
    metrics = trainer.evaluate()
    assert "eval_worst_group_accuracy" in metrics
    assert not any(name.startswith("eval_mid") for name in metrics)


def test_it_takes_a_small_part_of_an_evaluation(tmp_path):
    rows = pictures(2000, 0.5, seed=1)
    trainer = stock(tmp_path, rows)
    trainer.evaluate()
    callback = hm.MidRangeCallback(trainer)
    trainer.add_callback(callback)
    trainer.evaluate()
    spent, figures = [], callback._figures
    callback._figures = lambda *given: (spent.append(time.perf_counter()), figures(*given), spent.append(time.perf_counter()))[1]  # fmt: skip # noqa: E501
    begin = time.perf_counter()
    trainer.evaluate()
    whole = time.perf_counter() - begin
    assert np.diff(spent)[0] < 0.1 * whole
