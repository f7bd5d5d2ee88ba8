"""`MidRangeTrainer.debias` against the steps called one by one, and what a second call does not do again."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, Value, load_from_disk
from support.trainer_parts import bert, pictures, processor, resnet, texts, tokenizer
from support.training_rows import arguments, as_transformed, assert_same, stacked, tokenised, weights_of

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.curation import curation_report
from hf_midrange.curation.rule import Rule
from hf_midrange.training import debiasing


ROWS = 240
PROOF = 4
"""Passes over eight rows that prove that the repaired model is still that once it is loaded."""


@pytest.fixture(scope="module")
def trained():
    """A small network that has learnt the tie, and the rows it was not trained on."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        args = arguments(folder, max_steps=40, per_device_train_batch_size=32, learning_rate=3e-3)
        trainer = hm.MidRangeTrainer(resnet(), args, train_dataset=pictures(600, 0.95), processing_class=processor())
        trainer.train()
        yield weights_of(trainer.model), pictures(ROWS, 0.95, seed=5)


def trainer_of(trained, folder, curation=None, model=None, **options):
    model = model or resnet()
    model.load_state_dict(trained[0])
    trainer = options.pop("trainer", {})
    return hm.MidRangeTrainer(
        model, arguments(folder, **options), curation_dataset=curation, processing_class=processor(), **trainer
    )


def by_hand(model, rows, sources):
    """The pipeline as the README writes it."""
    ds = hm.extract(rows, model, processor())
    ds = hm.LogitBands().fit(ds).transform(ds)
    ds = hm.annotate(ds, sources)
    findings = hm.associate(ds, seed=42)
    return hm.retrain_head(hm.curate(ds, findings, seed=42), model, seed=42), findings


def test_debias_is_the_pipeline_and_changes_the_head_alone(trained, tmp_path):
    rows = trained[1]
    test = pictures(200, 0.5, seed=6)
    trainer = trainer_of(trained, tmp_path, rows, trainer={"eval_dataset": test})
    model, before = trainer.model, weights_of(trainer.model)
    early = hm.EarlyFeatures(trainer.model, processor())
    sources = [hm.Thumbnail(), hm.ImageProperties(), early, hm.Kinds(), hm.LatentConcepts()]
    head, findings = by_hand(trainer.model, rows, sources)
    report = trainer.debias()
    torch.testing.assert_close(report.head.weight, head.weight, atol=1e-5, rtol=1e-4)
    assert len(report.findings) == len(findings)
    assert trainer.model is model
    after = weights_of(model)
    assert {name for name in after if not torch.equal(after[name], before[name])} == {
        "classifier.1.weight", "classifier.1.bias",
    }  # fmt: skip
    torch.testing.assert_close(after["classifier.1.weight"], report.head.weight)
    assert report.verdict == curation_report(report.curated)["verdict"] == "shown"
    assert report.after == pytest.approx({**report.after, **_plain(trainer.evaluate())})
    assert report.after["worst_group_accuracy"] > report.before["worst_group_accuracy"]
    logged = {name: value for entry in trainer.state.log_history for name, value in entry.items()}
    assert logged["debias/before_worst_group_accuracy"] == report.before["worst_group_accuracy"]
    assert logged["debias/after_worst_group_accuracy"] == report.after["worst_group_accuracy"]


def _plain(metrics):
    timing = ("_runtime", "_second", "_time")
    return {name.removeprefix("eval_"): value for name, value in metrics.items()
            if name.startswith("eval_") and not name.endswith(timing)}  # fmt: skip


def test_the_report_is_short_to_read_and_written_as_json(trained, tmp_path):
    trainer = trainer_of(trained, tmp_path, trained[1], trainer={"eval_dataset": pictures(60, 0.5, seed=6)})
    report = trainer.debias(sources=[hm.Thumbnail()])
    lines = str(report).splitlines()
    assert lines[0].startswith("shown: ")
    assert any(line.startswith("worst group  ") for line in lines)
    assert len(lines) <= 9
    written = json.loads((tmp_path / "debias_report.json").read_text())
    assert written == json.loads(report.to_json())
    assert written["rows"] == ROWS
    with pytest.raises(AttributeError):
        report.verdict = "other"


