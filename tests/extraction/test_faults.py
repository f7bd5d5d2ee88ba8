"""Bad input to `extract`: refused by name before work starts, or dropped on request and counted."""

import io
import json

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage
from support.classifiers import bert, gpt2, images, texts, timm_model, tokenizer
from torch import nn

import hf_midrange as hm
from hf_midrange.columns import finite_matrix, matrix
from hf_midrange.extraction.images import decode, rgb


def encoded(image: PillowImage.Image, kind: str = "PNG", **arguments) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **arguments)
    return buffer.getvalue()


def with_broken_rows(folder) -> Dataset:
    """12 rows: 3 is cut short, 5 is empty, 6 is null, 8 is a missing file."""
    good = encoded(PillowImage.fromarray(np.arange(3000, dtype=np.uint8).reshape(25, 40, 3)), "JPEG")
    cells = [{"bytes": good, "path": f"{i}.jpg"} for i in range(12)]
    cells[3] = {"bytes": good[: len(good) // 2], "path": "short.jpg"}
    cells[5] = {"bytes": b"", "path": "empty.jpg"}
    cells[6] = None
    cells[8] = {"bytes": None, "path": str(folder / "missing.jpg")}
    return Dataset.from_dict({"image": cells}, features=Features({"image": Image()}))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_unreadable_image_is_named_by_row_and_file(tmp_path, num_workers):
    ds = with_broken_rows(tmp_path)
    with pytest.raises(ValueError, match=r"row 3 cannot be read: file 'short\.jpg'.*on_error='skip'"):
        hm.extract(ds, timm_model(), batch_size=8, num_workers=num_workers)


@pytest.mark.parametrize("kind", ["memory", "disk", "stream", "stream on disk"])
def test_skipping_drops_unreadable_rows_says_how_many_and_records_them(tmp_path, kind):
    ds, model = with_broken_rows(tmp_path), timm_model()
    good = [0, 1, 2, 4, 7, 9, 10, 11]
    expected = matrix(hm.extract(ds.select(good), model), "logits")
    data = ds.to_iterable_dataset() if "stream" in kind else ds
    folder = tmp_path / "out" if "disk" in kind else None
    with pytest.warns(UserWarning, match=r"dropped 4 rows.*row 3: file 'short\.jpg'"):
        rows = list(hm.extract(data, model, batch_size=4, shard_size=5, on_error="skip", output_dir=folder))
    np.testing.assert_allclose(np.array([row["logits"] for row in rows]), expected, atol=1e-5)
    assert np.isfinite(np.array([row["embedding"] for row in rows])).all()
    if folder:
        records = [json.loads(path.read_text()) for path in sorted(folder.glob("*-*.json"))]
        assert [sorted(record["unreadable"]) for record in records] == [["3"], ["5", "6", "8"], []]
        with pytest.raises(ValueError, match="row 3 cannot be read"):
            hm.extract(data, model, batch_size=4, shard_size=5, output_dir=folder)


def test_a_shard_without_any_readable_row_is_no_crash(tmp_path):
    ds = with_broken_rows(tmp_path).select([5, 6, 0, 1])
    with pytest.warns(UserWarning, match="dropped 2 rows"):
        assert len(hm.extract(ds, timm_model(), shard_size=2, on_error="skip")) == 2


def test_nothing_readable_is_an_error_even_when_skipping(tmp_path):
    with pytest.raises(ValueError, match="row 0 cannot be read"):
        hm.extract(with_broken_rows(tmp_path).select([5, 6]), timm_model(), on_error="skip")


def test_a_null_text_is_named():
    ds = Dataset.from_dict({"text": ["good film", None, "bad"]})
    with pytest.raises(ValueError, match=r"row 1 cannot be read.*column 'text' is null"):
        hm.extract(ds, bert(), tokenizer())
    with pytest.warns(UserWarning, match="dropped 1 rows"):
        assert hm.extract(ds, bert(), tokenizer(), on_error="skip")["text"][:] == ["good film", "bad"]


def test_empty_and_long_texts_are_texts():
    ds = Dataset.from_dict({"text": ["", "good " * 100_000, "bad"]})
    assert len(hm.extract(ds, bert(), tokenizer())) == 3


def test_a_row_the_processor_refuses_is_named():
    def picky(image: PillowImage.Image) -> torch.Tensor:
        if image.height == 32:
            raise ValueError("I do not take 32")
        return torch.zeros(3, 8, 8)

    for batch_size in (1, 4):
        with pytest.raises(ValueError, match="row 2 cannot be read: cannot be transformed: I do not take 32"):
            hm.extract(images(5), timm_model(), picky, batch_size=batch_size)


def test_a_fault_of_the_processor_itself_is_raised_as_it_is():
    def broken(image: PillowImage.Image) -> torch.Tensor:
        raise RuntimeError("no such kernel")

    with pytest.raises(RuntimeError, match="no such kernel"):
        hm.extract(images(5), timm_model(), broken, on_error="skip")


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="empty"):
        hm.extract(images(3).select([]), timm_model())


def test_an_empty_stream_is_refused(tmp_path):
    stream = images(3).to_iterable_dataset().take(0)
    with pytest.raises(ValueError, match="stream is empty"):
        hm.extract(stream, timm_model(), output_dir=tmp_path)
    with pytest.raises(ValueError, match="stream is empty"):
        list(hm.extract(stream, timm_model()))


def test_missing_and_mistyped_columns_are_refused():
    with pytest.raises(KeyError, match=r"no column 'image'.*picture.*rename_column"):
        hm.extract(images(3).rename_column("image", "picture"), timm_model())
    with pytest.raises(KeyError, match="no column 'text'"):
        hm.extract(images(3), bert(), tokenizer())
    with pytest.raises(TypeError, match=r"cast_column\('image', datasets\.Image\(\)\)"):
        hm.extract(Dataset.from_dict({"image": ["a.jpg"]}), timm_model())
    with pytest.raises(TypeError, match="not <class 'list'>"):
        hm.extract([1, 2], timm_model())


def test_labels_must_be_classes_and_as_many_as_the_models():
    numbers = images(3).cast_column("label", Value("int64"))
    with pytest.raises(TypeError, match="class_encode_column"):
        hm.extract(numbers, timm_model())
    four = images(3).cast_column("label", ClassLabel(names=list("abcd")))
    with pytest.raises(ValueError, match=r"model has 3 labels but column 'label' has 4 \(a, b, c, d\)"):
        hm.extract(four, timm_model())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_named_and_kept(value, tmp_path):
    class Overflowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return self.fc(torch.where(x.mean((1, 2, 3), keepdim=True)[:, :, 0, 0] > 2, value, x.mean((2, 3))))

    def height(image: PillowImage.Image) -> torch.Tensor:
        return torch.full((3, 2, 2), float(image.height - 30))

    for folder in (None, tmp_path):
        with pytest.warns(UserWarning, match=r"NaN or infinite in 4 rows \(first rows: \[3, 4, 8, 9\]\)"):
            result = hm.extract(images(10), Overflowing(), height, output_dir=folder)
        assert len(result) == 10
        with pytest.raises(ValueError, match="NaN or infinite"):
            finite_matrix(result, "logits")


def test_a_model_without_a_processor_asks_for_one():
    with pytest.raises(ValueError, match="found no processor.*pass `processor=`: a tokenizer"):
        hm.extract(texts(3), bert())
    with pytest.raises(ValueError, match="callable from PIL image to tensor"):
        hm.extract(images(3), nn.Sequential(nn.Flatten(), nn.Linear(3, 3)))


def test_a_tokenizer_without_padding_token_says_how_to_set_one():
    tok = tokenizer()
    tok.pad_token = None
    with pytest.raises(ValueError, match=r"tokenizer\.pad_token = tokenizer\.eos_token"):
        hm.extract(texts(3), gpt2(), tok)


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"shard_size": 0}, {"num_workers": -1}, {"on_error": "ignore"}])
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        hm.extract(images(3), timm_model(), **wrong)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "1", "I", "I;16", "F"])
def test_images_of_any_mode_become_rgb(mode):
    grey = np.tile(np.linspace(0, 255, 8).round().astype(np.uint8), (8, 1))
    if mode in ("I", "I;16"):
        image = PillowImage.fromarray(grey.astype(np.int32 if mode == "I" else np.uint16) * 257)
    elif mode == "F":
        image = PillowImage.fromarray(grey.astype(np.float32) / 255)
    else:
        image = PillowImage.fromarray(grey).convert(mode)
    assert image.mode == mode
    seen = rgb(image)
    assert seen.mode == "RGB"
    if mode != "1":
        np.testing.assert_allclose(np.asarray(seen)[..., 1], grey, atol=1)


