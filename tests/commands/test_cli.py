"""The commands as a user types them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, load_from_disk
from support.commands import called
from support.concept_models import save_clip
from typer.testing import CliRunner

from hf_midrange import columns
from hf_midrange.commands import app as cli
from hf_midrange.concepts.usual import source_named
from hf_midrange.io.datasets import read_dataset, write_dataset


SCRIPTS = Path(__file__).parents[2] / "scripts"
STEPS = ["extract", "bands", "annotate", "associate", "curate", "retrain", "evaluate"]
COMMANDS = [*STEPS, "run", "publish", "report", "demo"]


def typed(*words, code=None):
    """Run `hf-midrange` in a process of its own, as typed in a shell."""
    command = [sys.executable, "-m", "hf_midrange.commands.app", *map(str, words)]
    run = subprocess.run(command, capture_output=True, text=True)
    if code is not None:
        assert run.returncode == code, run.stderr
    return run




@pytest.fixture(scope="module")
def extracted():
    """A dataset as `extract` leaves it: two classes tied to a place, which the logits use."""
    rng = np.random.default_rng(0)
    n = 400
    label = rng.integers(0, 2, n)
    water = np.where(rng.random(n) < 0.9, label, 1 - label)
    embedding = np.column_stack([label, water, *np.zeros((4, n))]) + rng.normal(0, 0.3, (n, 6))
    score = embedding @ np.array([1.0, 2.0, 0, 0, 0, 0]) - 1.5
    logits = np.column_stack([-score, score])
    bird = ClassLabel(names=["land bird", "water bird"])
    features = Features({"label": bird, "place": Value("string"), "group": ClassLabel(names=["00", "01", "10", "11"])})
    rows = {"label": label, "place": np.where(water, "water", "land"), "group": 2 * label + water}
    return columns.with_columns(
        Dataset.from_dict(rows, features=features),
        {
            columns.EMBEDDING: (embedding.astype(np.float32), columns.vector(6)),
            columns.LOGITS: (logits.astype(np.float32), columns.vector(2)),
            columns.PREDICTION: (logits.argmax(axis=1), bird),
        },
    )


@pytest.fixture
def saved(extracted, tmp_path):
    extracted.save_to_disk(tmp_path / "extracted")
    return tmp_path / "extracted"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_names_its_flags(command):
    shown = called(command, "--help").output
    assert "--config" in shown
    assert "Usage: " in shown


def test_help_loads_no_deep_learning_library():
    code = "import sys, hf_midrange.commands.app; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_commands_are_those_of_the_contract_so_far():
    there = {command.callback.__name__ for command in cli.app.registered_commands}
    assert there == {*COMMANDS, "explore", "check", "env"}


def test_version():
    from hf_midrange import __version__

    assert typed("--version", code=0).stdout.split() == ["hf-midrange", __version__]


def test_wrong_flag_exits_2_and_names_the_near_one(tmp_path):
    run = typed("curate", "somewhere", "--outptu", tmp_path, code=2)
    assert "--outptu" in run.stderr
    assert "--output" in run.stderr


def test_wrong_command_exits_2():
    assert "asociate" in typed("asociate", code=2).stderr


def test_missing_flag_exits_2_and_is_named():
    assert "--output" in typed("bands", "somewhere", code=2).stderr


def test_missing_dataset_is_one_line_and_exits_1(tmp_path):
    run = typed("bands", tmp_path / "no" / "such", "--output", tmp_path / "out", code=1)
    assert run.stderr.startswith("error: ")
    assert "no/such" in run.stderr
    assert len(run.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_warning_is_one_line_without_source_code(capsys):
    cli._show_warning(UserWarning("few\n rows"), UserWarning, "file.py", 3)
    assert capsys.readouterr().err == "warning: few rows\n"


def test_output_that_is_not_empty_is_refused_before_work(saved, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    with pytest.raises(ValueError, match=r"not empty.*--overwrite"):
        called("bands", saved, "--output", tmp_path / "out")
    called("bands", saved, "--output", tmp_path / "out", "--overwrite")
    assert (tmp_path / "out" / "mine.txt").read_text() == "kept"
    assert columns.BAND in load_from_disk(tmp_path / "out").column_names


def test_a_dataset_without_rows_is_read_back(tmp_path):
    empty = Dataset.from_dict({"unit": []}, features=Features({"unit": Value("int64")}))
    write_dataset(empty, tmp_path / "without_rows")
    assert read_dataset(str(tmp_path / "without_rows")).features == empty.features


def test_output_is_never_the_dataset_itself(saved):
    with pytest.raises(ValueError, match="that is read"):
        called("bands", saved, "--output", saved, "--overwrite")


def test_yaml_file_gives_flags_and_typed_flags_win(saved, tmp_path):
    file = tmp_path / "flags.yaml"
    file.write_text(f"dataset: {saved}\noutput: {tmp_path / 'from-file'}\nsource: ['annotations:place']\n")
    called("annotate", "--config", file)
    assert "concepts_annotations" in load_from_disk(tmp_path / "from-file").column_names
    called("annotate", "--output", tmp_path / "typed", "--config", file)
    assert "concepts_annotations" in load_from_disk(tmp_path / "typed").column_names


def test_yaml_flags_may_have_dashes_and_types_are_checked(tmp_path):
    file = tmp_path / "flags.yaml"
    file.write_text("batch-size: many\n")
    run = typed("extract", "d", "--model", "m", "--output", tmp_path / "o", "--config", file, code=2)
    assert "--batch-size" in run.stderr


def test_unknown_yaml_key_exits_2_and_names_the_near_one(tmp_path):
    file = tmp_path / "flags.yaml"
    file.write_text("strateggy: auto\n")
    run = typed("curate", "d", "--output", tmp_path / "o", "--config", file, code=2)
    assert "strateggy" in run.stderr
    assert "did you mean strategy?" in run.stderr


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", ""])
def test_file_that_is_no_mapping_exits_2(text, tmp_path):
    file = tmp_path / "flags.yaml"
    file.write_text(text)
    result = CliRunner().invoke(cli.app, ["curate", "d", "--output", str(tmp_path / "o"), "--config", str(file)])
    assert result.exit_code == 2


def test_unknown_source_names_those_there_are(saved, tmp_path):
    with pytest.raises(ValueError, match=r"'ngram:text' is none of .*ngrams:COLUMN"):
        called("annotate", saved, "--output", tmp_path / "o", "--source", "ngram:text")


def test_messages_speak_of_flags_and_not_of_python():
    python = "drop such rows with on_error='skip', or name it by `label=`; `keep_disguised=True` keeps"
    said = cli._told(ValueError(python))
    assert said == "drop such rows with --on-error skip, or name it by --label; `keep_disguised=True` keeps"
    assert cli._told(KeyError("rename your own column to 'a' with `rename_column`")) == "rename your own column to 'a'"


def test_what_is_not_there_is_no_hub_id(tmp_path):
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\nfine,good\n")
    with pytest.raises(FileNotFoundError, match="there is no folder ./nomodel with a model"):
        called("run", rows, "--model", "./nomodel", "--output", tmp_path / "out")
    with pytest.raises(FileNotFoundError, match=r"there is no folder or file reviews\.csv"):
        called("run", "reviews.csv", "--model", "me/model", "--output", tmp_path / "out")
    with pytest.raises(ValueError, match="has not been through a model; give --model"):
        called("evaluate", rows)


def test_evaluate_counts_groups(saved, extracted):
    metrics = json.loads(called("evaluate", saved, "--json").stdout)
    right = np.array(extracted["prediction"]) == np.array(extracted["label"])
    by_group = [right[np.array(extracted["group"]) == g].mean() for g in range(4)]
    assert metrics["mean"] == pytest.approx(right.mean())
    assert metrics["worst_group"] == pytest.approx(min(by_group))
    shown = called("evaluate", saved).stdout
    assert metrics["worst_group_name"] in {"00", "01", "10", "11"}
    assert f"{100 * min(by_group):.1f} % (" in shown


def test_steps_chain_from_bands_to_curated_rows(saved, tmp_path):
    banded, annotated = tmp_path / "banded", tmp_path / "annotated"
    called("bands", saved, "--output", banded)
    called("annotate", banded, "--output", annotated, "--source", "annotations:place")
    table = called("associate", annotated, "--output", tmp_path / "findings", "--seed", "1").stdout
    assert "annotations: place=water" in table  # whole, not cut to the width of a terminal
    called("curate", annotated, "--output", tmp_path / "curated", "--findings", tmp_path / "findings")
    curated = read_dataset(str(tmp_path / "curated"))
    assert len(curated) == 400
    assert {columns.BAND, "concepts_annotations", columns.KEEP, columns.REASON} <= {*curated.column_names}


def test_saved_bands_give_the_same_bands_again(saved, tmp_path):
    called("bands", saved, "--output", tmp_path / "first")
    called("bands", saved, "--output", tmp_path / "second", "--bands", tmp_path / "first" / "bands")
    first, second = load_from_disk(tmp_path / "first"), load_from_disk(tmp_path / "second")
    np.testing.assert_array_equal(columns.matrix(first, columns.BAND), columns.matrix(second, columns.BAND))


def test_files_of_rows_become_datasets_with_class_names(tmp_path):
    rows = Dataset.from_dict({"text": ["good", "bad", "fine"], "label": ["pos", "neg", "pos"]})
    rows.to_csv(tmp_path / "rows.csv")
    rows.to_json(tmp_path / "rows.jsonl")
    rows.to_parquet(tmp_path / "rows.parquet")
    for name in ("rows.csv", "rows.jsonl", "rows.parquet"):
        ds = read_dataset(str(tmp_path / name))
        assert ds.features["label"].names == ["neg", "pos"]
        assert ds["label"][:] == [1, 0, 1]
    (tmp_path / "rows.txt").write_text("good")
    with pytest.raises(ValueError, match=r"\.txt.*\.parquet"):
        read_dataset(str(tmp_path / "rows.txt"))


def test_image_folder_becomes_a_dataset(tmp_path):
    from PIL import Image

    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "0.png")
    assert read_dataset(str(tmp_path)).features["label"].names == ["cat", "dog"]


def test_splits_are_chosen_by_name_and_writing_changes_kind(extracted, saved, tmp_path):
    write_dataset(DatasetDict(train=extracted, test=extracted.select(range(7))), tmp_path / "both")
    assert len(read_dataset(str(tmp_path / "both"), "test")) == 7
    with pytest.raises(ValueError, match="no split 'val'; it has train, test"):
        read_dataset(str(tmp_path / "both"), "val")
    with pytest.raises(ValueError, match="train, test; choose one with --split"):
        called("evaluate", tmp_path / "both")
    write_dataset(extracted, tmp_path / "both")
    assert len(read_dataset(str(tmp_path / "both"))) == len(extracted)


@pytest.fixture(scope="module")
def tiny_vit(tmp_path_factory):
    """A random image classifier and its preprocessing in a folder, as `save_pretrained` leaves them."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    names = {0: "dark", 1: "bright"}
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
        id2label=names,
        label2id={name: k for k, name in names.items()},
    )
    folder = tmp_path_factory.mktemp("model")
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A saved dataset of 60 noisy images, most of them as dark or bright as their label says."""
    from datasets import Image as ImageFeature
    from PIL import Image

    rng = np.random.default_rng(0)
    label = np.arange(60) % 2
    bright = np.where(rng.random(60) < 0.9, label, 1 - label)
    pixels = (rng.integers(0, 120, (60, 16, 16, 3)) + 130 * bright[:, None, None, None]).astype(np.uint8)
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=["dark", "bright"])})
    folder = tmp_path_factory.mktemp("images")
    rows = {"image": [Image.fromarray(array) for array in pixels], "label": label}
    Dataset.from_dict(rows, features=features).save_to_disk(folder / "ds")
    return folder / "ds"


def test_extract_then_retrain_gives_a_model_that_loads_without_us(images, tiny_vit, tmp_path):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    out = tmp_path / "extracted"
    called("extract", images, "--model", tiny_vit, "--output", out, "--batch-size", "8")
    ds = load_from_disk(out)
    assert columns.matrix(ds, columns.LOGITS).shape == (60, 2)
    called("curate", out, "--output", tmp_path / "curated", "--strategy", "class-balanced")
    called("retrain", tmp_path / "curated", "--model", tiny_vit, "--output", tmp_path / "repaired", "--merge")
    before = AutoModelForImageClassification.from_pretrained(tiny_vit).state_dict()
    after = AutoModelForImageClassification.from_pretrained(tmp_path / "repaired" / "model").state_dict()
    assert {name for name in after if not after[name].equal(before[name])} == {"classifier.weight", "classifier.bias"}
    AutoImageProcessor.from_pretrained(tmp_path / "repaired" / "model")
    scored = called("evaluate", tmp_path / "curated", "--head", tmp_path / "repaired" / "head", "--json").stdout
    assert json.loads(scored)["mean"] > 0.7


def test_run_writes_every_result(images, tiny_vit, tmp_path):
    words = ["run", images, "--model", tiny_vit, "--output", tmp_path / "all", "--source", "thumbnail"]
    done = CliRunner().invoke(cli.app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code in (0, 3), done.output
    written = {path.name for path in (tmp_path / "all").glob("[!.]*")}
    repaired = {"model"} if done.exit_code == 0 else set()
    assert written - repaired == {
        "bands", "curated", "findings", "head", "debias_report.json", "report.html", "report.json"
    }  # fmt: skip
    assert repaired <= written


def test_models_and_fitted_files_are_sources_too(images, tiny_vit, tmp_path):
    words = "--source", f"early-features:{tiny_vit}", "--source", "thumbnail"
    called("annotate", images, "--output", tmp_path / "a", *words)
    fitted = sorted((tmp_path / "a" / "sources").glob("*.json"))
    again = [word for file in fitted for word in ("--source", file)]
    called("annotate", images, "--output", tmp_path / "b", *again)
    first, second = load_from_disk(tmp_path / "a"), load_from_disk(tmp_path / "b")
    assert {"concepts_early_features", "concepts_thumbnail"} <= set(first.column_names)
    assert first.features == second.features
    assert first[:]["concepts_early_features"] == second[:]["concepts_early_features"]


def test_zero_shot_words_and_model_come_from_the_command_line(images, tmp_path):
    save_clip(tmp_path / "clip")
    source = f"zero-shot:colours:{tmp_path / 'clip'}"
    called("annotate", images, "--output", tmp_path / "c", "--source", source)
    assert "a red object" in columns.vocabulary(load_from_disk(tmp_path / "c").features, "concepts_zero_shot")


@pytest.mark.parametrize("text", ["ngrams", "predictions", "zero-shot:colours", "latent:4"])
def test_a_source_without_what_it_needs_is_refused(text):
    with pytest.raises(ValueError, match=re.escape(f"--source {text}") + "|none of"):
        source_named(text)


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "demo"])
def test_every_step_has_a_script_for_launchers(command):
    script = SCRIPTS / ("group_metrics.py" if command == "evaluate" else f"{command}.py")
    run = subprocess.run([sys.executable, script, "--help"], capture_output=True, text=True, check=True)
    assert f"Usage: hf-midrange {command} " in run.stdout


def test_no_script_hides_a_library():
    from importlib.machinery import PathFinder

    names = [script.stem for script in SCRIPTS.glob("*.py")]
    ours = SCRIPTS.resolve().parent  # other tests add folders of it to the path
    elsewhere = [path for path in sys.path if not Path(path).resolve().is_relative_to(ours)]
    assert [name for name in names if PathFinder.find_spec(name, elsewhere)] == []


@pytest.mark.slow
def test_two_processes_write_the_rows_of_one(images, tiny_vit, tmp_path):
    flags = [str(images), "--model", str(tiny_vit), "--batch-size", "8", "--output"]
    called("extract", *flags, tmp_path / "one")
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    subprocess.run([*launch, SCRIPTS / "extract.py", *flags, tmp_path / "two"], check=True, capture_output=True)
    one, two = load_from_disk(tmp_path / "one"), load_from_disk(tmp_path / "two")
    assert one["label"][:] == two["label"][:]
    for column in (columns.EMBEDDING, columns.LOGITS):
        np.testing.assert_allclose(columns.matrix(one, column), columns.matrix(two, column), atol=1e-5)
