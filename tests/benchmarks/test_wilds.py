"""Readers of published benchmarks: their layouts in small, the refusals, and the way from files to the table."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value
from hypothesis import given
from hypothesis import strategies as st
from support.wilds_files import (
    IDENTITIES,
    RELATIONS,
    celeba_files,
    civilcomments_files,
    multinli_files,
    waterbirds_files,
    write_csv,
)
from wilds_images import celeba, waterbirds
from wilds_published import FIGURES
from wilds_repair import markdown
from wilds_scores import overlapping_group_metrics
from wilds_texts import civilcomments, has_negation, multinli

from hf_midrange import columns


SPLITS = ("train", "validation", "test")
SCRIPTS = Path(__file__).parents[2] / "scripts"
WILDS = Path(__file__).parents[2] / "benchmarks" / "wilds"


def by_split(values, split, code):
    return [value for value, part in zip(values, split, strict=True) if part == code]


def test_waterbirds_rows_are_those_of_the_table(tmp_path):
    names, split, label, place = waterbirds_files(tmp_path, sizes=(20, 9, 8))
    data = waterbirds(tmp_path)
    assert tuple(data) == SPLITS
    for code, part in enumerate(data.values()):
        assert part["label"][:] == by_split(label, split, code)
        assert part["group"][:] == by_split(2 * label + place, split, code)
        paths = [row["path"] for row in part.cast_column("image", Image(decode=False))["image"]]
        assert paths == [str(tmp_path / name) for name in by_split(names, split, code)]
    assert data["train"].features["group"].names == [
        "landbird on land", "landbird on water", "waterbird on land", "waterbird on water",
    ]  # fmt: skip
    assert data["test"][0]["image"].size == (16, 16)


def test_no_picture_is_read_before_its_row_is(tmp_path):
    names, *_ = waterbirds_files(tmp_path, sizes=(6, 4, 4))
    (tmp_path / names[0]).write_bytes(b"no picture")
    data = waterbirds(str(tmp_path))
    assert sum(map(len, data.values())) == 14


@pytest.mark.parametrize(("text", "nested"), [(False, False), (False, True), (True, False)])
def test_celeba_of_both_layouts(tmp_path, text, nested):
    _, split, blond, male = celeba_files(tmp_path, text, nested)
    data = celeba(tmp_path)
    for code, part in enumerate(data.values()):
        assert part["label"][:] == by_split(blond, split, code)
        assert part["group"][:] == by_split(2 * blond + male, split, code)
    assert data["train"].features["group"].names[3] == "blond and male"
    assert data["train"][0]["image"].size == (16, 16)


def test_multinli_joins_sentences_by_row_number(tmp_path):
    rows, table = multinli_files(tmp_path)
    data = multinli(tmp_path)
    for code, part in enumerate(data.values()):
        expected = [row for row in table if row[3] == code]
        assert part["text_pair"][:] == [rows[row[0]]["sentence2"] for row in expected]
        assert part["text"][:] == [rows[row[0]]["sentence1"] for row in expected]
        assert [RELATIONS[k] for k in part["label"]] == [rows[row[0]]["gold_label"] for row in expected]
        assert part["group"][:] == [2 * row[1] + row[2] for row in expected]
        assert [has_negation(text) for text in part["text_pair"]] == [bool(row[2]) for row in expected]


def test_a_table_of_other_sentences_is_told_apart(tmp_path):
    multinli_files(tmp_path)
    first = tmp_path / "multinli_1.0_train.jsonl"
    lines = first.read_text().splitlines(keepends=True)
    first.write_text("".join(lines[1:] + lines[:1]))
    with pytest.raises(ValueError, match="disagree in"):
        multinli(tmp_path)
    first.write_text("".join(lines[:10]))
    with pytest.raises(ValueError, match=r"row numbers .*40 sentences"):
        multinli(tmp_path)


@given(st.lists(st.sampled_from(["no", "No", "NOTHING", "never!", "know", "nobody's", "none", "not"]), max_size=5))
def test_negation_is_one_of_four_words(words):
    """`nobody's` loses its apostrophe and is another word, as in the published script."""
    sentence = " ".join(words)
    assert has_negation(sentence) == any(word in ("no", "No", "NOTHING", "never!") for word in words)


@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_civilcomments_groups(tmp_path, kind):
    rows = civilcomments_files(tmp_path, (30, 12, 12))
    data = civilcomments(tmp_path, kind)
    for name, part in zip(("train", "val", "test"), data.values(), strict=True):
        expected = [row for row in rows if row[2] == name]
        assert part["text"][:] == [row[1] for row in expected]
        assert part["label"][:] == [int(row[3] >= 0.5) for row in expected]
        shares = np.array([row[4:12] for row in expected])
        if kind == "coarse":
            assert part["group"][:] == [
                2 * y + int((row >= 0.5).any()) for y, row in zip(part["label"], shares, strict=True)
            ]
            assert set(part.column_names) == {"text", "label", "group"}
        else:
            for k, identity in enumerate(IDENTITIES):
                assert part[identity][:] == (shares[:, k] >= 0.5).tolist()
            assert "group" not in part.column_names


def test_the_kind_of_groups_must_be_said(tmp_path):
    with pytest.raises(ValueError, match="'coarse' or 'fine', got 'any'"):
        civilcomments(tmp_path, "any")


def test_overlapping_groups_count_a_row_in_each():
    present = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    values = {"label": [0, 0, 1, 1, 1], **{name: [False] * 5 for name in IDENTITIES}}
    for k, name in enumerate(IDENTITIES[:3]):
        values[name] = present[:, k].tolist()
    kinds = {"label": ClassLabel(names=["ok", "toxic"]), **{name: Value("bool") for name in IDENTITIES}}
    ds = Dataset.from_dict(values, features=Features(kinds))
    found = overlapping_group_metrics(np.array([0, 1, 1, 1, 1]), ds)
    assert {name: (row["accuracy"], row["n"]) for name, row in found["groups"].items()} == {
        "ok, male": (0.5, 2), "toxic, male": (1.0, 1), "ok, female": (1.0, 1), "toxic, female": (1.0, 1),
    }  # fmt: skip
    assert (found["mean"], found["worst_group"], found["worst_group_name"]) == (0.8, 0.5, "ok, male")
    with pytest.raises(ValueError, match="3 predictions for 5 rows"):
        overlapping_group_metrics(np.zeros(3), ds)


def hub_pictures(names):
    values = {"image": [None, None], names[0]: [1, 0], names[1]: [1, 1], "celeb_id": [5, 6]}
    kinds = {"image": Image(), names[0]: Value("int64"), names[1]: Value("int64"), "celeb_id": Value("int64")}
    return Dataset.from_dict(values, features=Features(kinds))


def test_hub_layouts_of_pictures():
    part = hub_pictures(("label", "place"))
    data = waterbirds(DatasetDict(train=part, validation=part, test=part))
    assert data["test"]["group"][:] == [3, 1]
    part = hub_pictures(("Blond_Hair", "Male")).cast_column("Male", Value("bool"))
    data = celeba(DatasetDict(train=part, valid=part, test=part))
    assert tuple(data) == SPLITS
    assert data["validation"].column_names == ["image", "label", "group"]
    assert data["validation"]["group"][:] == [3, 1]


def test_hub_layouts_of_texts(tmp_path):
    names = ["entailment", "neutral", "contradiction"]
    kinds = Features({"premise": Value("string"), "hypothesis": Value("string"), "label": ClassLabel(names=names)})
    rows = {"premise": ["a"] * 30, "hypothesis": ["no"] * 15 + ["yes"] * 15, "label": [0, 1, 2] * 10}
    part = Dataset.from_dict(rows, features=kinds)
    theirs = DatasetDict(train=part, validation_matched=part, validation_mismatched=part)
    data = multinli(theirs, seed=1)
    assert [len(part) for part in data.values()] == [45, 18, 27]
    names_of_columns = ("text_pair", "label", "group")
    every = [row for part in data.values() for row in zip(*(part[name] for name in names_of_columns), strict=True)]
    wanted = [(text, RELATIONS.index(names[k])) for text, k in zip(rows["hypothesis"], rows["label"], strict=True)]
    assert sorted((text, k) for text, k, _ in every) == sorted(wanted * 3)
    assert all(group == 2 * k + (text == "no") for text, k, group in every)
    assert multinli(theirs, seed=1)["test"]["group"][:] == data["test"]["group"][:]

    comments = civilcomments_files(tmp_path, (9, 6, 6))
    values = {"text": [row[1] for row in comments], "toxicity": [row[3] for row in comments]}
    part = Dataset.from_dict(values | {name: [row[4 + k] for row in comments] for k, name in enumerate(IDENTITIES)})
    from_hub = civilcomments(DatasetDict(train=part, val=part, test=part), "coarse")
    from_file = civilcomments(tmp_path, "coarse")
    assert from_hub["train"]["group"][:9] == from_file["train"]["group"][:]


def test_other_layouts_are_refused_by_what_they_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"must hold metadata\.csv; found: \[\]"):
        waterbirds(tmp_path)
    write_csv(tmp_path / "metadata.csv", ("file", "y", "split"), [("a.png", 0, 0)])
    with pytest.raises(ValueError, match=r"lacks the columns \['img_filename', 'place'\].*'file', 'y', 'split'"):
        waterbirds(tmp_path)
    header = ("img_filename", "y", "split", "place")
    write_csv(tmp_path / "metadata.csv", header, [("a.png", 2, 0, 0)])
    with pytest.raises(ValueError, match=r"column 'y' must hold 0 to 1, but is 2\.0 in row 0"):
        waterbirds(tmp_path)
    write_csv(tmp_path / "metadata.csv", header, [("a.png", 1, 0, 0)])
    with pytest.raises(FileNotFoundError, match="1 of 1 images are missing"):
        waterbirds(tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(ValueError, match="the validation split"):
        waterbirds(tmp_path)
    part = hub_pictures(("label", "background"))
    with pytest.raises(ValueError, match=r"lacks \['place'\]; it has .*background"):
        waterbirds(DatasetDict(train=part, validation=part, test=part))
    with pytest.raises(ValueError, match="must have the splits"):
        waterbirds(DatasetDict(train=part))


def test_every_benchmark_has_its_figures():
    readers = runpy.run_path(str(WILDS / "prepare.py"))["READERS"]
    assert list(FIGURES) == list(readers)
    assert all(figure.source and figure.groups for rows in FIGURES.values() for figure in rows)


def run_script(script, *words):
    """Run a script in this process, as starting three for each test costs a minute."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(script), *map(str, words)])
        runpy.run_path(str(script), run_name="__main__")