@pytest.mark.parametrize("form", ["transform", "transform, new columns only", "pixel values"])
def test_rows_that_are_inputs_already_give_the_head_of_raw_rows(form, trained, tmp_path):
    rows = trained[1]
    raw = trainer_of(trained, tmp_path / "raw", rows).debias(sources=[hm.Thumbnail()])
    prepare = processor()

    def mapped(batch):
        return {"pixel_values": prepare(images=batch["image"], return_tensors="np")["pixel_values"]}

    forms = {
        "transform": lambda: as_transformed(rows),
        "transform, new columns only": lambda: as_transformed(rows, True),
        "pixel values": lambda: rows.map(mapped, batched=True),
    }
    collator = {} if form == "pixel values" else {"data_collator": stacked}
    trainer = trainer_of(
        trained, tmp_path / "inputs", forms[form](), remove_unused_columns=form == "pixel values", trainer=collator
    )
    report = trainer.debias(sources=[hm.Thumbnail()])
    torch.testing.assert_close(report.head.weight, raw.head.weight, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("label", ["label", "labels"])
def test_tokenised_rows_give_the_head_of_raw_texts(label, tmp_path):
    rows = texts(ROWS)
    encoded = tokenised(rows)
    if label == "labels":  # as text scripts rename it; class names are then those of the model
        encoded = encoded.rename_column("label", "labels").cast_column("labels", Value("int64"))
    reports = []
    for name, ds in (("raw", rows), ("encoded", encoded)):
        trainer = hm.MidRangeTrainer(
            bert(), arguments(tmp_path / name), curation_dataset=ds, processing_class=tokenizer()
        )
        reports.append(trainer.debias(sources=[hm.TextStyle(["text"])]))
    raw, ready = reports
    torch.testing.assert_close(raw.head.weight, ready.head.weight, atol=1e-5, rtol=1e-4)
    raw_logits, ready_logits = (columns.matrix(report.curated, columns.LOGITS) for report in reports)
    np.testing.assert_allclose(raw_logits, ready_logits, atol=1e-5)
    assert ready.curated.features["label"] == rows.features["label"]


def test_sources_can_be_named_in_the_arguments(trained, tmp_path):
    trainer = trainer_of(trained, tmp_path, trained[1], concept_sources=["image-properties"])
    curated = trainer.debias().curated
    assert [name for name in curated.column_names if name.startswith(("view_", "concepts_"))] == [
        "concepts_image_properties"
    ]


# What is not done again


@pytest.fixture
def counted(monkeypatch):
    """How often each step runs."""
    from hf_midrange import pipeline
    from hf_midrange.extraction.forward import Forward

    counts = {}

    def count(owner, name):
        real = getattr(owner, name)

        def counting(*args, **kwargs):
            counts[name] = counts.get(name, 0) + 1
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, counting)

    for name in ("annotate", "associate", "curate"):
        count(pipeline, name)
    count(debiasing, "retrain_head")
    count(Forward, "_pass")
    return counts


