"""`MidRangeTrainer` against the stock `Trainer`, sums written by hand, and `group_metrics`."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import DatasetDict, IterableDataset
from hypothesis import given, settings
from hypothesis import strategies as st
from support.trainer_parts import GROUPS, bert, pictures, processor, resnet, texts, tokenizer, vit
from support.training_rows import (
    WEIGHTS,
    arguments,
    as_transformed,
    assert_same,
    sgd_step_by_hand,
    stacked,
    tokenised,
    weighted,
    weights_of,
    without_dropout,
)
from transformers import Trainer, TrainingArguments

import hf_midrange as hm
from hf_midrange.training.holdout import Holdout, held_out


# A newcomer's script

IMAGE_SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
import torch
from support.trainer_parts import pictures, processor, resnet
from transformers import Trainer
from transformers import TrainingArguments

prepare = processor()

def transform(batch):
    batch["pixel_values"] = list(prepare(images=batch["image"], return_tensors="pt")["pixel_values"])
    return batch

def collate(rows):
    pixels = torch.stack([row["pixel_values"] for row in rows])
    return {{"pixel_values": pixels, "labels": torch.tensor([row["label"] for row in rows])}}

def metrics(prediction):
    assert prediction.predictions.shape == (40, 2) and prediction.label_ids.shape == (40,)
    return {{"mine": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}}

train, test = pictures(48), pictures(40, seed=1)
train.set_transform(transform)
test.set_transform(transform)
args = TrainingArguments({out!r}, num_train_epochs=2, per_device_train_batch_size=8, remove_unused_columns=False,
                         learning_rate=1e-2, disable_tqdm=True, save_strategy="epoch", eval_strategy="epoch",
                         gradient_accumulation_steps=2, load_best_model_at_end=True)
trainer = Trainer(model=resnet(), args=args, train_dataset=train, eval_dataset=test, data_collator=collate,
                  compute_metrics=metrics, processing_class=prepare)
trainer.train()
result = trainer.evaluate()
trainer.save_model()
"""

TEXT_SCRIPT = """
import sys
sys.path.insert(0, {tests!r})
from support.trainer_parts import bert, texts, tokenizer
from transformers import Trainer
from transformers import TrainingArguments

encode = tokenizer()
train = texts(48).map(lambda batch: encode(batch["text"], truncation=True), batched=True)
test = texts(40, seed=1).map(lambda batch: encode(batch["text"], truncation=True), batched=True)
args = TrainingArguments({out!r}, num_train_epochs=2, per_device_train_batch_size=8, learning_rate=1e-2,
                         disable_tqdm=True, save_strategy="no", label_smoothing_factor=0.1)
trainer = Trainer(model=bert(), args=args, train_dataset=train, eval_dataset=test, processing_class=encode)
trainer.train()
result = trainer.evaluate()
trainer.save_model()
"""


@pytest.mark.parametrize("script", [IMAGE_SCRIPT, TEXT_SCRIPT], ids=["image", "text"])
def test_a_newcomers_script_becomes_ours_by_changing_two_lines(script, tmp_path):
    stock = script.format(tests=str(Path(__file__).parents[1]), out=str(tmp_path / "out"))
    ours = stock.replace("from transformers import Trainer\n", "from hf_midrange import MidRangeTrainer as Trainer\n")
    ours = ours.replace(
        "from transformers import TrainingArguments", "from hf_midrange import MidRangeArguments as TrainingArguments"
    )
    changed = [pair for pair in zip(stock.splitlines(), ours.splitlines(), strict=True) if pair[0] != pair[1]]
    assert len(changed) == 2
    runs = []
    for text in (stock, ours):
        space = {}
        exec(compile(text, "script", "exec"), space)
        runs.append((weights_of(space["trainer"].model), space["result"], space["trainer"]))
    (stock_weights, stock_result, _), (our_weights, our_result, trainer) = runs
    assert isinstance(trainer, hm.MidRangeTrainer)
    assert_same(stock_weights, our_weights)
    shared = {name for name in stock_result if not name.endswith(("_second", "_runtime", "_time"))}
    assert {name: our_result[name] for name in shared} == {name: stock_result[name] for name in shared}
    assert "eval_worst_group_accuracy" in our_result.keys() - stock_result.keys()