def test_images_of_odd_kinds_pass_through(tmp_path):
    colours = [PillowImage.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue")]
    animated = encoded(colours[0], "GIF", save_all=True, append_images=colours[1:])
    cells = [animated, encoded(PillowImage.new("RGB", (1, 1))), encoded(PillowImage.new("L", (2000, 1))),
             encoded(PillowImage.new("CMYK", (9, 9)), "JPEG")]  # fmt: skip
    ds = Dataset.from_dict(
        {"image": [{"bytes": c, "path": None} for c in cells]}, features=Features({"image": Image()})
    )
    still = Dataset.from_dict({"image": [colours[0]]}, features=Features({"image": Image()}))
    result = hm.extract(ds, timm_model())
    assert len(result) == 4
    np.testing.assert_allclose(
        matrix(result, "logits")[:1], matrix(hm.extract(still, timm_model()), "logits"), atol=1e-5
    )


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n{ } loop\n%%EOF\n"


def test_a_file_that_another_program_would_run_is_unreadable(monkeypatch):
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    cells = [{"bytes": content, "path": None} for content in (encoded(PillowImage.new("RGB", (9, 9))), EPS)]
    ds = Dataset.from_dict({"image": cells}, features=Features({"image": Image()}))
    with pytest.raises(ValueError, match="row 1 cannot be read: UnidentifiedImageError"):
        hm.extract(ds, timm_model())
    with pytest.warns(UserWarning, match="dropped 1 rows"):
        assert len(hm.extract(ds, timm_model(), on_error="skip")) == 1


@pytest.mark.parametrize("mode", ["1", "P", "L", "RGB", "RGBA", "I;16"])
def test_an_image_of_very_many_pixels_is_averaged_down(mode, monkeypatch):
    monkeypatch.setattr("hf_midrange.extraction.images.LARGE", 100)
    image = PillowImage.new(mode, (40, 20), 1 if mode == "1" else None)
    small = decode({"bytes": encoded(image), "path": None})
    assert small.size == (14, 7)
    assert decode({"bytes": encoded(image.crop((0, 0, 10, 10))), "path": None}).size == (10, 10)
    assert rgb(small).mode == "RGB"


def test_a_turned_photograph_is_upright():
    image = PillowImage.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    assert decode({"bytes": encoded(image, "JPEG", exif=exif), "path": None}).size == (4, 6)
