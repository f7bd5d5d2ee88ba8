"""The files of a publication: shards, embedded images, several splits as one configuration, the long form."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value, load_dataset
from PIL import Image as PILImage
from support.curated_rows import curated, report

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.publishing import PublishError, facts
from hf_midrange.publishing.dataset import Content, thumbnail, units_to_show, write_files, write_split


def written(ds, folder, **facts):
    write_files(Content.of(ds, **facts), "me/x-mid", folder)
    return folder


def test_shards_have_their_size_and_hold_every_row_in_order(tmp_path):
    rng = np.random.default_rng(0)
    ds = Dataset.from_dict({"row": range(10_500), "noise": rng.random(10_500)})
    split = write_split(ds, tmp_path, "train", max_bytes=50_000)  # of 10,500 rows of 16 bytes
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == [f"train-{k:05d}-of-00004.parquet" for k in range(4)]
    assert sum((pq.read_table(f)["row"].to_pylist() for f in files), []) == list(range(10_500))
    assert (split.rows, split.size) == (10_500, sum(f.stat().st_size for f in files))
    assert max(f.stat().st_size for f in files) < 60_000


def test_a_shard_has_at_least_one_row(tmp_path):
    write_split(Dataset.from_dict({"row": range(3)}), tmp_path, "train", max_bytes=1)
    assert [pq.read_table(f)["row"].to_pylist() for f in sorted(tmp_path.iterdir())] == [[0], [1], [2]]


def test_a_split_without_rows_keeps_its_features(tmp_path):
    ds = Dataset.from_dict({"label": []}, features=Features({"label": ClassLabel(names=["a"])}))
    assert write_split(ds, tmp_path, "train", max_bytes=1).rows == 0
    (file,) = tmp_path.iterdir()
    assert Features.from_arrow_schema(pq.read_schema(file)) == ds.features


def test_images_on_disk_are_embedded_whatever_the_format_or_the_selection(tmp_path):
    for k in range(4):
        PILImage.new("RGB", (8, 8), (k, 0, 0)).save(tmp_path / f"{k}.png")
    features = Features({"image": Image(), "label": Value("int64")})
    paths = [str(tmp_path / f"{k}.png") for k in range(4)]
    ds = Dataset.from_dict({"image": paths, "label": range(4)}, features=features)
    ds = ds.with_transform(lambda batch: {"nothing": [0] * len(batch["label"])}).select([3, 1])
    write_split(ds, tmp_path / "out", "train", max_bytes=10**6)
    (file,) = (tmp_path / "out").iterdir()
    stored = pq.read_table(file)["image"].to_pylist()
    assert [PILImage.open(io.BytesIO(p["bytes"])).getpixel((0, 0))[0] for p in stored] == [3, 1]
    assert str(tmp_path) not in str([p["path"] for p in stored])


def test_splits_share_features_and_keep_their_own_names_and_reports(tmp_path):
    first = curated(8, groups=("a", "b"), verdict=report("shown", "first"))
    other = curated(9, groups=("c", "a", "left out"), verdict=report("none seen", "other"))
    words = columns.concept_list(["actor", "film"])
    other = columns.with_columns(
        other, {"confounders": (columns.concept_arrow(np.eye(9, 2), ["actor", "film"]), words)}
    )
    both = DatasetDict({"held_out": first, "test": other})
    folder = written(both, tmp_path)
    loaded = load_dataset(str(folder))
    for name, split in both.items():
        got = loaded[name]
        assert hm.curation_report(got) == hm.curation_report(split)
        for column in split.column_names:
            if column in ("pseudo_group", "confounders"):
                old, new = split.features[column], got.features[column]
                old, new = getattr(old, "feature", old), getattr(new, "feature", new)
                spelt = [[f.int2str(v) for v in (cell if isinstance(cell, list) else [cell])] for f, cells in
                         ((old, split[column]), (new, got[column])) for cell in cells]  # fmt: skip
                assert spelt[: len(split)] == spelt[len(split) :]
            else:
                assert got[column][:] == split[column][:]
    assert len(load_dataset(str(folder), "long")["test"]) == 18


def test_splits_that_differ_otherwise_are_refused():
    with pytest.raises(PublishError, match="differ in the columns.*'extra'"):
        Content.of(DatasetDict({"a": curated(), "b": curated().add_column("extra", range(8))}))
    with pytest.raises(PublishError, match="'label' is ClassLabel.*cast_column"):
        Content.of(DatasetDict({"a": curated(), "b": curated(names=("no", "maybe"))}))


def test_bad_content_is_refused_with_what_would_work():
    with pytest.raises(PublishError, match=r"lacks the columns \['keep', 'weight'\].*hm.curate"):
        Content.of(curated().remove_columns(["weight", "keep"]))
    with pytest.raises(PublishError, match="no rows"):
        Content.of(curated().select([]))
    with pytest.raises(PublishError, match="not fitted"):
        Content.of(curated(), bands=hm.LogitBands())
    with pytest.raises(PublishError, match="associate"):
        Content.of(curated(), findings=curated())
    with pytest.raises(PublishError, match="Hub id"):
        Content.of(curated(), source="https://x.y/z")
    with pytest.raises(TypeError, match="Dataset or DatasetDict"):
        Content.of([1])
    with pytest.raises(ValueError, match="holds no report"):
        Content.of(curated().cast_column("reason", Value("string")))


def test_the_long_form_is_what_a_loop_writes(tmp_path):
    names, words = ("a: <b>", "c|d", "e"), ("film", "actor | x")
    ds = curated(2100, names=names, words=words)
    long = load_dataset(str(written(ds, tmp_path)), "long", split="train")
    assert len(long) == 3 * len(ds)
    expected = [
        {
            "row": k,
            "text": row["text"],
            "label": names[row["label"]],
            "unit": names[unit],
            "logit": row["logits"][unit],
            "quantile": row["quantile"][unit],
            "band": ["undefined", "low", "mid", "high"][row["band"][unit] + 1],
            "concepts": [f"words: {words[c]}" for c in row["concepts_words"]],
            "pseudo_group": ("g0", "g1")[row["pseudo_group"]],
            "kept": row["keep"],
            "weight": row["weight"],
            "reason": row["reason"],
        }
        for k, row in enumerate(ds)
        for unit in range(3)
    ]
    assert long.to_list() == expected


def test_with_many_classes_the_long_form_shows_those_with_findings_or_the_largest():
    ds = curated(40, names=tuple(f"class {k}" for k in range(20)))
    findings = Dataset.from_dict({"unit": [7, 3, 19, 3], "confounder": [False, True, False, False]})
    assert units_to_show(ds, findings) == [3, 7, 19]
    assert units_to_show(ds.filter(lambda k: k > 9, input_columns="label"), None) == list(range(10, 18))
    assert units_to_show(curated(), findings) == [0, 1]


def test_thumbnails_are_small_and_small_images_stay_as_they_are():
    def stored(size, mode="RGB", form="PNG"):
        out = io.BytesIO()
        PILImage.new(mode, size).save(out, format=form)
        return {"bytes": out.getvalue(), "path": None}

    small = stored((128, 5))
    assert thumbnail(small) == small
    for picture in (stored((640, 100)), stored((200, 300), "RGBA"), stored((999, 999), "L", "JPEG")):
        with PILImage.open(io.BytesIO(thumbnail(picture)["bytes"])) as image:
            assert max(image.size) == 128
    assert thumbnail(None) is None


def test_nothing_published_names_a_local_folder(tmp_path):
    logits = columns.with_facts(columns.vector(2), model=f"{tmp_path}/secret/resnet", fingerprint="ab12")
    ds = curated()
    ds = columns.with_columns(ds, {"logits": (columns.matrix(ds, "logits"), logits)})
    ds.info.description = "digits"
    text = (written(ds, tmp_path / "out") / "README.md").read_text()
    assert "digits" in text
    assert "(resnet)" in text
    assert str(tmp_path) not in text
    hidden = {"model": f"extract: {tmp_path}/secret/resnet, ab12", "rows": 3, "list": ["~/x/y", "me/resnet"]}
    assert facts.shareable(hidden) == {"model": "extract: resnet, ab12", "rows": 3, "list": ["y", "me/resnet"]}


def test_bands_of_other_units_are_left_out_of_the_long_form(tmp_path):
    ds = columns.with_columns(
        curated(6),
        {
            "quantile": (np.zeros((6, 3), np.float32), columns.vector(3)),
            "band": (np.zeros((6, 3), np.int8), columns.vector(3, "int8")),
        },
    )
    assert "band" not in load_dataset(str(written(ds, tmp_path)), "long", split="train").column_names


def test_the_card_of_a_data_set_counts_what_is_in_the_files(tmp_path):
    folder = written(curated(2500), tmp_path, max_shard_bytes=200_000)
    card = (folder / "README.md").read_text()
    assert len(list(Path(folder / "data").iterdir())) > 1
    assert "| default | train | 2500 |" in card
    assert "| long | train | 5000 |" in card
    assert json.loads(load_dataset(str(folder), split="train").features["reason"].id) == report()
