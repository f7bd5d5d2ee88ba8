"""Sources that run a network: early features and another classifier's predictions, with tiny models."""

import numpy as np
import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Image, concatenate_datasets
from PIL import Image as pillow
from support.concept_models import LABELS, save_vit
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    ViTForImageClassification,
    ViTImageProcessor,
)

from hf_midrange import columns
from hf_midrange.concepts import EarlyFeatures, Predictions, Thumbnail, annotate, load_source
from hf_midrange.concepts.early_features import first_block
from hf_midrange.concepts.vocabularies import imagenet_lemmas


@pytest.fixture(scope="module")
def ds():
    rng = np.random.default_rng(0)
    pictures = [pillow.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)) for _ in range(24)]
    return Dataset.from_dict(
        {"image": pictures, "label": [0, 1] * 12},
        features=Features({"image": Image(), "label": ClassLabel(names=["a", "b"])}),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("vit")
    save_vit(path)
    return str(path)


def direct(folder, ds):
    model = ViTForImageClassification.from_pretrained(folder).eval()
    pixels = ViTImageProcessor.from_pretrained(folder)(images=ds["image"][:], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        return model(pixels, output_hidden_states=True)


def test_early_features_are_the_statistics_of_the_first_layer(ds, folder):
    out = annotate(ds, [EarlyFeatures(folder)])
    hidden = direct(folder, ds).hidden_states[1]
    expected = torch.cat([hidden.mean(1), hidden.std(1, correction=0)], dim=1).numpy()
    np.testing.assert_allclose(columns.matrix(out, "view_early_features"), expected, atol=1e-5)
    names = columns.vocabulary(out.features, "concepts_early_features")
    assert names == [f"channel {k}, {what}" for what in ("mean", "spread") for k in range(8)]


def test_predictions_are_the_first_labels(ds, folder):
    out = annotate(ds, [Predictions(folder, top=2, min_rows=1)])
    names = columns.vocabulary(out.features, "concepts_predictions")
    top = direct(folder, ds).logits.topk(2).indices.numpy()
    constant = {LABELS[k] for k in range(6) if (top == k).any(axis=1).all()}
    for row, ids in zip(out["concepts_predictions"], top, strict=True):
        assert {names[j] for j in row} == {LABELS[k] for k in ids} - constant


@pytest.mark.parametrize("kind", [EarlyFeatures, Predictions])
def test_batches_shards_and_streams_agree_and_json_brings_the_source_back(ds, folder, kind, tmp_path):
    source = kind(folder) if kind is EarlyFeatures else Predictions(folder, top=2, min_rows=1)
    fitted = source.fit(ds)
    fitted.save(tmp_path / "source.json")
    assert kind.load(tmp_path / "source.json") == fitted
    name = f"concepts_{source.name}"
    whole = annotate(ds, [fitted])[name][:]
    assert annotate(ds, [fitted], batch_size=5)[name][:] == whole
    parts = concatenate_datasets([annotate(ds.shard(3, i, contiguous=True), [fitted]) for i in range(3)])
    assert parts[name][:] == whole
    assert [row[name] for row in annotate(ds.to_iterable_dataset(), [fitted])] == whole


def test_a_finished_shard_is_not_computed_again(ds, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("hf_midrange.concepts.map_steps.SHARD_ROWS", 10)
    calls = []
    measure = EarlyFeatures.measure
    monkeypatch.setattr(
        EarlyFeatures, "measure", lambda self, batch: calls.append(len(batch["image"])) or measure(self, batch)
    )
    plain = annotate(ds, [EarlyFeatures(folder)])
    first = annotate(ds, [EarlyFeatures(folder)], output_dir=tmp_path)
    shards = sorted(tmp_path.glob("early_features-*/shard-*.arrow"))
    assert len(shards) == 3
    shards[1].unlink()
    calls.clear()
    again = annotate(ds, [EarlyFeatures(folder)], output_dir=tmp_path)
    assert [rows for rows in calls if rows > 1] == [10]
    for out in (first, again):
        assert out["concepts_early_features"][:] == plain["concepts_early_features"][:]
        values = (columns.matrix(rows, "view_early_features") for rows in (out, plain))
        np.testing.assert_allclose(*values, atol=1e-5)
    frozen = load_source(tmp_path / "early_features.json")
    assert annotate(ds, [frozen])["concepts_early_features"][:] == plain["concepts_early_features"][:]


def test_a_model_object_cannot_be_kept_and_says_so(ds, tmp_path):
    model = timm.create_model("test_resnet", num_classes=4)
    with pytest.warns(UserWarning, match="cannot be saved: `model`"):
        annotate(ds, [EarlyFeatures(model)], output_dir=tmp_path)
    (tmp_path / "other.json").write_text('{"kind": "Other"}')
    with pytest.raises(ValueError, match="kind 'Other'"):
        load_source(tmp_path / "other.json")


def test_other_weights_are_not_taken_from_the_cache(ds, folder, tmp_path):
    ds.save_to_disk(tmp_path / "ds")
    on_disk = Dataset.load_from_disk(tmp_path / "ds")
    model = timm.create_model("test_resnet", num_classes=4)
    before = columns.matrix(annotate(on_disk, [EarlyFeatures(model)]), "view_early_features").copy()
    again = columns.matrix(annotate(on_disk, [EarlyFeatures(model)]), "view_early_features")
    np.testing.assert_array_equal(before, again)
    model.layer1[0].bn2.weight.data.fill_(3.0)
    model.layer1[0].bn2.bias.data.fill_(1.0)
    assert not np.allclose(before, columns.matrix(annotate(on_disk, [EarlyFeatures(model)]), "view_early_features"))


def test_the_model_keeps_its_mode(ds):
    model = timm.create_model("test_resnet", num_classes=4)
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    annotate(ds, [EarlyFeatures(model)])
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "block"),
    [("test_resnet", "layer1.0"), ("test_vit", "blocks.0"), ("test_convnext", "stages.0.blocks.0"),
     ("test_efficientnet", "blocks.0")],
)  # fmt: skip
def test_the_first_block_of_timm_models(name, block):
    assert first_block(timm.create_model(name)) == block


def test_the_first_block_of_transformers_models_and_of_none():
    resnet = ResNetForImageClassification(ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]))
    assert first_block(resnet) == "resnet.encoder.stages.0.layers.0"
    with pytest.raises(ValueError, match=r"no first block in Linear.*`layer=`"):
        first_block(torch.nn.Linear(2, 2))


