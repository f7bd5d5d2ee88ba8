"""`annotate`: columns, order, batches, splits, streams, and what it refuses."""

import json

import numpy as np
import pytest
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    IterableDatasetDict,
    List,
    Value,
    concatenate_datasets,
    load_from_disk,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as pillow
from scipy import sparse
from typer.testing import CliRunner

import hf_midrange as hm
from hf_midrange import columns, concepts
from hf_midrange.commands.app import app
from hf_midrange.concepts import Annotations, ImageProperties, NGrams, TextStyle, Thumbnail, annotate
from hf_midrange.concepts.annotation import leaks_label
from hf_midrange.concepts.metadata import Names


WORDS = "the a good bad film not never cat dog ! ? 7 WOW isn't".split()


@pytest.fixture(scope="module")
def ds():
    rng = np.random.default_rng(0)
    n = 60
    shapes = [(int(rng.integers(5, 40)), int(rng.integers(5, 40)), 3) for _ in range(n)]
    rows = {
        "image": [pillow.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in shapes],
        "text": [" ".join(rng.choice(WORDS, 8)) for _ in range(n)],
        "label": rng.integers(0, 2, n),
        "night": rng.random(n) < 0.4,
        "place": rng.choice(["land", "water"], n).tolist(),
        "age": rng.normal(size=n).astype(np.float32),
    }
    return Dataset.from_dict(
        rows,
        features=Features(
            {
                "image": Image(),
                "text": Value("string"),
                "label": ClassLabel(names=["hen", "gull"]),
                "night": Value("bool"),
                "place": Value("string"),
                "age": Value("float32"),
            }
        ),
    )


def long_rows(batch):
    return [["long"] if len(text) > 25 else [] for text in batch["text"]]


PUBLIC = [kind for kind in vars(concepts).values() if isinstance(kind, type) and kind is not concepts.Source]

SOURCES = [
    Annotations(["night", "place", "age"]),
    Thumbnail(),
    Thumbnail(mode="L", name="grey"),
    ImageProperties(),
    NGrams(min_rows=2),
    TextStyle(),
]


@pytest.mark.parametrize("source", [*SOURCES, long_rows], ids=lambda s: getattr(s, "name", "function"))
def test_order_batch_size_and_sharding_do_not_change_the_result(ds, source):
    fitted = source if callable(source) and not hasattr(source, "fit") else source.fit(ds)
    whole = annotate(ds, [source])
    new = [name for name in whole.column_names if name not in ds.column_names]
    assert any(name.startswith("concepts_") for name in new)
    small = annotate(ds, [source], batch_size=7)
    order = np.random.default_rng(1).permutation(len(ds))
    shuffled = annotate(ds.select(order), [source])
    for name in new:
        assert small.features[name] == whole.features[name]
        same(small[name], whole[name])
        same(shuffled[name], [whole[name][int(i)] for i in order])
    if fitted is not source:
        parts = concatenate_datasets([annotate(ds.shard(3, i, contiguous=True), [fitted]) for i in range(3)])
        for name in new:
            same(parts[name], whole[name])


def same(left, right):
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_a_source_comes_back_from_json_bit_for_bit(ds, source, tmp_path):
    fitted = source.fit(ds)
    fitted.save(tmp_path / "source.json")
    loaded = type(source).load(tmp_path / "source.json")
    assert loaded == fitted
    assert loaded.fitted
    assert not source.fitted


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: s.name)
def test_a_stream_gives_what_the_dataset_gives(ds, source):
    fitted = source.fit(ds)
    stream = annotate(ds.to_iterable_dataset(), [fitted])
    whole = annotate(ds, [fitted])
    assert isinstance(stream, IterableDataset)
    assert stream.features == whole.features
    rows = list(stream)
    for name in fitted.outputs():
        same([row[name] for row in rows], whole[name])


def test_views_are_float32_and_aligned_with_their_reading(ds):
    out = annotate(ds, [Thumbnail(), TextStyle()])
    for name in columns.view_columns(out.features):
        values = columns.matrix(out, name)
        table = columns.presence(out, name.replace("view_", "concepts_")).toarray()
        assert values.dtype == np.float32
        assert values.shape == table.shape
        for j in range(values.shape[1]):
            if table[:, j].any():
                assert values[table[:, j], j].min() > values[~table[:, j], j].max()


