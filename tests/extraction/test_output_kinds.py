"""One logit with a sigmoid, several labels a row, and what is no classification of whole rows."""

import copy

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, List, Value
from PIL import Image as PillowImage
from support.classifiers import SMALL, bert, images, texts, timm_model, tokenizer
from torch import nn
from transformers import (
    BertConfig,
    BertForTokenClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import hf_midrange as hm
from hf_midrange.columns import facts, matrix
from hf_midrange.head.proof import prove_repaired


NAMES = ["smiling", "young", "outdoors"]
PROCESSOR = ViTImageProcessor(size={"height": 16, "width": 16})


def faces(rows: int = 60, seed: int = 0) -> Dataset:
    """Return pictures with several labels, which brighten parts of them; a hat comes with the first."""
    rng = np.random.default_rng(seed)
    present = rng.random((rows, 3)) < 0.5
    hat = np.where(rng.random(rows) < 0.9, present[:, 0], ~present[:, 0])
    pixels = rng.integers(0, 120, (rows, 16, 16, 3))
    pixels[:, :8] += 60 * present[:, 0, None, None, None]
    pixels[:, 12:] += 60 * hat[:, None, None, None]
    pixels[:, :, :8] += 40 * present[:, 1, None, None, None]
    pixels[..., 2] += 30 * present[:, 2, None, None]
    features = Features({"image": Image(), "label": List(ClassLabel(names=NAMES)), "hat": Value("bool")})
    return Dataset.from_dict(
        {
            "image": [PillowImage.fromarray(each.astype(np.uint8)) for each in pixels],
            "label": [np.flatnonzero(row).tolist() for row in present],
            "hat": hat.tolist(),
        },
        features=features,
    )


def classifier(labels: int = 3, **settings) -> ViTForImageClassification:
    torch.manual_seed(0)
    config = ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=labels, initializer_range=0.3, **settings)
    return ViTForImageClassification(config)


def several() -> ViTForImageClassification:
    return classifier(problem_type="multi_label_classification", id2label=dict(enumerate(NAMES)))


def with_one_logit(model: ViTForImageClassification, number: int, name: str = "LABEL_0") -> ViTForImageClassification:
    """Return a model with one logit, label `number` of a model with several."""
    alone = classifier(1, id2label={0: name})
    weights = model.state_dict()
    for part in ("classifier.weight", "classifier.bias"):
        weights[part] = weights[part][number : number + 1]
    alone.load_state_dict(weights)
    return alone


def logits_of(model: nn.Module, ds: Dataset) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(**PROCESSOR(ds["image"][:], return_tensors="pt")).logits.numpy()


def binary(ds: Dataset, number: int, names: list[str]) -> Dataset:
    """Return rows of two classes by hand: whether they have a label."""
    labels = [int(number in row) for row in ds["label"]]
    return ds.remove_columns("label").add_column("label", labels).cast_column("label", ClassLabel(names=names))


def test_one_logit_is_two_mirrored_ones_and_comes_back_as_one():
    ds, model = binary(faces(), 0, ["no", "smiling"]), with_one_logit(several(), 0)
    z = logits_of(model, ds)[:, 0]
    result = hm.extract(ds, model, PROCESSOR)
    np.testing.assert_allclose(matrix(result, "logits"), np.stack([-z / 2, z / 2], 1), atol=1e-6)
    assert result["prediction"][:] == (z > 0).astype(int).tolist()
    head = hm.LinearHead.from_model(model)
    assert (head.num_classes, head.width) == (2, 16)
    same = head.merge_into(model)
    for name, tensor in model.state_dict().items():
        assert torch.equal(same.state_dict()[name], tensor), name
    other = hm.LinearHead.from_weights(np.random.default_rng(0).normal(size=(2, 16)), [0.5, -1.0])
    merged = other.merge_into(model)
    assert merged.classifier.weight.shape == (1, 16)
    pair = other(matrix(result, "embedding")).numpy()
    np.testing.assert_allclose(logits_of(merged, ds)[:, 0], pair[:, 1] - pair[:, 0], atol=1e-5)
    prove_repaired(merged, ds, PROCESSOR)