# Metrics


def scored(trainer, ds, metrics, prefix="eval_"):
    """Check metrics against a forward pass written here."""
    model = trainer.model.eval()
    pixels = processor()(images=ds["image"][:], return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        predicted = model(pixels).logits.argmax(1).numpy()
    expected = hm.group_metrics(predicted, ds["label"][:], ds["group"][:], group_names=GROUPS)
    assert metrics[f"{prefix}accuracy"] == pytest.approx(expected["mean"])
    assert metrics[f"{prefix}worst_group_accuracy"] == pytest.approx(expected["worst_group"])
    assert metrics[f"{prefix}worst_group_accuracy_ci_low"] == pytest.approx(expected["worst_group_ci"][0])
    for name, row in expected["groups"].items():
        assert metrics[f"{prefix}group_accuracy_{name}"] == pytest.approx(row["accuracy"])
        assert metrics[f"{prefix}group_accuracy_{name}_ci_high"] == pytest.approx(row["ci_high"])
    return expected


@pytest.mark.parametrize(
    "options",
    [{}, {"eval_do_concat_batches": False}, {"eval_accumulation_steps": 1}, {"remove_unused_columns": False}],
    ids=lambda options: next(iter(options), "plain"),
)
@pytest.mark.parametrize("form", ["raw", "transform", "transform, new columns only"])
def test_group_metrics_come_by_themselves_in_every_form_of_dataset(form, options, tmp_path):
    train, test = pictures(24), pictures(37, tie=0.5, seed=1)
    forms = {"raw": test, "transform": as_transformed(test), "transform, new columns only": as_transformed(test, True)}
    collate = None if form == "raw" else stacked
    trainer = hm.MidRangeTrainer(
        resnet(), arguments(tmp_path, **options), collate, train, forms[form], processing_class=processor()
    )
    metrics = trainer.evaluate()
    scored(trainer, test, metrics)
    assert trainer.args.remove_unused_columns is options.get("remove_unused_columns", True)
    assert collate is None or trainer.data_collator.collate is collate
    assert trainer.label_names == ["labels"]


def test_the_users_metrics_see_what_they_would_see_and_win(tmp_path):
    seen = []

    def mine(prediction):
        seen.append((prediction.predictions.shape, prediction.label_ids.shape))
        return {"accuracy": -1.0, "own": 7.0}

    test = pictures(37, seed=1)
    trainer = hm.MidRangeTrainer(
        resnet(), arguments(tmp_path), eval_dataset=test, processing_class=processor(), compute_metrics=mine
    )
    metrics = trainer.evaluate()
    assert (metrics["eval_accuracy"], metrics["eval_own"]) == (-1.0, 7.0)
    assert "eval_worst_group_accuracy" in metrics
    predicted = trainer.predict(test)
    assert predicted.predictions.shape == (37, 2)
    np.testing.assert_array_equal(predicted.label_ids, test["label"][:])
    assert "test_worst_group_accuracy" in predicted.metrics
    assert seen == [((37, 2), (37,))] * 2


def test_the_users_preprocessing_of_logits_is_kept(tmp_path):
    seen = []

    def preprocess(logits, labels):
        seen.append(labels.shape)
        return logits.argmax(-1)

    test = pictures(20, seed=1)
    trainer = hm.MidRangeTrainer(
        resnet(),
        arguments(tmp_path),
        eval_dataset=test,
        processing_class=processor(),
        preprocess_logits_for_metrics=preprocess,
        compute_metrics=lambda prediction: {"ndim": prediction.predictions.ndim},
    )
    metrics = trainer.evaluate()
    scored(trainer, test, metrics)
    assert metrics["eval_ndim"] == 1
    assert seen[0] == (8,)


def test_metrics_batch_by_batch_are_those_of_all_rows(tmp_path):
    def mine(prediction, compute_result):
        return {"last": 1.0} if compute_result else {}

    test = pictures(37, seed=1)
    options = arguments(tmp_path, batch_eval_metrics=True)
    trainer = hm.MidRangeTrainer(
        resnet(), options, eval_dataset=test, processing_class=processor(), compute_metrics=mine
    )
    metrics = trainer.evaluate()
    scored(trainer, test, metrics)
    assert metrics["eval_last"] == 1.0


def test_several_evaluation_sets_each_by_its_own_columns(tmp_path):
    grouped = pictures(20, seed=1)
    sets = {"grouped": grouped, "plain": grouped.remove_columns("group")}
    trainer = hm.MidRangeTrainer(resnet(), arguments(tmp_path), eval_dataset=sets, processing_class=processor())
    metrics = trainer.evaluate()
    scored(trainer, grouped, metrics, "eval_grouped_")
    assert "eval_plain_worst_group_accuracy" not in metrics
    assert metrics["eval_plain_loss"] == pytest.approx(metrics["eval_grouped_loss"])


def test_without_groups_the_worst_pseudo_group_is_reported(tmp_path):
    test = pictures(40, seed=1).rename_column("group", "pseudo_group")
    trainer = hm.MidRangeTrainer(resnet(), arguments(tmp_path), eval_dataset=test, processing_class=processor())
    metrics = trainer.evaluate()
    worst = min(value for name, value in metrics.items() if name.startswith("eval_pseudo_group_accuracy_")
                and not name.endswith(("_low", "_high")))  # fmt: skip
    assert metrics["eval_worst_pseudo_group_accuracy"] == worst
    assert "eval_worst_group_accuracy" not in metrics


@pytest.mark.parametrize("options", [{}, {"eval_do_concat_batches": False}], ids=["plain", "not concatenated"])
def test_without_groups_accuracy_is_told_by_class(options, tmp_path):
    test = pictures(37, tie=0.5, seed=1)
    plain = test.remove_columns("group")
    options = arguments(tmp_path, **options)
    trainer = hm.MidRangeTrainer(resnet(), options, eval_dataset=plain, processing_class=processor())
    metrics = trainer.evaluate()
    with torch.no_grad():
        pixels = processor()(images=test["image"][:], return_tensors="pt")["pixel_values"]
        right = trainer.model.eval()(pixels).logits.argmax(1).numpy() == np.array(test["label"][:])
    labels = np.array(test["label"][:])
    assert metrics["eval_accuracy"] == pytest.approx(right.mean())
    by_class = [right[labels == k].mean() for k in range(2)]
    assert [metrics[f"eval_class_accuracy_{name}"] for name in ("bar", "beam")] == pytest.approx(by_class)
    assert metrics["eval_worst_class_accuracy"] == pytest.approx(min(by_class))
    assert trainer.predict(plain).predictions[0].shape[-1] == 2  # logits, as they would be without


def test_rows_without_a_group_or_label_are_not_scored(tmp_path):
    test = pictures(20, seed=1)
    some = test.map(lambda row, k: {"group": None if k < 5 else row["group"]}, with_indices=True)
    trainer = hm.MidRangeTrainer(resnet(), arguments(tmp_path), eval_dataset=some, processing_class=processor())
    known = test.select(range(5, 20))
    scored(trainer, known, trainer.evaluate())
    predicted = trainer.predict(test.remove_columns("label"))
    assert predicted.label_ids is None
    assert predicted.predictions.shape == (20, 2)


def test_the_worst_group_chooses_the_best_checkpoint(tmp_path):
    options = arguments(
        tmp_path, max_steps=4, eval_strategy="steps", save_strategy="steps", eval_steps=2, save_steps=2,
        load_best_model_at_end=True, metric_for_best_model="worst_group_accuracy", learning_rate=1e-2,
    )  # fmt: skip
    train, test = pictures(40), pictures(40, tie=0.5, seed=1)
    trainer = hm.MidRangeTrainer(resnet(), options, None, train, test, processing_class=processor())
    trainer.train()
    history = [entry["eval_worst_group_accuracy"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert trainer.state.best_metric == max(history)


# Weights


def one_step(ds, folder, batch, **options):
    accumulate = -(-20 // batch)
    args = arguments(
        folder, per_device_train_batch_size=batch, gradient_accumulation_steps=accumulate, max_steps=1, optim="sgd",
        learning_rate=0.5, lr_scheduler_type="constant", max_grad_norm=1e9, logging_strategy="steps", logging_steps=1,
        **options,
    )  # fmt: skip
    trainer = hm.MidRangeTrainer(without_dropout(), args, train_dataset=ds, processing_class=tokenizer())
    trainer.train()
    return trainer


@pytest.mark.parametrize("batch", [20, 5, 3])
@pytest.mark.parametrize("form", [tokenised, lambda ds: ds], ids=["tokenised", "raw"])
def test_weights_give_the_weighted_loss_of_all_rows_however_they_fall_into_batches(form, batch, tmp_path):
    ds = texts(24)
    trainer = one_step(weighted(form(ds), WEIGHTS), tmp_path, batch, label_smoothing_factor=0.1)
    expected, loss = sgd_step_by_hand(ds, WEIGHTS, smoothing=0.1)
    assert_same(weights_of(trainer.model), expected, atol=1e-5)
    logged = next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)
    assert logged == pytest.approx(loss, abs=1e-3)
    assert str(trainer.rows_used) == (
        "training on 20 of 24 rows, weighted by column `weight`; 4 rows of weight 0 are left out"
    )


def test_weights_do_not_touch_the_loss_of_an_evaluation(tmp_path):
    ds = weighted(texts(24), WEIGHTS)
    trainer = hm.MidRangeTrainer(bert(), arguments(tmp_path), None, ds, ds, processing_class=tokenizer())
    stock = Trainer(bert(), arguments(tmp_path, TrainingArguments), None, None, tokenised(texts(24)), tokenizer())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(stock.evaluate()["eval_loss"], rel=1e-5)


def test_keep_leaves_rows_out_and_says_so(tmp_path, caplog):
    keep = np.arange(24) % 3 > 0
    both = weighted(texts(24), WEIGHTS, keep)
    for ds, by in ((both, "keep"), (both.remove_columns("weight"), "weight")):
        caplog.clear()
        trainer = one_step(ds, tmp_path, 16, curated_rows=by)
        expected, _ = sgd_step_by_hand(texts(24), keep.astype(np.float32))
        assert_same(weights_of(trainer.model), expected, atol=1e-5)
        assert "training on 16 of 24 rows, unweighted; 8 rows whose `keep` is false are left out" in caplog.text
        assert ("column `weight` is another choice and not used" in caplog.text) == ("weight" in ds.column_names)


def test_with_both_columns_the_weights_count_and_that_is_said(tmp_path, caplog):
    both = weighted(texts(24), WEIGHTS, np.arange(24) % 3 > 0)
    trainer = one_step(both, tmp_path, 20)
    expected, _ = sgd_step_by_hand(texts(24), WEIGHTS)
    assert_same(weights_of(trainer.model), expected, atol=1e-5)
    assert "column `keep` is another choice and not used (see `curated_rows`)" in caplog.text


def test_a_stream_is_trained_on_by_its_weights(tmp_path):
    ds = weighted(tokenised(texts(24)), WEIGHTS)
    stream = ds.to_iterable_dataset()
    assert isinstance(stream, IterableDataset)
    trainer = one_step(stream, tmp_path, 20)
    expected, _ = sgd_step_by_hand(texts(24), WEIGHTS)
    moved = weights_of(trainer.model)
    start, scale = bert().state_dict(), WEIGHTS.sum() / 20  # weights of a stream are taken as they are
    for name, value in expected.items():
        torch.testing.assert_close(moved[name] - start[name], (value - start[name]) * scale, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bad", [-1.0, np.nan])
def test_weights_that_are_none_are_refused_before_training(bad, tmp_path):
    weight = np.where(np.arange(24) == 7, bad, 1)
    with pytest.raises(ValueError, match="'weight' must be finite and not negative, but row 7"):
        hm.MidRangeTrainer(bert(), arguments(tmp_path), train_dataset=weighted(texts(24), weight))


def test_weights_beside_a_loss_of_the_user_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"`compute_loss_func`, which cannot weigh rows.*curated_rows='keep'"):
        hm.MidRangeTrainer(
            bert(), arguments(tmp_path), train_dataset=weighted(texts(24), WEIGHTS), compute_loss_func=lambda *_: 0
        )


def test_a_weight_that_is_a_whole_number_is_no_weight(tmp_path):
    ds = texts(24).add_column("weight", list(range(24)))
    trainer = hm.MidRangeTrainer(bert(), arguments(tmp_path), train_dataset=ds)
    assert trainer.rows_used is None
    assert trainer.compute_loss_func is None


# Rows held out


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 3), min_size=8, max_size=60),
    st.sampled_from([0.1, 0.25, 0.5, 0.8]),
    st.integers(0, 3),
    st.integers(1, 4),
)
def test_held_out_rows_are_stratified_and_sources_stay_together(labels, fraction, seed, per_source):
    labels = np.array(labels)
    alone = held_out(labels, fraction, seed)
    counts = np.bincount(labels, minlength=4)
    taken = np.bincount(labels[alone.indices], minlength=4)
    wanted = np.where(counts > 0, np.maximum(1, np.round(fraction * counts)), 0)
    np.testing.assert_array_equal(taken, wanted)
    assert held_out(labels, fraction, seed) == alone
    sources = np.arange(len(labels)) // per_source
    try:
        together = held_out(labels, fraction, seed, sources)
    except ValueError:
        return
    assert not set(sources[together.indices]) & set(sources[together.others])
    assert sorted([*together.indices, *together.others]) == list(range(len(labels)))