def all_the_way(place, benchmark, source, model, save_processor):
    """Files -> prepared -> trained by the recipe, shortened -> repaired and compared."""
    run_script(WILDS / "prepare.py", benchmark, source, "--output", place / "data")
    model.save_pretrained(place / "model")
    save_processor(place / "model")
    recipe = WILDS / f"{benchmark.split('-')[0]}.yaml"
    words = ["--config", recipe, "--model", place / "model", "--dataset", place / "data"]
    words += ["--output_dir", place / "trained", "--max_steps", 12, "--learning_rate", 0.01, "--fp16", False]
    script = WILDS / "train.py" if benchmark == "waterbirds" else SCRIPTS / "train.py"
    run_script(script, *words, "--bf16", False, "--dataloader_num_workers", 0, "--disable_tqdm", True)
    words = ["--dataset", place / "data", "--model", place / "trained", "--output", place / "table"]
    run_script(WILDS / "compare.py", benchmark, *words)
    facts = json.loads((place / "table" / "scores.json").read_text())
    table = (place / "table" / "scores.md").read_text()
    assert table == markdown(facts, benchmark)
    assert facts["methods"]["ERM"]["worst_group"] <= facts["methods"]["ERM"]["mean"]
    return table, facts


def test_pictures_all_the_way(tmp_path):
    from support.trainer_parts import processor, resnet

    waterbirds_files(tmp_path / "files")
    table, facts = all_the_way(
        tmp_path, "waterbirds", tmp_path / "files", resnet(), lambda folder: processor().save_pretrained(folder)
    )
    assert "| AFR | validation, to choose | 90.4 |" in table
    assert set(facts["methods"]) == {"ERM", "hf_midrange", "class-balanced, same head", "true groups, same head"}
    assert "mean_reweighted" in facts["methods"]["ERM"]
    assert facts["rows"] == {"train": 240, "validation": 160, "test": 80}


