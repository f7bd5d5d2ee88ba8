"""A user's own columns under the names of the package."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from hf_midrange.input_columns import usual_columns


NAMES = ["no", "yes"]


def rows(**columns):
    return Dataset.from_dict(columns)


@pytest.mark.parametrize("text", ["text", "sentence", "premise", "sentence1"])
@pytest.mark.parametrize("label", ["label", "labels", "target", "label_ids"])
def test_inputs_and_labels_are_found_by_their_usual_names(text, label):
    ds = usual_columns(rows(**{text: ["a", "b", "c"], label: [1, 0, 1], "other": [1, 2, 3]}), NAMES)
    assert {"text", "label", "other"} == {*ds.column_names}
    assert ds["label"][:] == [1, 0, 1]
    assert ds.features["label"] == ClassLabel(names=NAMES)


def test_pairs_of_texts_are_found():
    ds = usual_columns(rows(premise=["a"], hypothesis=["b"], label=[0]), NAMES)
    assert (ds["text"][:], ds["text_pair"][:]) == (["a"], ["b"])


@pytest.mark.parametrize("name", ["image", "img", "anything"])
def test_the_image_is_found(name):
    features = Features({name: Image(), "label": ClassLabel(names=NAMES)})
    ds = Dataset.from_dict({name: [np.zeros((2, 2, 3), np.uint8)], "label": [0]}, features=features)
    assert isinstance(usual_columns(ds).features["image"], Image)


def test_the_only_column_of_classes_is_the_label_and_groups_are_not():
    features = Features({"kind": ClassLabel(names=NAMES), "group": ClassLabel(names=["g"]), "text": Value("string")})
    ds = Dataset.from_dict({"kind": [0], "group": [0], "text": ["a"]}, features=features)
    assert usual_columns(ds).features["label"].names == NAMES
    two = ds.add_column("other", [0], feature=ClassLabel(names=["a"]))
    with pytest.raises(KeyError, match=r"2 columns of classes, \['kind', 'other'\].*name it `label`"):
        usual_columns(two)
    assert usual_columns(two, label="other").features["label"].names == ["a"]
    with pytest.raises(KeyError, match="no column 'nothing'"):
        usual_columns(two, label="nothing")


def test_names_are_encoded_as_the_model_has_them():
    ds = usual_columns(rows(text=["a", "b", "c"], label=["yes", "no", "yes"], group=["x", None, "w"]), NAMES)
    assert ds["label"][:] == [1, 0, 1]
    assert ds.features["label"].names == NAMES
    assert ds.features["group"].names == ["w", "x"]
    assert ds["group"][:] == [1, None, 0]


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1"], None, ["no", "no"]])
def test_names_that_the_model_does_not_know_are_refused_with_both_lists(names):
    with pytest.raises(ValueError, match=r"labels 'no', 'yes', the model the classes ('LABEL_0'|\(none|'no', 'no')"):
        usual_columns(rows(text=["a", "b"], label=["yes", "no"]), names)


def test_ids_beyond_the_classes_are_refused():
    with pytest.raises(ValueError, match="has the id 2, but the model 2 classes: 'no', 'yes'"):
        usual_columns(rows(text=["a"], label=[2]), NAMES)
    with pytest.raises(TypeError, match="must hold one class a row, by name or id, but is"):
        usual_columns(rows(text=["a"], label=[0.5]), NAMES)