def test_only_columns_are_added_and_an_indices_mapping_is_followed(ds):
    chosen = ds.select([5, 3, 9, 11, 20])
    out = annotate(chosen, [Annotations(["place"])])
    assert out.column_names == [*ds.column_names, "concepts_annotations"]
    names = columns.vocabulary(out.features, "concepts_annotations")
    assert [names[row[0]] for row in out["concepts_annotations"]] == [f"place={value}" for value in chosen["place"]]
    assert out["text"][:] == chosen["text"][:]


def test_one_split_is_fitted_on_and_named(ds):
    splits = DatasetDict(curation=ds.select(range(40)), test=ds.select(range(40, 60)))
    with pytest.raises(ValueError, match=r"`fit_split`.*'curation', 'test'"):
        annotate(splits, [Thumbnail()])
    out = annotate(splits, [Thumbnail()], fit_split="curation")
    assert isinstance(out, DatasetDict)
    fitted = Thumbnail().fit(splits["curation"])
    same(out["test"]["concepts_thumbnail"], annotate(splits["test"], [fitted])["concepts_thumbnail"])
    assert annotate(splits, [fitted])["test"].column_names == out["test"].column_names


def test_an_empty_split_keeps_its_schema(ds):
    fitted = Thumbnail().fit(ds)
    empty = annotate(ds.select([]), [fitted])
    assert len(empty) == 0
    assert empty.features == annotate(ds, [fitted]).features


def test_the_label_in_disguise_is_left_out_with_a_warning():
    label = np.repeat([0, 1], 300)
    tied = label.copy()
    tied[:10] = 1  # 3 % of a class: a confounder, not the class
    rows = {"label": label, "twin": label == 1, "tied": tied == 1}
    ds = Dataset.from_dict(rows).cast_column("label", ClassLabel(names=["a", "b"]))
    with pytest.warns(UserWarning, match="twin are the class label in disguise"):
        out = annotate(ds, [Annotations(["twin", "tied"])])
    assert columns.vocabulary(out.features, "concepts_annotations") == ["twin", "tied"]
    assert columns.presence(out, "concepts_annotations").toarray().sum(axis=0).tolist() == [0, 310]


@given(st.integers(0, 20))
def test_a_concept_is_disguised_up_to_half_a_percent_of_contrary_rows(contrary):
    labels = np.repeat([0, 1], 1000)
    concept = labels == 1
    concept[:contrary] = True
    assert leaks_label(sparse.csr_matrix(concept[:, None]), labels)[0] == (contrary <= 5)


def test_the_input_is_checked_before_any_work(ds):
    def never(batch):
        raise AssertionError("work started")

    with pytest.raises(KeyError, match="'photo'.*'image'"):
        annotate(ds, [never, Thumbnail("photo")])
    with pytest.raises(TypeError, match=r"'text' as Image\(\)"):
        annotate(ds, [never, Thumbnail("text")])
    with pytest.raises(TypeError, match=r"'image' as Value"):
        annotate(ds, [never, NGrams("image")])
    with pytest.raises(ValueError, match="several sources are called"):
        annotate(ds, [never, Thumbnail(), Thumbnail(size=2)])
    with pytest.raises(ValueError, match="would overwrite"):
        annotate(annotate(ds, [Thumbnail()]), [never, Thumbnail()])
    with pytest.raises(ValueError, match="not fitted"):
        annotate(ds.to_iterable_dataset(), [Thumbnail()])
    with pytest.raises(TypeError, match="a concept source must be"):
        annotate(ds, ["text"])


def test_null_images_and_texts_are_named_by_row():
    ds = Dataset.from_dict({"text": ["a b", None, "c"]})
    with pytest.raises(ValueError, match=r"null in 1 rows \(first rows: \[1\]\)"):
        annotate(ds, [TextStyle()])
    assert len(annotate(ds.select([0, 2]), [TextStyle()])) == 2


def test_what_a_function_gives_is_checked(ds):
    def short(batch):
        return [["x"]]

    def strings(batch):
        return ["x"] * len(batch["text"])

    with pytest.raises(ValueError, match="one list of names for each of"):
        annotate(ds, [short])
    with pytest.raises(TypeError, match="list of strings per row"):
        annotate(ds, [strings])
    with pytest.raises(ValueError, match="no name"):
        annotate(ds, [lambda batch: []])


