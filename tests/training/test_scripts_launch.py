"""The scripts under their launchers: on two processes here, configurations of GPUs by accelerate's loader."""

import ast
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from datasets import DatasetDict, load_from_disk
from launching import ScriptArguments, debias, parsed, train
from safetensors.torch import load_file
from support.launched import ONE_THREAD
from support.trainer_parts import pictures, processor, resnet, texts, tokenizer
from support.training_rows import WEIGHTS, arguments, sgd_step_by_hand, weighted, without_dropout
from transformers import AutoImageProcessor, AutoModelForImageClassification, AutoModelForSequenceClassification

import hf_midrange as hm
from hf_midrange.commands import app as cli


SCRIPTS = Path(__file__).parents[2] / "scripts"
TWO = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(SCRIPTS / "accelerate" / "cpu_2.yaml")]
OF_TRAINER = ("train", "debias")
OF_CLI = (
    "extract", "bands", "annotate", "associate", "curate", "retrain", "run", "group_metrics", "report", "publish",
)  # fmt: skip


def launched(script, *words, launcher=TWO):
    """Run a script with two processes and return what it printed."""
    env = {**ONE_THREAD, "TQDM_DISABLE": "1"}
    command = [*launcher, str(SCRIPTS / f"{script}.py"), *map(str, words)]
    run = subprocess.run(command, capture_output=True, text=True, env=env, timeout=280)
    assert run.returncode == 0, run.stderr[-3000:]
    return run.stdout


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A data set with splits, and an untrained network."""
    folder = tmp_path_factory.mktemp("scripts")
    DatasetDict(train=pictures(303, 0.9), test=pictures(61, 0.5, seed=1)).save_to_disk(folder / "data")
    resnet().save_pretrained(folder / "model")
    processor().save_pretrained(folder / "model")
    return folder


@pytest.fixture(scope="module")
def trained(place):
    """What train.py makes, on two processes, from flags over a YAML file."""
    config = place / "train.yaml"
    config.write_text(
        f"model: {place / 'model'}\ndataset: {place / 'data'}\nlearning_rate: 0.003\nmax_steps: 9\n"
        "per-device-train-batch-size: 8\ncuration_fraction: 0.4\nsave_steps: 6\ndisable_tqdm: true\n"
    )
    launched("train", "--config", config, "--output_dir", place / "trained", "--max_steps", 6)
    return place / "trained"


@pytest.mark.slow
def test_train_on_two_processes_is_train_on_one(trained, place):
    """The same step on one process with batches of twice the size sees the same rows, in the same order."""
    state = json.loads((trained / "checkpoint-6" / "trainer_state.json").read_text())
    assert state["global_step"] == 6  # the flag won over the file
    words = ["--model", place / "model", "--dataset", place / "data", "--output_dir", place / "alone"]
    words += ["--learning_rate", "0.003", "--max_steps", "6", "--per_device_train_batch_size", "16"]
    script, args = parsed([*map(str, words), "--curation_fraction", "0.4", "--disable_tqdm", "True"])
    alone = train(script, args)
    assert (trained / "curation_rows.json").read_text() == (place / "alone" / "curation_rows.json").read_text()
    metrics = json.loads((trained / "eval_results.json").read_text())
    model = AutoModelForImageClassification.from_pretrained(trained).eval()
    rows = load_from_disk(place / "data")["test"]
    pixels = AutoImageProcessor.from_pretrained(trained)(images=rows["image"][:], return_tensors="pt")
    with torch.no_grad():
        predicted = model(**pixels).logits.argmax(1).numpy()
    names = rows.features["group"].names
    expected = hm.group_metrics(predicted, rows["label"][:], rows["group"][:], group_names=names)
    assert metrics["eval_accuracy"] == pytest.approx(expected["mean"])
    assert metrics["eval_worst_group_accuracy"] == pytest.approx(expected["worst_group"])
    here, there = alone.model.state_dict(), load_file(trained / "model.safetensors")
    # each process normalises its own half of a batch, so weights are near and not the same
    assert torch.nn.functional.cosine_similarity(here["classifier.1.weight"], there["classifier.1.weight"]).min() > 0.9


@pytest.mark.slow
def test_debias_on_two_processes_is_debias_on_one(trained, place):
    out = place / "debiased"
    printed = launched("debias", "--model", trained, "--dataset", place / "data", "--output_dir", out)
    assert printed.count("worst pseudo-group") + printed.count("no sign of a confounder") == 1
    words = ["--model", trained, "--dataset", place / "data", "--output_dir", place / "one"]
    alone = debias(*parsed([str(word) for word in words])).debias_report
    report = json.loads((out / "debias_report.json").read_text())
    assert report["verdict"] == alone.verdict
    held = json.loads((trained / "curation_rows.json").read_text())["indices"]
    assert report["rows"] == len(alone.curated) == len(held)
    assert report["before"]["worst_group_accuracy"] == alone.before["worst_group_accuracy"]
    before, after = (load_file(folder / "model.safetensors") for folder in (trained, out))
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert changed <= {"classifier.1.weight", "classifier.1.bias"}
    torch.testing.assert_close(after["classifier.1.weight"], alone.head.weight, atol=1e-4, rtol=1e-3)
    (steps,) = (out / "_debias").iterdir()
    assert {path.name for path in steps.iterdir()} >= {"annotated", "findings", "curated", "head", "shards"}


def test_a_weighted_step_and_debias_after_it_on_two_processes(place):
    """One step of gradient descent on two processes with two accumulated batches each, against one written by hand."""
    rows, held = weighted(texts(24), WEIGHTS), texts(120, seed=1)
    DatasetDict(train=rows, held=held, test=texts(40, seed=2)).save_to_disk(place / "weighted")
    model = without_dropout()
    model.config.hidden_dropout_prob = model.config.attention_probs_dropout_prob = 0.0
    model.save_pretrained(place / "bert")
    tokenizer().save_pretrained(place / "bert")
    launched(
        "train", "--model", place / "bert", "--dataset", place / "weighted", "--output_dir", place / "stepped",
        "--per_device_train_batch_size", 5, "--gradient_accumulation_steps", 2, "--max_steps", 1, "--optim", "sgd",
        "--learning_rate", 0.5, "--lr_scheduler_type", "constant", "--max_grad_norm", 1e9, "--disable_tqdm", "True",
        "--save_strategy", "no", "--debias_after_training", "True", "--curation_split", "held",
        "--concept_sources", "text-style:text",
    )  # fmt: skip
    expected, _ = sgd_step_by_hand(texts(24), WEIGHTS)
    found = AutoModelForSequenceClassification.from_pretrained(place / "stepped").state_dict()
    for name in found.keys() - {"classifier.weight", "classifier.bias"}:
        torch.testing.assert_close(found[name], expected[name], atol=1e-5, rtol=0, msg=name)
    model.load_state_dict(expected)
    args = arguments(place / "by-hand")
    alone = hm.MidRangeTrainer(model, args, curation_dataset=held, processing_class=tokenizer())
    report = alone.debias(sources=[hm.TextStyle(["text"])])
    torch.testing.assert_close(found["classifier.weight"], report.head.weight, atol=1e-3, rtol=1e-2)
    assert json.loads((place / "stepped" / "debias_report.json").read_text())["verdict"] == report.verdict
    assert "eval_worst_group_accuracy" in json.loads((place / "stepped" / "eval_results.json").read_text())


@pytest.mark.slow
def test_extract_on_two_processes(place):
    words = ["--model", place / "model", "--output", place / "extracted", "--shard-size", 16]
    launched("extract", place / "data", *words)
    rows = load_from_disk(place / "extracted")["test"]
    expected = hm.extract(load_from_disk(place / "data")["test"], resnet(), processor())
    np.testing.assert_allclose(rows["logits"][:], expected["logits"][:], atol=1e-5)
    shards = sorted((place / "extracted.shards" / "test").glob("shard-*.json"))
    numbers = [json.loads(path.read_text())["first"] for path in shards]
    assert numbers == list(range(0, 61, 16))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_other_steps_one_after_the_other_on_two_processes(place):
    """Only one of the processes writes, and the other does not stumble over what the first has written."""
    launched("extract", place / "data", "--model", place / "model", "--split", "train", "--output", place / "s0")
    launched("bands", place / "s0", "--output", place / "s1")
    launched("annotate", place / "s1", "--output", place / "s2", "--source", "thumbnail")
    launched("associate", place / "s2", "--output", place / "s3")
    launched("curate", place / "s2", "--findings", place / "s3", "--output", place / "s4")
    launched("retrain", place / "s4", "--model", place / "model", "--output", place / "s5")
    printed = launched("group_metrics", place / "s0", "--head", place / "s5" / "head", "--json")
    assert "worst_group" in json.loads(printed)
    launched("report", place / "s4", "--findings", place / "s3", "--output", place / "s6")
    assert (place / "s6" / "report.html").is_file()


@pytest.mark.slow
def test_run_on_two_processes(place):
    launched("run", place / "data", "--split", "train", "--model", place / "model", "--output", place / "repaired")
    assert (place / "repaired" / "model" / "model.safetensors").is_file()


# Configurations

CONFIGS = {
    "cpu_2": ("MULTI_GPU", 1, 2),
    "gpu_1": ("NO", 1, 1),
    "gpus": ("MULTI_GPU", 1, 8),
    "nodes": ("MULTI_GPU", 2, 16),
    "fsdp": ("FSDP", 1, 8),
}


def test_there_is_a_configuration_for_each_kind_of_machine():
    assert {path.stem for path in (SCRIPTS / "accelerate").glob("*.yaml")} == {*CONFIGS}


@pytest.mark.parametrize("name", CONFIGS)
def test_accelerate_reads_its_configurations(name):
    file = SCRIPTS / "accelerate" / f"{name}.yaml"
    config = load_config_from_file(str(file))  # refuses unknown keys
    assert (str(config.distributed_type.value), config.num_machines, config.num_processes) == CONFIGS[name]
    options = {f"fsdp_{key.removeprefix('fsdp_')}" for key in (config.fsdp_config or {})}
    known = {action.dest for action in launch_command_parser()._actions}
    assert options <= known, options - known
    assert config.use_cpu == (name == "cpu_2")


def test_every_task_has_a_configuration_of_known_keys():
    tasks = {path.stem for path in SCRIPTS.glob("*.py")}
    assert tasks == {*OF_TRAINER, *OF_CLI, "launching"}
    tasks -= {"launching"}  # what the two of the trainer share
    assert {path.stem for path in (SCRIPTS / "configs").glob("*.yaml")} == tasks


@pytest.mark.parametrize("task", OF_TRAINER)
def test_configurations_of_the_trainer_are_parsed(task, tmp_path):
    file = SCRIPTS / "configs" / f"{task}.yaml"
    values = yaml.safe_load(file.read_text())
    script, args = parsed(["--config", str(file), "--output_dir", str(tmp_path)])
    assert isinstance(args, hm.MidRangeArguments)
    for key, value in values.items():
        if key != "output_dir":
            kept = getattr(script if key in {part.name for part in fields(ScriptArguments)} else args, key)
            assert getattr(kept, "value", kept) == value, key


@pytest.mark.parametrize("task", OF_CLI)
def test_configurations_of_commands_have_known_keys(task):
    from typer.main import get_command

    command = get_command(cli.app).commands["evaluate" if task == "group_metrics" else task]
    known = {flag.lstrip("-").replace("_", "-") for parameter in command.params for flag in parameter.opts}
    values = yaml.safe_load((SCRIPTS / "configs" / f"{task}.yaml").read_text())
    assert {key.replace("_", "-") for key in values} <= known


def test_unknown_keys_are_refused_with_the_near_one(tmp_path):
    file = tmp_path / "train.yaml"
    file.write_text("model: m\ndataset: d\nlearing_rate: 0.1\n")
    with pytest.raises(ValueError, match="'learing_rate'; did you mean learning_rate"):
        parsed(["--config", str(file)])


def test_debias_wants_rows_that_were_held_out(place, tmp_path):
    words = ["--model", str(place / "model"), "--dataset", str(place / "data"), "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="does not say which rows were held out"):
        debias(*parsed(words))
    with pytest.raises(ValueError, match="no split 'held'; it has train, test"):
        debias(*parsed([*words, "--curation_split", "held"]))


def test_scripts_do_nothing_on_import_and_hide_no_library():
    for path in (SCRIPTS / f"{task}.py" for task in (*OF_TRAINER, *OF_CLI)):
        body = ast.parse(path.read_text()).body
        assert all(isinstance(node, ast.Expr | ast.Import | ast.ImportFrom | ast.If) for node in body), path
        assert path.stem not in {"evaluate", "datasets", "accelerate", "transformers"}
