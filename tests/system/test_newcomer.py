"""The first hour of two newcomers, in an empty folder, by what README tells them: photographs and a CSV of reviews."""

import csv
import json
from types import SimpleNamespace

import pytest
from datasets import load_from_disk
from support.trainer_parts import CLASSES, bert, pictures, processor, resnet, texts, tokenizer
from support.training_rows import arguments

import hf_midrange as hm
from hf_midrange.commands import app as cli


STATUS = {"shown": 0}
"""Exit status of `run` by its verdict; any other is 3."""


@pytest.fixture
def typed(capsys, monkeypatch):
    """Runs `hf-midrange` in a folder, as typed in a shell: what it says, and its exit status."""

    def run(*words, where):
        monkeypatch.chdir(where)
        capsys.readouterr()
        status = 0
        try:
            cli.main([str(word) for word in words])
        except SystemExit as ended:
            status = ended.code
        said = capsys.readouterr()
        return SimpleNamespace(returncode=status or 0, stdout=said.out, stderr=said.err)

    return run


def trained(network, rows, folder, save_in, **options):
    """Fine-tune a network as any `Trainer` script does, and save it with its preprocessing."""
    args = arguments(folder, max_steps=options.pop("steps"), per_device_train_batch_size=32, learning_rate=3e-3)
    trainer = hm.MidRangeTrainer(network, args, train_dataset=rows, **options)
    trainer.train()
    trainer.save_model(str(save_in))
    return trainer


def as_image_folder(rows, folder):
    """Write photographs as people have them: files, with labels and groups as text in a table."""
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "label", "group"])
        for number, row in enumerate(rows):
            row["image"].save(folder / f"{number}.png")
            names = (rows.features[name].names[row[name]] for name in ("label", "group"))
            table.writerow([f"{number}.png", *names])


def as_csv(rows, file, text="text", keep=("label",)):
    with file.open("w", newline="") as opened:
        table = csv.writer(opened)
        table.writerow([text, *keep])
        for row in rows:
            table.writerow([row["text"], *(rows.features[name].names[row[name]] for name in keep)])


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """A folder with photographs, tinted by class in 19 of 20, and a network that has learnt the tint."""
    folder = tmp_path_factory.mktemp("photographs")
    as_image_folder(pictures(240, 0.95, seed=5), folder / "photos")
    as_image_folder(pictures(120, 0.5, seed=6), folder / "test")
    trained(resnet(), pictures(600, 0.95), folder / "out", folder / "model", steps=40, processing_class=processor())
    return folder


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """A folder with reviews in which a phrase goes with one class in 19 of 20, and a network that has learnt it."""
    folder = tmp_path_factory.mktemp("reviews")
    as_csv(texts(240, 0.95, seed=1), folder / "reviews.csv", text="sentence")
    as_csv(texts(120, 0.5, seed=2), folder / "test.csv", keep=("label", "group"))
    trained(bert(), texts(600, 0.95), folder / "out", folder / "model", steps=60, processing_class=tokenizer())
    return folder


def scores(typed, model, test, where, *more):
    """Return what `evaluate` says of a model in JSON."""
    done = typed("evaluate", test, "--model", model, *more, "--json", where=where)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("story", ["photographs", "reviews"])
def test_run_goes_from_rows_to_a_report_and_never_to_a_worse_model(story, request, typed):
    where = request.getfixturevalue(story)
    rows, test = ("photos", "test") if story == "photographs" else ("reviews.csv", "test.csv")
    words = ["run", rows, "--model", "model", "--evaluation", test, "--output", "repaired"]
    done = typed(*words, "--source", "image-properties" if story == "photographs" else "ngrams:text", where=where)
    assert "Traceback" not in done.stderr
    written = {path.name for path in (where / "repaired").glob("[!.]*")}
    report = json.loads((where / "repaired" / "debias_report.json").read_text())
    assert done.returncode == STATUS.get(report["verdict"], 3), done.stderr
    assert written >= {"bands", "curated", "findings", "head", "report.html", "report.json"}
    assert ("model" in written) == (done.returncode == 0)
    steps = [line for line in done.stderr.splitlines() if line.startswith("[")]
    assert [line[:5] for line in steps] == [f"[{number}/6]" for number in range(1, 7)]
    lines = done.stdout.splitlines()
    told = json.loads((where / "repaired" / "report.json").read_text())
    assert told["verdict"]["sentence"] in lines
    assert lines[-3].startswith("wrote repaired: ")
    assert lines[-2] == "look: repaired/report.html"
    assert lines[-1].startswith("next: hf-midrange ")
    assert len(lines) <= 25
    assert all(any(name in line for line in lines) for name in _groups(where / "repaired"))
    before = scores(typed, "model", test, where)
    after = scores(typed, "repaired/model" if done.returncode == 0 else "model", test, where)
    assert after["worst_group"] >= before["worst_group"]
    both = scores(typed, "model", test, where, "--head", "repaired/head")
    assert (both["before"]["worst_group"], both["worst_group"]) == pytest.approx(
        (before["worst_group"], after["worst_group"])
    )
    again = typed(*words, where=where)  # other sources: another command
    assert again.returncode == 1
    assert "not empty" in again.stderr


def _groups(folder):
    report = json.loads((folder / "debias_report.json").read_text())
    return [name.removeprefix("group_accuracy_") for name in report["before"] if name.startswith("group_accuracy_")
            and not name.endswith(("_ci_low", "_ci_high"))]  # fmt: skip


def test_two_names_in_a_trainer_script_lead_to_a_repaired_model(photographs, tmp_path):
    train, held, test = pictures(600, 0.95), pictures(240, 0.95, seed=5), pictures(120, 0.5, seed=6)
    trainer = trained(
        resnet(), train, tmp_path / "out", tmp_path / "model", steps=40,
        eval_dataset=test, curation_dataset=held, processing_class=processor(),
    )  # fmt: skip
    report = trainer.debias(sources=[hm.ImageProperties()])
    assert str(report).startswith(f"{report.verdict}: ")
    assert report.after["worst_group_accuracy"] >= report.before["worst_group_accuracy"]
    logged = {name for entry in trainer.state.log_history for name in entry}
    assert {"debias/before_worst_group_accuracy", "debias/after_worst_group_accuracy"} <= logged
    assert "<table>" in report._repr_html_()


def test_a_wrong_column_of_classes_is_told_before_the_model_runs(reviews, typed):
    with (reviews / "reviews.csv").open() as file:
        rows = list(csv.reader(file))
    with (reviews / "other.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "mood"], *rows[1:]])
    done = typed("run", "other.csv", "--model", "model", "--output", "none", where=reviews)
    assert done.returncode == 1
    assert "no column of classes among ['text', 'mood']" in done.stderr
    assert "--label" in done.stderr
    assert "[1/6]" not in done.stderr
    done = typed("extract", "other.csv", "--model", "model", "--label", "mood", "--output", "extracted", where=reviews)
    assert done.returncode == 0, done.stderr
    assert load_from_disk(reviews / "extracted").features["label"].names == CLASSES