def test_values_all_one_are_refused_by_every_source_that_reads_them():
    def always(batch):
        return [["x"] for _ in batch["text"]]

    rows = {"image": [pillow.new("RGB", (4, 4), "red")] * 12, "text": ["same words"] * 12}
    same_rows = Dataset.from_dict(rows, features=Features({"image": Image(), "text": Value("string")}))
    refused = "no concept that some|one value only|found no phrase"
    for source in [Thumbnail(), ImageProperties(), TextStyle(), NGrams(max_share=1.0), Annotations(["text"]), always]:
        with pytest.raises(ValueError, match=refused):
            annotate(same_rows, [source])


def test_a_dictionary_of_streams_is_read_with_fitted_sources(ds):
    fitted = Annotations(["place"]).fit(ds)
    streams = IterableDatasetDict({"a": ds.to_iterable_dataset(), "b": ds.select(range(3)).to_iterable_dataset()})
    out = annotate(streams, [fitted])
    assert isinstance(out, IterableDatasetDict)
    whole = annotate(ds, [fitted])["concepts_annotations"][:]
    assert [row["concepts_annotations"] for row in out["a"]] == whole
    assert [row["concepts_annotations"] for row in out["b"]] == whole[:3]


def test_the_command_line_keeps_the_fitted_sources(ds, tmp_path):
    splits = DatasetDict(curation=ds.select(range(40)), test=ds.select(range(40, 60)))
    splits.save_to_disk(tmp_path / "ds")
    command = ["annotate", str(tmp_path / "ds"), "--output", str(tmp_path / "out"), "--fit-split", "curation"]
    done = CliRunner().invoke(app, [*command, "--source", "thumbnail", "--source", "annotations:night,place"])
    assert done.exit_code == 0, done.output
    out = load_from_disk(tmp_path / "out")
    for name in ("thumbnail", "annotations"):
        fitted = hm.load_source(tmp_path / "out" / "sources" / f"{name}.json")
        assert fitted == type(fitted).load(tmp_path / "out" / "sources" / f"{name}.json")
        column = fitted.concept_column
        same(annotate(splits["test"], [fitted])[column], out["test"][column])


@pytest.mark.parametrize("kind", [*PUBLIC, Names], ids=lambda kind: kind.__name__)
def test_every_source_says_where_it_fails(kind):
    assert "\n    Fails " in kind.__doc__


def test_a_function_names_its_column(ds):
    out = annotate(ds, [long_rows])
    assert out.features["concepts_long_rows"] == List(ClassLabel(names=["long"]))
    assert [bool(row) for row in out["concepts_long_rows"]] == [len(text) > 25 for text in ds["text"]]


def test_a_file_of_another_kind_or_version_is_refused(ds, tmp_path):
    path = tmp_path / "source.json"
    Thumbnail().fit(ds).save(path)
    with pytest.raises(ValueError, match="kind 'Thumbnail'"):
        TextStyle.load(path)
    saved = json.loads(path.read_text())
    path.write_text(json.dumps({**saved, "version": 0}))
    with pytest.raises(ValueError, match="another version of Thumbnail .version 0"):
        Thumbnail.load(path)


def test_no_other_program_decodes_an_image(tmp_path, monkeypatch):
    """A picture of EPS bytes would be handed to Ghostscript, which runs what is written in it."""
    import subprocess

    def started(*words, **options):
        raise AssertionError(f"{words} was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n{ } loop\n%%EOF\n"
    rows = {"image": [{"bytes": eps, "path": None}] * 2, "label": [0, 1]}
    ds = Dataset.from_dict(rows, features=Features({"image": Image(), "label": ClassLabel(names=["a", "b"])}))

    def seen(batch):
        return [["wide"] if image.width > 1 else [] for image in batch["image"]]

    for source in (Thumbnail(), ImageProperties(), seen):
        with pytest.raises(ValueError, match="row 0 cannot be read"):
            annotate(ds, [source])
    fitted = Thumbnail(thresholds=(0.5,) * 48)
    with pytest.raises(OSError, match="cannot identify"):
        list(annotate(ds.to_iterable_dataset(), [fitted]))