def test_what_cannot_work_is_refused(ds, folder):
    model = timm.create_model("test_resnet", num_classes=4)
    with pytest.raises(ValueError, match="4 label names, but has 0"):
        annotate(ds, [Predictions(model)])
    with pytest.raises(ValueError, match="4 label names, but has 2"):
        annotate(ds, [Predictions(model, labels=["a", "b"])])
    with pytest.raises(KeyError, match="'photo'"):
        annotate(ds, [Predictions(folder, column="photo")])
    with pytest.raises(TypeError, match="cannot be saved: `model`"):
        EarlyFeatures(model).fit(ds).save("never.json")


def test_a_text_model_gives_no_early_features(ds, tmp_path):
    from transformers import BertTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    settings = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    BertForSequenceClassification(BertConfig(vocab_size=6, **settings)).save_pretrained(tmp_path)
    BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="needs an image classifier"):
        annotate(ds, [EarlyFeatures(str(tmp_path))])


def test_imagenet_has_a_thousand_lemmas():
    lemmas = imagenet_lemmas()
    assert len(lemmas) == 1000
    assert lemmas[:2] == ["tench", "goldfish"]


def test_a_model_in_half_precision_is_known_again(ds, tmp_path):
    model = timm.create_model("test_resnet", num_classes=4).to(torch.bfloat16)
    with pytest.warns(UserWarning, match="cannot be saved: `model`"):
        out = annotate(ds, [EarlyFeatures(model)], output_dir=tmp_path)
    assert np.isfinite(columns.matrix(out, "view_early_features")).all()
    (folder,) = tmp_path.glob("early_features-*/")
    with pytest.warns(UserWarning, match="cannot be saved: `model`"):
        annotate(ds, [EarlyFeatures(model)], output_dir=tmp_path)
    assert list(tmp_path.glob("early_features-*/")) == [folder]


def test_the_weights_are_hashed_once_for_all_splits(ds, monkeypatch):
    from hf_midrange import classifier

    model, calls, real = timm.create_model("test_resnet", num_classes=4), [], classifier.fingerprint
    monkeypatch.setattr(classifier, "fingerprint", lambda held: calls.append(held) or real(held))
    EarlyFeatures(model).fit(ds)
    assert len(calls) == 1


def test_a_view_says_whether_a_network_made_it_whatever_it_is_called(ds, folder, tmp_path):
    out = annotate(ds, [EarlyFeatures(folder, name="block1"), Thumbnail(name="early_features")])
    out.save_to_disk(tmp_path / "disk")
    out.to_parquet(tmp_path / "rows.parquet")
    for kept in (out, Dataset.load_from_disk(tmp_path / "disk"), Dataset.from_parquet(str(tmp_path / "rows.parquet"))):
        assert columns.facts(kept.features, "view_block1")["of_network"] is True
        assert columns.facts(kept.features, "view_early_features")["of_network"] is False


def test_labels_of_a_classifier_without_a_linear_head_are_read_too(ds):
    class Cosine(torch.nn.Module):
        main_input_name = "pixel_values"
        num_classes = 3

        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.directions = torch.nn.Parameter(torch.randn(3, 3 * 8 * 8))

        def forward(self, pixel_values):
            return torch.nn.functional.normalize(pixel_values.flatten(1)) @ self.directions.T

    def pixels(image):
        return torch.tensor(np.asarray(image.resize((8, 8)), dtype=np.float32)).permute(2, 0, 1) / 255 - 0.5

    source = Predictions(Cosine(), pixels, labels=["a", "b", "c"], top=1, min_rows=1)
    assert sum(map(len, annotate(ds, [source])["concepts_predictions"])) == len(ds)
