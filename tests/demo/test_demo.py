"""The demo's own parts, and the demo as a user types it, on a reduced size."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from datasets import Value, load_from_disk

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.concepts.lite0 import lite0
from hf_midrange.demo import run_demo
from hf_midrange.demo.domino_trial import linear_probe, shuffled_weights
from hf_midrange.demo.dominoes import CLASSES, TOPS, digits, dominoes


@pytest.fixture(scope="module")
def data():
    return digits()


def test_dominoes_are_tied_as_asked_and_splits_share_no_digit(data):
    train, test = dominoes("train", 200, 0.05, 0, data), dominoes("test", 100, 0.5, 0, data)
    groups = np.bincount(columns.labels(train, columns.GROUP), minlength=4)
    assert groups.tolist() == [95, 5, 5, 95]
    assert np.bincount(columns.labels(test, columns.GROUP)).tolist() == [25, 25, 25, 25]
    assert not set(train[columns.SOURCE_ID]) & set(test[columns.SOURCE_ID])
    pixels, classes = data
    for row in train.select(range(10)):
        picture = np.asarray(row["image"])[:, :, 0]
        lower = row[columns.SOURCE_ID]
        np.testing.assert_array_equal(picture[28:, 14:42], pixels[lower])
        assert classes[lower] == CLASSES[row["label"]]
        upper = picture[:28, 14:42]
        assert any((upper == pixels[i]).all() for i in np.flatnonzero(classes == TOPS[row["group"] % 2]))


def test_lite0_is_pretrained_and_survives_saving(tmp_path):
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = lite0(["a", "b"], pixels=64)
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path)
    assert again.config.id2label == {0: "a", 1: "b"}
    assert tuple(AutoImageProcessor.from_pretrained(tmp_path).data_config["input_size"]) == (3, 64, 64)
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(model(pixels).logits, again(pixels).logits)


def test_linear_probe_is_the_logistic_regression_it_says():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    ids = rng.integers(0, 2, 200)
    embedding = rng.normal(size=(200, 5)).astype(np.float32) + ids[:, None]
    ds = columns.with_columns(hm_labels(ids), {columns.EMBEDDING: (embedding, columns.vector(5))})
    logits = linear_probe(ds)(embedding).numpy()
    standard = (embedding - embedding.mean(0)) / embedding.std(0)
    expected = LogisticRegression(C=0.01, max_iter=1000).fit(standard, ids).decision_function(standard)
    np.testing.assert_allclose(logits[:, 1] - logits[:, 0], expected, atol=1e-4)


def test_shuffled_weights_keep_each_class_its_weights():
    ids = np.array([0, 0, 0, 1, 1, 1])
    weights = np.array([1, 2, 3, 4, 5, 6], dtype=np.float32)
    ds = columns.with_columns(hm_labels(ids), {columns.WEIGHT: (weights, Value("float32"))})
    shuffled = np.array(shuffled_weights(ds, seed=1)[columns.WEIGHT])
    assert sorted(shuffled[:3]) == [1, 2, 3]
    assert sorted(shuffled[3:]) == [4, 5, 6]


def hm_labels(ids):
    from datasets import ClassLabel, Dataset, Features

    return Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=["a", "b"])}))


def test_no_seed_is_refused(tmp_path):
    with pytest.raises(ValueError, match="seeds"):
        run_demo(0, tmp_path)


def test_the_demo_as_typed(tmp_path):
    output = tmp_path / "demo"
    words = ["demo", "--quick", "--seeds", "1", "--output", str(output)]
    command = [sys.executable, "-m", "hf_midrange.commands.app", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    facts = json.loads((output / "facts.json").read_text())
    assert list(facts["methods"]) == list(facts["trials"][0])
    assert facts["methods"]["hf_midrange"]["worst_group"] > facts["methods"]["ERM"]["worst_group"]
    assert (output / "middle.png").read_bytes().startswith(b"\x89PNG")
    curated = load_from_disk(output / "curated")
    assert hm.curation_report(curated)["verdict"] == facts["curation"]["verdict"]

    from transformers import AutoModelForImageClassification

    repaired = AutoModelForImageClassification.from_pretrained(output / "model")
    head = hm.LinearHead.from_pretrained(output / "head")
    assert torch.equal(repaired.timm_model.classifier.weight, head.weight)
