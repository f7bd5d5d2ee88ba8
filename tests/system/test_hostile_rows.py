"""Rows as they come from the wild, through every step: nothing crashes without a line that names the row."""

import io
import warnings

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage
from support.classifiers import timm_model

import hf_midrange as hm
from hf_midrange import columns


def encoded(image: PillowImage.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(width: int, height: int, seed: int = 0) -> PillowImage.Image:
    return PillowImage.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8))


def bomb() -> bytes:
    """A few bytes of PNG that say they are 30,000 pixels wide and high."""
    content = bytearray(encoded(PillowImage.new("1", (8, 8))))
    content[16:24] = (30_000).to_bytes(4, "big") * 2
    return bytes(content)


ODD = {
    "one pixel": encoded(noise(1, 1)),
    "a line": encoded(PillowImage.new("RGB", (20_000, 1), "red")),
    "a column": encoded(PillowImage.new("L", (1, 20_000), 7)),
    "cmyk": encoded(PillowImage.new("CMYK", (9, 9), (9, 90, 30, 5)), "JPEG"),
    "16 bits": encoded(PillowImage.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64) * 16)),
    "animated": encoded(noise(20, 20), "GIF", save_all=True, append_images=[noise(20, 20, 1), noise(20, 20, 2)]),
    "palette": encoded(noise(30, 20).convert("P")),
    "alpha": encoded(noise(30, 20).convert("RGBA")),
    "one bit": encoded(noise(30, 20).convert("1")),
    "float": encoded(PillowImage.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF"),
    "webp": encoded(noise(33, 17), "WEBP"),
}
BROKEN = {
    "cut jpeg": encoded(noise(64, 64), "JPEG")[:700],
    "cut png": encoded(noise(64, 64))[:500],
    "no bytes": b"",
    "bomb": bomb(),
    "no image": b"GIF89a, or so it says",
    "html": b"<!doctype html><title>404</title>",
}
PLAIN = {f"plain {k}": encoded(noise(32, 24, k)) for k in range(13)}


def pictures(cells: dict[str, bytes]) -> Dataset:
    rows = {
        "image": [{"bytes": content, "path": name} for name, content in cells.items()],
        "label": [k % 3 for k in range(len(cells))],
        "place": [f"place {k % 4}" for k in range(len(cells))],
    }
    features = Features({"image": Image(), "label": ClassLabel(names=list("abc")), "place": Value("string")})
    return Dataset.from_dict(rows, features=features)


SOURCES = [hm.Thumbnail(), hm.ImageProperties(), hm.Annotations(["place"])]


def test_odd_pictures_go_all_the_way():
    ds = pictures({**ODD, **PLAIN})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds = hm.extract(ds, timm_model())
        assert len(ds) == len(ODD) + len(PLAIN)
        ds = hm.annotate(hm.LogitBands("quantile").fit(ds).transform(ds), SOURCES)
    assert np.isfinite(columns.matrix(ds, "view_thumbnail")).all()
    findings = hm.associate(ds)
    page = hm.report(ds, findings).html
    assert "Infinity" not in page


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_picture_is_named_by_its_row(name):
    cells = dict(list(PLAIN.items())[:5])
    ds = pictures({**cells, name: BROKEN[name], "after": PLAIN["plain 6"]})
    with pytest.raises(ValueError, match=f"row 5 cannot be read: file '{name}'"):
        hm.extract(ds, timm_model())
    for source in (hm.Thumbnail(), hm.ImageProperties()):
        with pytest.raises(ValueError, match=f"row 5 cannot be read: file '{name}'.*on_error='skip'"):
            hm.annotate(ds, [source], batch_size=2)


def test_skipping_finishes_and_lists_what_was_skipped():
    ds = pictures({**dict(list(PLAIN.items())[:4]), **BROKEN, **ODD})
    with pytest.warns(UserWarning, match=r"dropped 6 of 21 rows.*row 4: file 'cut jpeg'.*row 9: file 'html'"):
        out = hm.annotate(ds, SOURCES, on_error="skip")
    assert len(out) == 15
    with pytest.warns(UserWarning, match="dropped 6 rows"):
        assert len(hm.extract(ds, timm_model(), on_error="skip")) == 15
    with pytest.raises(ValueError, match="none of the 6 rows can be read"):
        hm.annotate(pictures(BROKEN), SOURCES, on_error="skip")
    with pytest.raises(ValueError, match="on_error must be"):
        hm.annotate(ds, SOURCES, on_error="ignore")
    with pytest.raises(ValueError, match="a stream does not allow"):
        hm.annotate(ds.to_iterable_dataset(), SOURCES, on_error="skip")


