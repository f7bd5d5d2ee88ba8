"""Kinds of things: sums over ImageNet's classes, with a tiny network, and with a real one where it is installed."""

import numpy as np
import pytest
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as pillow
from sklearn.datasets import load_sample_images
from support.concept_models import shaken

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.concepts import Kinds, Predictions, annotate, load_source
from hf_midrange.concepts.lite0 import imagenet_lite0
from hf_midrange.concepts.usual import usual_sources
from hf_midrange.concepts.vocabularies import imagenet_lemmas, table


@pytest.fixture(scope="module")
def ds():
    rng = np.random.default_rng(0)
    pictures = [pillow.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)) for _ in range(12)]
    return Dataset.from_dict(
        {"image": pictures, "label": [0, 1] * 6},
        features=Features({"image": Image(), "label": ClassLabel(names=["a", "b"])}),
    )


@pytest.fixture(scope="module")
def network():
    """Return a random network whose answers differ from one picture of noise to the next."""
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=1000).eval()
    model.fc.weight.data.normal_(0, 30)
    return model


def members(kind):
    parts = [part.partition("-") for part in table("imagenet_kinds")[kind].split(",")]
    return {number for first, _, last in parts for number in range(int(first), int(last or first) + 1)}


def test_kinds_are_what_wordnet_says_of_imagenets_classes():
    lemmas, kinds = imagenet_lemmas(), table("imagenet_kinds")
    of = {kind: {lemmas[k] for k in members(kind)} for kind in kinds}
    assert "tabby" in of["cat"] <= of["feline"] <= of["carnivore"] <= of["animal"]
    assert len(of["dog"]) == 118
    assert {"airliner", "minivan"} <= of["vehicle"]
    assert not of["vehicle"] & of["animal"]
    assert all(3 <= len(members(kind)) <= 600 for kind in kinds)
    assert len(kinds) == 246


def test_the_view_is_the_summed_probability_and_presence_more_than_half(ds, network):
    out = annotate(ds, [Kinds(network)])
    view = columns.matrix(out, "view_kinds")
    names = columns.vocabulary(out.features, "concepts_kinds")
    with torch.inference_mode():
        transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
        p = network(torch.stack([transform(image) for image in ds["image"]])).softmax(1).numpy()
    for kind in ("animal", "dog", "vehicle", "musical instrument"):
        expected = p[:, sorted(members(kind))].sum(axis=1)
        np.testing.assert_allclose(view[:, names.index(kind)], expected, atol=1e-4)
    np.testing.assert_array_equal(columns.presence(out, "concepts_kinds").toarray(), view > 0.5)
    assert (view[:, names.index("animal")] + 1e-6 >= view[:, names.index("dog")]).all()
    assert columns.facts(out.features, "view_kinds") == {"of_network": True, "vocabulary": True}


def test_kinds_seen_by_the_network_examined_itself_are_derived(ds, network):
    own = hm.extract(ds.remove_columns("label"), network)
    other = hm.extract(ds, timm.create_model("test_resnet", num_classes=2))
    assert columns.facts(annotate(own, [Kinds(network)]).features, "concepts_kinds") == {"derived": True}
    assert columns.facts(annotate(other, [Kinds(network)]).features, "concepts_kinds") == {}
    assert columns.facts(annotate(ds, [Kinds(network)]).features, "concepts_kinds") == {}


def test_predictions_of_the_network_examined_itself_are_derived_also_with_two_heads(ds):
    two = {"img_size": 32, "embed_dim": 12, "depth": 1}
    for name, options in (("test_resnet", {}), ("deit_tiny_distilled_patch16_224", two)):
        torch.manual_seed(0)
        model = shaken(timm.create_model(name, num_classes=5, **options)).eval()
        model.pretrained_cfg = {**model.pretrained_cfg, "input_size": (3, 32, 32)}
        source = Predictions(model, top=2, min_rows=1, labels=list("vwxyz"))
        own = annotate(hm.extract(ds.remove_columns("label"), model), [source])
        assert columns.facts(own.features, "concepts_predictions") == {"derived": True}
        assert columns.facts(annotate(ds, [source]).features, "concepts_predictions") == {}


def test_batches_streams_and_json_give_one_result(ds, network, tmp_path):
    fitted = Kinds(network).fit(ds)
    whole = annotate(ds, [fitted])
    assert annotate(ds, [fitted], batch_size=5)["concepts_kinds"][:] == whole["concepts_kinds"][:]
    assert [row["concepts_kinds"] for row in annotate(ds.to_iterable_dataset(), [fitted])] == whole["concepts_kinds"][
        :
    ]
    named = Kinds("a/model", thresholds=fitted.thresholds, derived=True)
    named.save(tmp_path / "kinds.json")
    assert load_source(tmp_path / "kinds.json") == named


def test_a_network_of_other_labels_is_refused(ds, tmp_path):
    with pytest.raises(ValueError, match=r"ImageNet's 1,000 classes, but this ResNet has 4 labels; .*tf_efficientnet"):
        annotate(ds, [Kinds(timm.create_model("test_resnet", num_classes=4))])
    model = timm.create_model("test_resnet", num_classes=1000)
    model.config = type("Config", (), {"id2label": {k: f"other {k}" for k in range(1000)}})()
    with pytest.raises(ValueError, match=r"1000 labels \('other 0', ...\)"):
        annotate(ds, [Kinds(model)])


def test_the_small_network_sees_a_building_and_a_flower():
    source = Kinds(imagenet_lite0(pixels=128))
    photographs = [pillow.fromarray(pixels) for pixels in load_sample_images().images]  # a temple, a flower
    temple, flower = (dict(zip(source.vocabulary, row, strict=True)) for row in source.measure({"image": photographs}))
    assert temple["artifact"] > 0.9 > flower["artifact"]
    assert temple["building"] > 0.2 > flower["building"]
    assert flower["natural object"] > 0.5 > temple["natural object"]


def test_without_the_network_the_usual_sources_go_on(ds, monkeypatch):
    monkeypatch.setattr("hf_midrange.concepts.lite0.is_installed", lambda: True)
    assert "kinds" in [source.name for source in usual_sources(ds, timm.create_model("test_resnet"))]
    monkeypatch.setattr("hf_midrange.concepts.lite0.is_installed", lambda: False)
    with pytest.warns(UserWarning, match=r"going on without kinds of things: timm/.* cannot be had"):
        sources = usual_sources(ds, timm.create_model("test_resnet"))
    assert "kinds" not in [source.name for source in sources]