def test_texts_all_the_way(tmp_path):
    from support.trainer_parts import bert, tokenizer

    civilcomments_files(tmp_path / "files")
    table, facts = all_the_way(
        tmp_path,
        "civilcomments-fine",
        tmp_path / "files",
        bert(),
        lambda folder: tokenizer().save_pretrained(folder),
    )
    assert "other kinds cannot be compared" in table
    assert set(facts["methods"]) == {"ERM", "hf_midrange", "class-balanced, same head"}
    names = {name.split(", ")[1] for name in facts["methods"]["ERM"]["groups"]}
    assert names <= set(IDENTITIES)
    assert columns.GROUP not in facts


def test_crops_are_of_the_inputs_size_and_change_each_time():
    from PIL import Image as PILImage
    from transformers import ConvNextImageProcessor
    from wilds_crops import augmented

    from hf_midrange.training import MidRangeArguments

    rng = np.random.default_rng(0)
    images = [PILImage.fromarray(rng.integers(0, 255, (40, 30, 3)).astype(np.uint8)) for _ in range(3)]
    kinds = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    ds = Dataset.from_dict({"image": images, "label": [0, 1, 0]}, features=kinds)
    processor = ConvNextImageProcessor(size={"shortest_edge": 16}, crop_pct=0.875)
    rows = augmented(ds, processor, MidRangeArguments(output_dir="unused"))
    first, second = rows[:], rows[:]
    assert [tuple(pixels.shape) for pixels in first["pixel_values"]] == [(3, 16, 16)] * 3
    assert first["label"] == [0, 1, 0]
    assert not np.allclose(first["pixel_values"][0], second["pixel_values"][0])
    with pytest.raises(ValueError, match="name a --curation_split"):
        augmented(ds, processor, MidRangeArguments(output_dir="unused", curation_fraction=0.2))
    with pytest.raises(ValueError, match="crops are of images"):
        augmented(ds.remove_columns("image"), processor, MidRangeArguments(output_dir="unused"))