def test_a_broken_picture_in_a_later_shard_is_named_by_its_row_in_the_data_set(tmp_path, monkeypatch):
    from support.concept_models import save_vit

    from hf_midrange.concepts import map_steps

    monkeypatch.setattr(map_steps, "SHARD_ROWS", 3)
    (tmp_path / "vit").mkdir()
    save_vit(tmp_path / "vit")
    ds = pictures({**dict(list(PLAIN.items())[:7]), "html": BROKEN["html"]})
    source = hm.EarlyFeatures(str(tmp_path / "vit"))
    with pytest.raises(ValueError, match="row 7 cannot be read: file 'html'"):
        hm.annotate(ds, [source], output_dir=tmp_path / "out")
    with pytest.warns(UserWarning, match="dropped 1 of 8 rows"):
        assert len(hm.annotate(ds, [source], output_dir=tmp_path / "out", on_error="skip")) == 7


TEXTS = [
    "", " ", "\n\r\t", "good " * 200_000, "x" * 1_000_000, "\x00\x01", "\u202e\ufeff", "\U0001f469\u200d" * 50,
    "a" + "\u0301" * 5000, "<b>&{{7*7}}",
]  # fmt: skip


def test_odd_texts_are_texts():
    words = ["a good film", "a bad film", "no film at all", "good and bad"]
    ds = Dataset.from_dict({"text": TEXTS + words * 6, "label": [k % 2 for k in range(len(TEXTS) + 24)]})
    ds = ds.class_encode_column("label")
    out = hm.annotate(ds, [hm.NGrams("text", min_rows=2), hm.TextStyle("text")])
    assert len(out) == len(ds)
    assert np.isfinite(columns.matrix(out, "view_text_style")).all()


def test_null_texts_are_dropped_on_request():
    ds = Dataset.from_dict({"text": ["a good film", None, "a bad film", "no film"] * 6})
    with pytest.raises(ValueError, match=r"null in 6 rows \(first rows: \[1, 5"):
        hm.annotate(ds, [hm.NGrams("text", min_rows=2)])
    with pytest.warns(UserWarning, match="dropped 6 of 24 rows.*row 1: column 'text' is null"):
        assert len(hm.annotate(ds, [hm.NGrams("text", min_rows=2)], on_error="skip")) == 18


def test_half_characters_in_a_file_are_one_line(tmp_path):
    from hf_midrange.io.datasets import read_dataset

    (tmp_path / "rows.jsonl").write_text('{"text": "\\ud800", "label": "a"}\n')
    (tmp_path / "rows.csv").write_bytes(b"text,label\n\xff\xfe,a\n")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    for name in ("rows.jsonl", "rows.csv", "cut.parquet"):
        try:
            ds = read_dataset(str(tmp_path / name))
        except (ValueError, OSError) as error:
            said = str(error)
        else:
            assert name == "rows.jsonl"  # pyarrow puts a replacement character there
            assert len(ds) == 1
            continue
        assert name in said


def outputs(logits: np.ndarray, label: np.ndarray, classes: int | None = None) -> Dataset:
    """Rows as `extract` leaves them, with a concept and two views of them."""
    rng, n = np.random.default_rng(0), len(label)
    names = [f"c{k}" for k in range(classes or logits.shape[1])]
    ds = Dataset.from_dict({"label": label.astype(np.int64)}).cast_column("label", Value("int64"))
    ds = columns.with_columns(ds, {"label": (label.astype(np.int64), ClassLabel(names=names))})
    return columns.with_columns(
        ds,
        {
            "embedding": (rng.normal(size=(n, 5)).astype(np.float32), columns.vector(5)),
            "logits": (logits.astype(np.float32), columns.vector(logits.shape[1])),
            "prediction": (logits.argmax(axis=1), ClassLabel(names=names)),
            "concepts_tags": (
                columns.concept_arrow(rng.random((n, 4)) < 0.4, list("wxyz")),
                columns.concept_list("wxyz"),
            ),
            "view_sky": (rng.normal(size=(n, 3)).astype(np.float32), columns.vector(3)),
        },
    )