def test_a_plain_module_may_squeeze_its_one_logit():
    class Squeezed(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_classes, self.fc = 1, nn.Linear(12, 1)

        def forward(self, x):
            return self.fc(x.flatten(1)).squeeze(-1)

    ds = binary(faces(8), 0, ["no", "yes"])
    pixels = [torch.from_numpy(np.asarray(image)[:2, :2] / 255).float() for image in ds["image"]]
    model = Squeezed()
    result = hm.extract(ds, model, lambda image: torch.from_numpy(np.asarray(image)[:2, :2] / 255).float())
    with torch.no_grad():
        expected = model(torch.stack(pixels)).numpy() / 2
    np.testing.assert_allclose(matrix(result, "logits"), np.stack([-expected, expected], 1), atol=1e-6)


def test_the_name_of_one_logit_says_which_class_it_is():
    ds, model = faces(8), with_one_logit(several(), 0, "smiling")
    z = logits_of(model, ds)[:, 0]
    for names, sign in ((["not smiling", "smiling"], 1), (["smiling", "neutral"], -1), (["neutral", "Smiling"], 1)):
        given = ds.remove_columns("label").add_column("label", [0] * 8).cast_column("label", ClassLabel(names=names))
        result = hm.extract(given, model, PROCESSOR)
        np.testing.assert_allclose(matrix(result, "logits")[:, 1], sign * z / 2, atol=1e-6)
        merged = hm.retrain_head(weighted(result), model).merge_into(model)
        assert merged.config.id2label == {0: "smiling"}
    without = hm.extract(ds.remove_columns("label"), model, PROCESSOR)
    assert without.features["prediction"].names == ["not smiling", "smiling"]


def weighted(ds: Dataset) -> Dataset:
    """Return rows that both classes occur in, all of weight 1."""
    labels = [row % 2 for row in range(len(ds))]
    names = ds.features["label"]
    return ds.remove_columns("label").add_column("label", labels).cast_column("label", names).add_column(
        "weight", np.ones(len(ds), np.float32)
    )  # fmt: skip


def test_rows_with_several_labels_have_the_labels_whose_logits_are_positive(tmp_path):
    ds, model = faces(), several()
    expected = logits_of(model, ds)
    for folder in (None, tmp_path):
        result = hm.extract(ds, model, PROCESSOR, output_dir=folder, shard_size=25)
        np.testing.assert_allclose(matrix(result, "logits"), expected, atol=1e-5)
        assert result["prediction"][:] == [np.flatnonzero(row > 0).tolist() for row in expected]
        assert result.features["prediction"] == List(ClassLabel(names=NAMES))
    stream = hm.extract(ds.to_iterable_dataset(), model, PROCESSOR)
    assert [row["prediction"] for row in stream] == result["prediction"][:]
    assert hm.extract(ds.remove_columns("label"), model, PROCESSOR).features["prediction"].feature.names == NAMES


def test_one_label_of_several_is_a_view_with_mirrored_logits():
    ds = faces()
    extracted = hm.extract(ds, several(), PROCESSOR)
    view = hm.one_label(extracted, "young", others=True)
    z = matrix(extracted, "logits")[:, 1]
    np.testing.assert_array_equal(matrix(view, "logits"), np.stack([-z / 2, z / 2], 1))
    assert view["prediction"][:] == (z > 0).astype(int).tolist()
    assert view["label"][:] == [int(1 in row) for row in ds["label"]]
    assert view.features["label"].names == view.features["prediction"].names == ["not young", "young"]
    assert view.features["concepts_labels"].feature.names == ["smiling", "outdoors"]
    assert view["concepts_labels"][:] == [[{0: 0, 2: 1}[each] for each in row if each != 1] for row in ds["label"]]
    assert facts(view.features, "logits") == {**facts(extracted.features, "logits"), "of_label": 1}
    splits = hm.one_label(DatasetDict(a=ds, b=ds), "young")
    assert splits["b"]["label"][:] == view["label"][:]
    assert "logits" not in splits["a"].column_names


def fitted(ds: Dataset) -> ViTForImageClassification:
    """Return a model with a classifier fitted to the labels by ridge regression."""
    model = several()
    embedding = matrix(hm.extract(ds, model, PROCESSOR), "embedding")
    target = np.array([[number in row for number in range(3)] for row in ds["label"]]) * 4.0 - 2
    centred = embedding - embedding.mean(0)
    gram = centred.T @ centred
    weight = np.linalg.solve(gram + 1e-3 * np.trace(gram) * np.eye(len(gram)), centred.T @ target).T
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight))
        model.classifier.bias.copy_(-torch.from_numpy(weight @ embedding.mean(0)))
    return model