@pytest.mark.parametrize("name", ["waterbirds", "celeba", "multinli", "civilcomments"])
def test_recipes_are_the_published_ones(name, tmp_path):
    """Against the ERM commands in the README of the code of arXiv 2210.11369."""
    from launching import parsed
    from transformers import Trainer

    file = WILDS / f"{name}.yaml"
    _, args = parsed(["--config", str(file), "--output_dir", str(tmp_path), "--bf16", "False"])
    published = {"waterbirds": (100, 32, 3e-3), "celeba": (20, 100, 3e-3)}.get(name, (10, 16, 1e-5))
    assert (args.num_train_epochs, args.per_device_train_batch_size, args.learning_rate) == published
    assert args.weight_decay == 1e-4
    kind, options = Trainer.get_optimizer_cls_and_kwargs(args)
    of_images = name in ("waterbirds", "celeba")
    assert (kind.__name__, options.get("momentum")) == (("SGD", 0.9) if of_images else ("AdamW", None))
    assert args.lr_scheduler_type.value == ("cosine" if of_images else "linear")


def test_a_momentum_that_would_be_lost_is_refused(tmp_path, monkeypatch):
    from launching import parsed
    from transformers import Trainer
    from wilds_crops import refuse_lost_momentum

    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", staticmethod(lambda *_: (None, {"lr": 0.1})))
    words = ["--config", str(WILDS / "waterbirds.yaml"), "--output_dir", str(tmp_path), "--bf16", "False"]
    with pytest.raises(ValueError, match=r"'momentum=0\.9', but transformers .* does not read"):
        refuse_lost_momentum(parsed(words)[1])