STEPS = {
    "bands": lambda ds: hm.LogitBands().fit(ds),
    "associate": hm.associate,
    "curate": hm.curate,
    "retrain": lambda ds: hm.retrain_head(ds.add_column("weight", np.ones(len(ds), np.float32)), force=True),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused_by_their_row(step, value):
    rng, label = np.random.default_rng(0), np.arange(60) % 3
    ds = outputs(rng.normal(size=(60, 3)), label)
    column = "embedding" if step == "retrain" else "logits"
    values = columns.matrix(ds, column).copy()
    values[17, 1] = value
    ds = columns.with_columns(ds, {column: (values, columns.vector(values.shape[1]))})
    with pytest.raises(ValueError, match=rf"{column}.*NaN or infinite.*17"):
        STEPS[step](ds)


def test_denormal_and_huge_logits_are_numbers():
    rng, label = np.random.default_rng(0), np.arange(120) % 3
    for scale in (1e-42, 1e-38, 1e30, 3e37):
        logits = (rng.normal(size=(120, 3)) + 2 * np.eye(3)[label]) * scale
        ds = outputs(logits, label)
        ds = hm.LogitBands().fit(ds).transform(ds)
        assert np.isfinite(columns.matrix(ds, "quantile")).all()
        assert np.isfinite(columns.matrix(ds, "position")).all()
        hm.associate(ds)


@pytest.mark.parametrize("step", STEPS)
def test_labels_without_a_name_are_refused_by_their_row(step):
    label = np.arange(60) % 3
    ds = outputs(np.random.default_rng(0).normal(size=(60, 3)), label)
    for wrong in (7, -1):
        bad = label.copy()
        bad[23] = wrong
        broken = columns.with_columns(ds, {"label": (bad, ds.features["label"])})
        with pytest.raises(ValueError, match=r"'label'.*\[23\]"):
            STEPS[step](broken)


def test_metadata_without_a_name_is_refused_by_its_row():
    ds = columns.with_columns(
        Dataset.from_dict({"n": [0, 1, 2, 3]}), {"place": (np.array([0, 1, 9, 0]), ClassLabel(names=["sea", "land"]))}
    )
    with pytest.raises(ValueError, match=r"'place' has class ids outside 0..1 in 1 rows \(first rows: \[2\]"):
        hm.annotate(ds, [hm.Annotations(["place"])])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("rows", "classes"), [(1, 3), (2, 2), (30, 1), (40, 3)])
def test_splits_that_are_too_small_say_so_or_work(step, rows, classes):
    """One row, one class (of three, or the only one): a line that says what is missing, or a result."""
    label = np.zeros(rows, np.int64) if rows != 2 else np.arange(2)
    ds = outputs(np.random.default_rng(0).normal(size=(rows, classes)), label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            STEPS[step](ds)
        except (ValueError, KeyError) as error:
            said = str(error)
            assert len(said) > 30, said  # noqa: PT017 - either is right


def test_duplicate_rows_are_rows():
    rng, label = np.random.default_rng(0), np.arange(60) % 3
    ds = outputs(rng.normal(size=(60, 3)) + 2 * np.eye(3)[label], label)
    twice = ds.select(np.repeat(np.arange(60), 3))
    out = hm.curate(twice)
    assert len(out) == 180
    hm.associate(twice)


@pytest.mark.timeout(120)
def test_ten_thousand_classes():
    rng, classes = np.random.default_rng(0), 10_000
    label = np.arange(2 * classes // 10) % classes
    logits = rng.normal(size=(len(label), classes)).astype(np.float32)
    ds = outputs(logits, label)
    with pytest.raises(ValueError, match="every class needs|classes? .*rows|has no row"):
        hm.LogitBands().fit(ds)
    bands = hm.LogitBands("quantile").fit(ds)
    assert len(bands.fitted) == classes


def test_wrong_columns_are_named():
    ds = Dataset.from_dict({"picture": [1], "klass": [0]})
    for step in STEPS.values():
        with pytest.raises((KeyError, TypeError), match=r"column|label"):
            step(ds)
    with pytest.raises(KeyError, match="no column 'image'"):
        hm.extract(ds, timm_model())


def test_scores_of_odd_groups():
    with pytest.raises(ValueError, match="row|rows|length|empty|no "):
        hm.group_metrics(np.array([], int), np.array([], int), np.array([], int))
    one = hm.group_metrics([1], [1], [0])
    assert one["worst_group"] == 1
    with pytest.raises(ValueError, match="."):
        hm.group_metrics([1, 0], [1], [0])
    many = hm.group_metrics(np.zeros(10_000, int), np.arange(10_000) % 2, np.arange(10_000))
    assert many["mean"] == 0.5