def run(ds: Dataset, model: nn.Module):
    """Return findings, the curated rows and the head of rows of two classes."""
    banded = hm.LogitBands("class-relative").fit(ds).transform(ds)
    annotated = hm.annotate(banded, [hm.Annotations(["hat"])])
    findings = hm.associate(annotated)
    curated = hm.curate(annotated, findings, strategy="class-balanced")
    return findings, curated, hm.retrain_head(curated, model)


def test_every_label_equals_the_run_of_a_model_with_this_one_logit():
    ds, model = faces(400), fitted(faces(400, seed=1))
    extracted, merged = hm.extract(ds, model, PROCESSOR), model
    heads, found = [], 0
    for number, name in enumerate(NAMES):
        findings, curated, head = run(hm.one_label(extracted, name), model)
        alone = with_one_logit(model, number)
        own = hm.extract(binary(ds, number, [f"not {name}", name]), alone, PROCESSOR)
        other_findings, other, other_head = run(own, alone)
        np.testing.assert_allclose(matrix(curated, "logits"), matrix(other, "logits"), atol=1e-6)
        found += len(findings)
        assert findings["concept"][:] == other_findings["concept"][:]
        for column in ("odds_ratio", "p_value", "q_value"):
            np.testing.assert_allclose(findings[column][:], other_findings[column][:], rtol=1e-6)
        np.testing.assert_allclose(curated["weight"][:], other["weight"][:], atol=1e-6)
        np.testing.assert_allclose(head.weight, other_head.weight, atol=1e-6)
        np.testing.assert_allclose(head.bias, other_head.bias, atol=1e-6)
        scores = [hm.group_metrics(each["prediction"], each["label"], each["hat"]) for each in (curated, other)]
        assert scores[0] == scores[1]
        merged, heads = head.merge_into(merged), [*heads, head]
    assert found > 0
    embedding = matrix(extracted, "embedding")
    pairs = [head(embedding).numpy() for head in heads]
    expected = np.stack([pair[:, 1] - pair[:, 0] for pair in pairs], 1)
    np.testing.assert_allclose(logits_of(merged, ds), expected, atol=1e-5)
    prove_repaired(merged, ds, PROCESSOR)


def test_a_head_of_one_label_changes_that_row_alone_in_any_order_of_names(tmp_path):
    ds, model = faces(), several()
    model.config.id2label = {0: "outdoors", 1: "smiling", 2: "young"}
    extracted = hm.extract(ds, model, PROCESSOR)
    np.testing.assert_allclose(matrix(extracted, "logits"), logits_of(model, ds)[:, [1, 2, 0]], atol=1e-5)
    view = hm.one_label(extracted, "young").add_column("weight", np.ones(60, np.float32))
    head = hm.retrain_head(view, model)
    head.save_pretrained(tmp_path)
    for each in (head, hm.LinearHead.from_pretrained(tmp_path)):
        merged = each.merge_into(model)
        changed = (merged.classifier.weight != model.classifier.weight).any(1)
        assert changed.tolist() == [False, False, True]
    swapped = copy.deepcopy(model)
    swapped.config.id2label = dict(enumerate(NAMES))
    with pytest.raises(ValueError, match="the head is of label 'young', label 2 of the model is 'outdoors'"):
        head.merge_into(swapped)
    with pytest.raises(ValueError, match="of label 2 on embeddings of width 16, but .* has 2 labels"):
        head.merge_into(classifier(2))