def test_a_fraction_is_held_out_recorded_and_kept_out_of_training(tmp_path):
    train = pictures(60, sources=True)
    options = arguments(tmp_path, curation_fraction=0.2, curation_seed=3, save_strategy="steps", save_steps=3)
    trainer = hm.MidRangeTrainer(resnet(), options, train_dataset=train, processing_class=processor())
    trainer.train()
    written = Holdout.read(tmp_path)
    assert written == Holdout.read(tmp_path / "checkpoint-3") == trainer.holdout
    assert (written.fraction, written.seed, written.rows) == (0.2, 3, 60)
    assert len(written.indices) == 12
    inside, outside = trainer.curation_dataset, trainer.train_dataset
    assert not {*inside["source_id"][:]} & {*outside["source_id"][:]}
    assert inside["source_id"][:] == [train[k]["source_id"] for k in written.indices]
    assert len(outside) == 48


def test_resuming_with_other_rows_held_out_is_refused(tmp_path):
    def trainer(**options):
        args = arguments(tmp_path, save_strategy="steps", save_steps=2, curation_fraction=0.2, **options)
        return hm.MidRangeTrainer(bert(), args, train_dataset=tokenised(texts(40)), processing_class=tokenizer())

    trainer().train()
    other = trainer(curation_seed=9)
    with pytest.raises(ValueError, match="held out 8 of 40 rows.*others are; going on would train on them"):
        other.train(resume_from_checkpoint=True)
    assert trainer(max_steps=5).train(resume_from_checkpoint=True).global_step == 5