def test_an_interrupted_debias_goes_on_where_it_stopped(trained, tmp_path, counted, monkeypatch):
    from hf_midrange import pipeline

    whole = trainer_of(trained, tmp_path / "whole", trained[1]).debias(sources=[hm.Thumbnail()])
    passes = counted.pop("_pass") - PROOF
    counted.clear()

    def killed(*args, **kwargs):
        raise KeyboardInterrupt

    associate = pipeline.associate
    monkeypatch.setattr(pipeline, "associate", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(trained, tmp_path / "out", trained[1]).debias(sources=[hm.Thumbnail()])
    assert counted == {"_pass": passes, "annotate": 1}
    monkeypatch.setattr(pipeline, "associate", associate)
    resumed = trainer_of(trained, tmp_path / "out", trained[1]).debias(sources=[hm.Thumbnail()])
    once = {"annotate": 1, "associate": 1, "curate": 1, "retrain_head": 1}
    assert counted == {"_pass": passes + PROOF, **once}
    torch.testing.assert_close(resumed.head.weight, whole.head.weight)
    assert resumed.curated["weight"][:] == whole.curated["weight"][:]


def test_extraction_goes_on_in_the_middle(trained, tmp_path, counted, monkeypatch):
    from hf_midrange.extraction.forward import Forward

    monkeypatch.setattr(debiasing, "SHARD_ROWS", 64)
    counting = Forward._pass
    done = []

    def dying(self, inputs):
        if len(done) == 20:
            raise KeyboardInterrupt
        done.append(1)
        return counting(self, inputs)

    monkeypatch.setattr(Forward, "_pass", dying)
    with pytest.raises(KeyboardInterrupt):
        trainer_of(trained, tmp_path, trained[1]).debias(sources=[hm.Thumbnail()])
    monkeypatch.setattr(Forward, "_pass", counting)
    counted.clear()
    trainer_of(trained, tmp_path, trained[1]).debias(sources=[hm.Thumbnail()])
    assert counted["_pass"] == ROWS // 8 - 16 + 1 + PROOF  # two shards of 64 rows were whole; one row runs alone


@pytest.mark.parametrize(
    "change",
    ["weights", "rows", pytest.param("sources", marks=pytest.mark.slow), pytest.param("seed", marks=pytest.mark.slow)],
)
def test_results_of_another_model_rows_or_choice_are_never_reused(change, trained, tmp_path, counted):
    trainer_of(trained, tmp_path, trained[1]).debias(sources=[hm.Thumbnail()])
    counted.clear()
    rows = trained[1].select(range(ROWS - 40)) if change == "rows" else trained[1]
    options = {"curation_seed": 9} if change == "seed" else {}
    other = trainer_of(trained, tmp_path, rows, **options)
    if change == "weights":
        with torch.no_grad():
            next(other.model.parameters())[0] += 1
    report = other.debias(sources=[hm.ImageProperties() if change == "sources" else hm.Thumbnail()])
    assert counted["annotate"] == counted["retrain_head"] == 1
    assert counted["_pass"] > 0
    assert len(report.curated) == len(rows)


def test_a_finished_debias_is_read_back(trained, tmp_path, counted):
    first = trainer_of(trained, tmp_path, trained[1]).debias(sources=[hm.Thumbnail()])
    counted.clear()
    second = trainer_of(trained, tmp_path, trained[1]).debias(sources=[hm.Thumbnail()])
    assert counted == {"_pass": PROOF}
    torch.testing.assert_close(first.head.weight, second.head.weight, atol=0, rtol=0)


def test_a_checkpoint_has_all_that_debias_needs(tmp_path):
    from transformers import AutoModelForImageClassification

    train = pictures(300, 0.9)
    options = {"curation_fraction": 0.5, "max_steps": 4, "save_strategy": "steps", "save_steps": 4}
    trainer = hm.MidRangeTrainer(
        resnet(), arguments(tmp_path, **options), train_dataset=train, processing_class=processor()
    )
    trainer.train()
    expected = trainer.debias(sources=[hm.Thumbnail()])
    checkpoint = tmp_path / "checkpoint-4"
    rows = train.select(json.loads((checkpoint / "curation_rows.json").read_text())["indices"])
    loaded = hm.MidRangeTrainer(
        AutoModelForImageClassification.from_pretrained(checkpoint),
        arguments(tmp_path / "again"),
        curation_dataset=rows,
        processing_class=type(processor()).from_pretrained(checkpoint),
    )
    report = loaded.debias(sources=[hm.Thumbnail()])
    torch.testing.assert_close(report.head.weight, expected.head.weight, atol=1e-6, rtol=1e-5)


# Curated sets


def test_the_head_alone_is_retrained_from_a_copy_to_the_same_head(trained, tmp_path, counted):
    trainer = trainer_of(trained, tmp_path / "a", trained[1])
    first = trainer.debias(sources=[hm.Thumbnail()])
    first.curated.to_parquet(tmp_path / "copy.parquet")
    counted.clear()
    loaded = Dataset.from_parquet(str(tmp_path / "copy.parquet"), cache_dir=str(tmp_path / "cache"))
    again = trainer_of(trained, tmp_path / "b", trainer={"train_dataset": loaded})
    report = again.debias()
    assert report.findings is None
    assert report.verdict == first.verdict
    torch.testing.assert_close(report.head.weight, first.head.weight, atol=0, rtol=0)
    assert counted == {"retrain_head": 1, "_pass": PROOF}  # the rows say that the embeddings are of this model


def test_curated_rows_of_another_model_are_curated_anew(trained, tmp_path, caplog):
    first = trainer_of(trained, tmp_path / "a", trained[1]).debias(sources=[hm.Thumbnail()])
    other = hm.MidRangeTrainer(
        resnet(seed=3), arguments(tmp_path / "b"), train_dataset=first.curated, processing_class=processor()
    )
    report = other.debias(sources=[hm.Thumbnail()])
    assert "embeddings of another model" in caplog.text
    there, here = (columns.matrix(rows.curated, columns.EMBEDDING) for rows in (first, report))
    assert np.abs(there - here).max() > 0.1
    assert report.findings is not None


def test_training_on_a_curated_set_and_debiasing_after_it(trained, tmp_path):
    first = trainer_of(trained, tmp_path / "a", trained[1]).debias(sources=[hm.Thumbnail()])
    trainer = trainer_of(
        trained, tmp_path / "b", debias_after_training=True, concept_sources=["thumbnail"],
        trainer={"train_dataset": first.curated},
    )  # fmt: skip
    assert f"of {ROWS} rows" in str(trainer.rows_used)
    trainer.train()
    assert trainer.debias_report.findings is not None
    torch.testing.assert_close(trainer.model.classifier[1].weight, trainer.debias_report.head.weight)


def test_nothing_to_repair_leaves_the_model_as_it_is(trained, tmp_path):
    trainer = trainer_of(trained, tmp_path, pictures(ROWS, 0.5, seed=5))
    before = weights_of(trainer.model)
    report = trainer.debias(sources=[hm.ImageProperties()])
    assert report.verdict in ("none seen", "suspected")
    assert_same(weights_of(trainer.model), before)


def test_what_is_only_suspected_is_repaired_if_that_is_asked_for(trained, tmp_path, monkeypatch):
    from hf_midrange import pipeline

    asked, curate = [], pipeline.curate
    monkeypatch.setattr(pipeline, "curate", lambda *args, **options: asked.append(options) or curate(*args, **options))
    trainer = trainer_of(trained, tmp_path, trained[1], act_on="suspected")
    trainer.debias(sources=[hm.Thumbnail()])
    trainer.debias(sources=[hm.Thumbnail()], act_on="shown")
    assert [options["act_on"] for options in asked] == ["suspected", "shown"]


def test_a_head_that_nobody_could_load_is_refused_before_any_work(trained, tmp_path, counted):
    trainer = trainer_of(trained, tmp_path, trained[1])
    trainer.model.classifier[1] = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    with pytest.raises(ValueError, match=r"'classifier.1.2' is not what ResNetForImageClassification makes"):
        trainer.debias()
    assert counted == {}


def test_a_repair_that_is_lost_leaves_the_model_as_it_was(trained, tmp_path, monkeypatch):
    from hf_midrange.head import proof

    trainer = trainer_of(trained, tmp_path, trained[1])
    before = weights_of(trainer.model)
    monkeypatch.setattr(proof, "reloaded", lambda model, head: resnet_with(trained[0]))
    with pytest.raises(ValueError, match="'classifier.1.weight', 'classifier.1.bias'. differ"):
        trainer.debias(sources=[hm.Thumbnail()])
    assert_same(weights_of(trainer.model), before)


# Precision, refusals


def test_mixed_precision_is_that_of_the_trainer_and_the_head_stays_exact(trained, tmp_path):
    full = trainer_of(trained, tmp_path / "full", trained[1]).debias(sources=[hm.Thumbnail()])
    trainer = trainer_of(trained, tmp_path / "mixed", trained[1], bf16=True)
    mixed = trainer.debias(sources=[hm.Thumbnail()])
    exact, rounded = (columns.matrix(report.curated, columns.EMBEDDING) for report in (full, mixed))
    assert 0 < np.abs(exact - rounded).max() < 0.05 * np.abs(exact).max()
    given = hm.LinearHead.from_model(resnet_with(trained[0]))
    logits = columns.matrix(mixed.curated, columns.LOGITS)
    np.testing.assert_allclose(logits, given(rounded.copy()).numpy(), atol=1e-5)
    assert trainer.model.dtype == torch.float32


def test_a_model_in_half_precision_is_repaired_and_stays_one(trained, tmp_path):
    model = resnet_with(trained[0]).to(torch.bfloat16)
    test = pictures(60, 0.5, seed=6)
    args = arguments(tmp_path)
    trainer = hm.MidRangeTrainer(
        model, args, curation_dataset=trained[1], eval_dataset=test, processing_class=processor()
    )
    report = trainer.debias()
    assert trainer.model.dtype == torch.bfloat16
    torch.testing.assert_close(trainer.model.classifier[1].weight, report.head.weight.bfloat16())
    assert report.after["accuracy"] != report.before["accuracy"]


def test_a_compiled_model_is_evaluated_as_the_plain_one(tmp_path):
    scores = []
    for make in (bert, lambda: torch.compile(bert(), backend="eager")):
        test = tokenised(texts(60, 0.5, 6))
        trainer = hm.MidRangeTrainer(make(), arguments(tmp_path), eval_dataset=test, processing_class=tokenizer())
        scores.append(trainer.evaluate())
    for name in ("eval_loss", "eval_worst_group_accuracy"):
        assert scores[0][name] == pytest.approx(scores[1][name])


@pytest.fixture
def shows_anything(monkeypatch):
    """The default rule as if it were sure of everything: the features of these networks are random."""
    monkeypatch.setattr("hf_midrange.curation.rule.RULE", Rule(tells=0.0, evidence=-10.0, wrong=1.0))


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_of_an_adapter_the_head_is_repaired_and_the_rest_stays(tmp_path, shows_anything):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"], init_lora_weights=False)
    model = peft.get_peft_model(bert(), config)
    before = weights_of(model)
    trainer = hm.MidRangeTrainer(
        model, arguments(tmp_path), curation_dataset=tokenised(texts(ROWS)), processing_class=tokenizer()
    )
    report = trainer.debias(sources=[hm.TextStyle(["text"])])
    changed = {name for name, value in weights_of(model).items() if not torch.equal(value, before[name])}
    assert changed == {f"base_model.model.classifier.modules_to_save.default.{part}" for part in ("weight", "bias")}
    trainer.save_model()
    loaded = peft.PeftModel.from_pretrained(bert(), tmp_path)
    torch.testing.assert_close(hm.LinearHead.from_model(loaded).weight, report.head.weight)


def test_of_several_heads_the_one_named_is_repaired(tmp_path, shows_anything):
    from support.trainer_parts import SMALL, names
    from transformers import DeiTConfig, DeiTForImageClassificationWithTeacher

    torch.manual_seed(0)
    model = DeiTForImageClassificationWithTeacher(DeiTConfig(**SMALL, image_size=16, patch_size=8, **names()))
    before = weights_of(model)
    rows = pictures(120, 0.95, seed=5)
    args = arguments(tmp_path / "b", head="cls_classifier")
    trainer = hm.MidRangeTrainer(model, args, curation_dataset=rows, processing_class=processor())
    report = trainer.debias(sources=[hm.Thumbnail()])
    changed = {name for name, value in weights_of(model).items() if not torch.equal(value, before[name])}
    assert changed == {"cls_classifier.weight", "cls_classifier.bias"}
    torch.testing.assert_close(model.cls_classifier.weight, report.head.weight)
    trainer.create_model_card()
    assert "cls_classifier.weight and cls_classifier.bias differ" in (tmp_path / "b" / "README.md").read_text()


def resnet_with(weights):
    model = resnet()
    model.load_state_dict(weights)
    return model


def test_a_model_spread_over_processes_is_refused(trained, tmp_path):
    trainer = trainer_of(trained, tmp_path, trained[1])
    trainer.is_fsdp_enabled = True
    with pytest.raises(ValueError, match="whole model in every process"):
        trainer.debias()


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (lambda ds: ds.to_iterable_dataset(), TypeError, "datasets.Dataset, not IterableDataset"),
        (lambda ds: DatasetDict(a=ds, b=ds), ValueError, "has the splits a, b; choose one"),
        (lambda ds: ds.remove_columns("label"), KeyError, "no column of classes"),
        (lambda ds: ds.remove_columns("image"), KeyError, "no column 'image'"),
        (lambda ds: ds.cast_column("label", Value("string")), ValueError, "labels '0', '1', the model the classes"),
        (lambda ds: ds.cast_column("label", Value("float32")), TypeError, "must hold one class a row"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(rows, error, message, trained, tmp_path):
    with pytest.raises(error, match=message):
        trainer_of(trained, tmp_path, rows(trained[1])).debias()


def test_steps_lie_where_push_to_hub_does_not_look(trained, tmp_path):
    report = trainer_of(trained, tmp_path, trained[1]).debias(sources=[hm.Thumbnail()])
    assert report.curated["image"][3] == trained[1]["image"][3]
    assert columns.facts(report.curated.features, "logits")["fingerprint"]
    (folder,) = (tmp_path / "_debias").iterdir()
    assert debiasing.STEPS.startswith("_")
    for step in ("annotated", "curated"):
        written = load_from_disk(folder / step)
        assert len(written) == ROWS
        assert "image" not in written.column_names  # the rows are there already