def test_labels_that_cannot_be_are_refused():
    ds = faces(6)
    with pytest.raises(ValueError, match="'hat' is none of the labels smiling, young, outdoors"):
        hm.one_label(ds, "hat")
    with pytest.raises(TypeError, match="must be a List.ClassLabel., several labels a row"):
        hm.one_label(images(3), "cat")
    holed = Dataset.from_dict({"label": [[0], None]}, features=Features({"label": ds.features["label"]}))
    with pytest.raises(ValueError, match="null in 1 rows; a row without labels has an empty list"):
        hm.one_label(holed, "young")
    with pytest.raises(ValueError, match="one logit tells two classes apart"):
        hm.extract(ds, with_one_logit(several(), 0), PROCESSOR)
    with pytest.raises(ValueError, match="model has 2 labels but column 'label' has 3"):
        hm.extract(ds, classifier(2), PROCESSOR)
    numbers = texts(6).remove_columns("label").add_column("label", [0.5] * 6)
    with pytest.raises(ValueError, match="holds numbers, and the model has 3 outputs for classes"):
        hm.extract(numbers, bert(), tokenizer())
    with pytest.raises(TypeError, match="must be a ClassLabel.*one_label"):
        hm.LogitBands().fit(hm.extract(ds, several(), PROCESSOR))


def test_a_model_of_a_number_gives_it_and_its_signed_error(tmp_path):
    ds, model = faces(30), classifier(1, problem_type="regression")
    z = logits_of(model, ds)[:, 0]
    targets = np.linspace(-1, 1, 30)
    ds = ds.remove_columns("label").add_column("label", targets)
    for folder in (None, tmp_path):
        result = hm.extract(ds, model, PROCESSOR, output_dir=folder)
        np.testing.assert_allclose(matrix(result, "logits"), z[:, None], atol=1e-6)
        np.testing.assert_allclose(result["prediction"][:], z, atol=1e-6)
        assert result.features["prediction"] == Value("float32")
    bands = hm.LogitBands("quantile").fit(result)  # of the prediction itself
    assert bands.transform(result).features["band"].length == 1
    view = hm.signed_error(result)
    np.testing.assert_allclose(matrix(view, "logits")[:, 0], z - targets, atol=1e-6)
    assert facts(view.features, "logits") == facts(result.features, "logits")
    with pytest.raises(TypeError, match="signed_error"):
        hm.LogitBands().fit(result)
    with pytest.raises(TypeError, match="holds no numbers"):
        hm.signed_error(hm.extract(faces(8), several(), PROCESSOR))
    holed = result.remove_columns("label").add_column("label", [*targets[:-1].tolist(), None])
    with pytest.raises(ValueError, match="no number in 1 rows, first in row 29"):
        hm.signed_error(holed)


def test_a_model_of_tokens_is_refused_as_an_object_and_as_a_folder(tmp_path):
    model = BertForTokenClassification(BertConfig(**SMALL, vocab_size=20, num_labels=3))
    model.save_pretrained(tmp_path)
    for each in (model, tmp_path):
        with pytest.raises(ValueError, match="BertForTokenClassification gives a label for each token"):
            hm.extract(texts(3), each, tokenizer())


def test_a_convolution_of_one_pixel_is_a_head():
    class Convolved(nn.Module):
        def __init__(self):
            super().__init__()
            self.num_classes, self.fc = 3, nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.fc(x.mean((2, 3), keepdim=True)).flatten(1)

    torch.manual_seed(0)
    ds, model = images(5), Convolved()
    pixels = [torch.from_numpy(np.asarray(image) / 255).float().permute(2, 0, 1) for image in ds["image"]]
    result = hm.extract(
        ds, model, lambda image: torch.from_numpy(np.asarray(image) / 255).float().permute(2, 0, 1)[:, :30]
    )
    with torch.no_grad():
        expected = model(torch.stack([each[:, :30] for each in pixels])).numpy()
    np.testing.assert_allclose(matrix(result, "logits"), expected, atol=1e-6)
    head = hm.LinearHead.from_weights(np.eye(3), [1.0, 2.0, 3.0])
    merged = head.merge_into(model)
    torch.testing.assert_close(merged.fc.weight.flatten(1), torch.eye(3))
    assert hm.LinearHead.from_model(timm_model("test_resnet")).num_classes == 3