def test_held_out_rows_take_the_transform_of_evaluation(tmp_path):
    def of_training(batch):
        return {"pixel_values": [torch.randn(3, 16, 16)] * len(batch["label"]), "labels": batch["label"]}

    train, test = pictures(40).with_transform(of_training), as_transformed(pictures(20, seed=1))
    options = arguments(tmp_path, curation_fraction=0.5, remove_unused_columns=False)
    held = hm.MidRangeTrainer(resnet(), options, train_dataset=train, eval_dataset=test).curation_dataset
    expected = processor()(images=[held.with_format(None)[0]["image"]], return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(held[0]["pixel_values"], expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"curation_fraction": 1.0}, "below 1"),
        ({"curated_rows": "all"}, "'weight' or 'keep'"),
        ({"act_on": "all"}, "'shown' or 'suspected'"),
    ],
)
def test_wrong_arguments_are_refused(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        arguments(tmp_path, **options)


def test_the_only_split_is_taken_and_several_are_refused(tmp_path):
    args = arguments(tmp_path)
    one = hm.MidRangeTrainer(bert(), args, train_dataset=DatasetDict(train=texts(20)))
    assert len(one.train_dataset) == 20
    for argument in ("train_dataset", "curation_dataset"):
        with pytest.raises(ValueError, match=f"`{argument}` has the splits a, b; choose one, such as data.'a'."):
            hm.MidRangeTrainer(bert(), args, **{argument: DatasetDict(a=texts(20), b=texts(20))})


def test_a_stream_is_not_held_out_from(tmp_path):
    with pytest.raises(ValueError, match="needs a datasets.Dataset with labels.*IterableDataset"):
        hm.MidRangeTrainer(
            bert(), arguments(tmp_path, curation_fraction=0.5), train_dataset=texts(20).to_iterable_dataset()
        )


def test_a_bare_timm_model_is_refused_before_anything_is_done(tmp_path):
    import timm

    model = timm.create_model("test_resnet", num_classes=2)
    with pytest.raises(TypeError, match=r"bare timm model.*AutoModelForImageClassification.*'timm/test"):
        hm.MidRangeTrainer(model, arguments(tmp_path), train_dataset=pictures(16), processing_class=processor())


def test_plain_training_arguments_do(tmp_path):
    args = arguments(tmp_path, TrainingArguments)
    trainer = hm.MidRangeTrainer(vit(), args, train_dataset=pictures(16), processing_class=processor())
    assert trainer.train().global_step == 3
    with pytest.raises(ValueError, match="no rows to debias on; give `curation_dataset`"):
        trainer.debias()


def test_arguments_are_parsed_from_a_command_line_and_back(tmp_path):
    from transformers import HfArgumentParser

    words = f"--output_dir {tmp_path} --curation_fraction 0.3 --debias_after_training --concept_sources latent ngrams"
    (args,) = HfArgumentParser(hm.MidRangeArguments).parse_args_into_dataclasses(words.split())
    assert (args.curation_fraction, args.debias_after_training) == (0.3, True)
    assert args.concept_sources == ["latent", "ngrams"]
    assert json.loads(args.to_json_string())["curated_rows"] == "weight"


def test_the_token_is_not_saved_beside_the_model(tmp_path):
    args = arguments(tmp_path, hub_token="hf_" + "s" * 34, learning_rate=0.25)
    hm.MidRangeTrainer(bert(), args, processing_class=tokenizer()).save_model()
    assert args.hub_token == "hf_" + "s" * 34
    saved = tmp_path / "training_args.bin"
    assert b"s" * 34 not in b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    loaded = torch.load(saved, weights_only=False)
    assert (loaded.hub_token, loaded.learning_rate) == (None, 0.25)


def test_importing_the_package_does_not_import_the_trainer():
    code = "import sys, hf_midrange; print('hf_midrange.training' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_one_logit_for_two_classes_is_scored_by_its_sign(tmp_path):
    test = pictures(37, tie=0.5, seed=1)
    model = vit()
    model.config.id2label = {0: "beam"}
    model.classifier = torch.nn.Linear(16, 1)
    options = {"eval_dataset": test, "processing_class": processor()}
    loss = lambda outputs, labels, **_: (outputs.logits[:, 0] - labels.float()).square().mean()  # noqa: E731
    metrics = hm.MidRangeTrainer(model, arguments(tmp_path), compute_loss_func=loss, **options).evaluate()
    with torch.no_grad():
        pixels = processor()(images=test["image"][:], return_tensors="pt")["pixel_values"]
        predicted = (model.eval()(pixels).logits[:, 0] > 0).numpy()
    assert metrics["eval_accuracy"] == pytest.approx((predicted == np.array(test["label"][:])).mean())
