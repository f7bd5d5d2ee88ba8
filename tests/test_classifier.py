"""Loading a classifier and finding its last linear layer."""

import copy

import pytest
import timm
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    GPT2Config,
    GPT2ForSequenceClassification,
    ResNetConfig,
    ResNetForImageClassification,
    TimmWrapperConfig,
    TimmWrapperForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_midrange.classifier import (
    class_order,
    fingerprint,
    heads,
    label_names,
    load_classifier,
    modality,
    number_of_labels,
    unwrapped,
)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def bert(labels: int = 3) -> BertForSequenceClassification:
    return BertForSequenceClassification(BertConfig(**SMALL, vocab_size=50, num_labels=labels))


def gpt2() -> GPT2ForSequenceClassification:
    config = GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=50, num_labels=3, pad_token_id=0, bos_token_id=1, eos_token_id=1
    )
    return GPT2ForSequenceClassification(config)


def resnet() -> ResNetForImageClassification:
    return ResNetForImageClassification(
        ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic", num_labels=3)
    )


def vit(kind=ViTForImageClassification, config=ViTConfig):
    return kind(config(**SMALL, image_size=16, patch_size=8, num_labels=3))


def wrapped() -> TimmWrapperForImageClassification:
    return TimmWrapperForImageClassification(TimmWrapperConfig(architecture="test_resnet", num_labels=3))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: timm.create_model("test_resnet", num_classes=3), "fc"),
        (lambda: timm.create_model("test_vit", num_classes=3), "head"),
        (lambda: timm.create_model("test_convnext", num_classes=3), "head.fc"),
        (lambda: timm.create_model("test_efficientnet", num_classes=3), "classifier"),
        (wrapped, "timm_model.fc"),
        (vit, "classifier"),
        (resnet, "classifier.1"),
        (bert, "classifier"),
        (gpt2, "score"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 3)), "3"),
    ],
)
def test_last_linear_is_found(make, name):
    model = make()
    head = heads(model)
    assert head.layers == {name: model.get_submodule(name)}
    assert head.classes == 3


def test_as_many_labels_as_hidden_units_is_no_ambiguity():
    assert heads(bert(labels=16)).name == "classifier"


def test_two_heads_of_a_distilled_model_are_one_and_one_can_be_chosen():
    torch.manual_seed(0)
    model = vit(DeiTForImageClassificationWithTeacher, DeiTConfig)
    head = heads(model)
    assert head.name == "cls_classifier+distillation_classifier"
    weight, bias = head.weights()
    assert weight.shape == (3, 32)
    first, second = torch.randn(5, 16), torch.randn(5, 16)
    mean = (model.cls_classifier(first) + model.distillation_classifier(second)) / 2
    torch.testing.assert_close(torch.cat([first, second], 1) @ weight.T + bias, mean)
    assert heads(model, "distillation_classifier").layers == {"distillation_classifier": model.distillation_classifier}
    assert heads(model, head.name).layers == head.layers
    other = torch.randn(3, 32), torch.randn(3)
    head.put(*other)
    for found, expected in zip(heads(model).weights(), other, strict=True):
        torch.testing.assert_close(found, expected)


def test_two_heads_that_are_no_pair_are_refused_by_name():
    model = nn.Module()
    model.num_classes, model.a, model.b = 3, nn.Linear(4, 3), nn.Linear(4, 3)
    with pytest.raises(ValueError, match="'a'.*'b'.*choose one by name"):
        heads(model)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`")  # peft asks for what transformers renamed
@pytest.mark.parametrize(
    "wrap", [torch.compile, nn.DataParallel, "peft", lambda model: nn.DataParallel(torch.compile(model))]
)
def test_what_a_wrapper_holds_is_seen(wrap):
    model = vit()
    model.config.id2label = {0: "cat", 1: "dog", 2: "bird"}
    if wrap == "peft":
        peft = pytest.importorskip("peft")
        settings = peft.LoraConfig(
            target_modules=["q_proj", "v_proj", "query", "value"], modules_to_save=["classifier"]
        )
        held, name = peft.get_peft_model(model, settings), "classifier.modules_to_save.default"
    else:
        held, name = wrap(model), "classifier"
    assert unwrapped(held) is model
    assert (number_of_labels(held), label_names(held), modality(held)) == (3, ["cat", "dog", "bird"], "image")
    assert heads(held).layers == {name: model.get_submodule(name)}
    assert heads(held, name).layers == heads(held).layers
    if wrap != "peft":
        assert fingerprint(held) == fingerprint(model)


def test_classes_are_found_by_name():
    model = vit()
    assert class_order(["LABEL_1", "LABEL_0", "LABEL_2"], model) is None  # names that nobody gave
    model.config.id2label = {0: "Sea bird", 1: "tench, Tinca tinca, fish", 2: "goldfish, fish"}
    assert class_order(["goldfish", "tench"], model) == [2, 1]
    assert class_order(["sea_bird"], model) == [0]
    assert class_order(["fish"], model) is None
    assert class_order(["tench", "Tinca tinca"], model) is None
    assert class_order(["cat", "tench"], model) is None


def test_a_timm_model_without_classifier_is_refused_with_its_linears_named():
    with pytest.raises(ValueError, match=r"no Linear classifier with 0 outputs.*blocks"):
        heads(timm.create_model("test_vit", num_classes=0))


def test_a_name_that_is_no_linear_is_refused_with_the_linears_named():
    with pytest.raises(ValueError, match=r"'conv1' is no Linear.*'fc' \(96 -> 3\)"):
        heads(timm.create_model("test_resnet", num_classes=3), "conv1")


@pytest.mark.parametrize(("make", "kind"), [(bert, "text"), (gpt2, "text"), (vit, "image"), (wrapped, "image")])
def test_modality(make, kind):
    assert modality(make()) == kind


def test_labels_and_names():
    named = vit()
    named.config.id2label = {0: "cat", 1: "dog", 2: "bird"}
    assert label_names(named) == ["cat", "dog", "bird"]
    assert number_of_labels(named) == 3
    assert label_names(timm.create_model("test_resnet", num_classes=3)) is None
    assert number_of_labels(nn.Linear(2, 2)) is None


def test_weights_of_a_head_are_float32_copies():
    linear = nn.Linear(4, 2, bias=False, dtype=torch.bfloat16)
    weight, bias = heads(linear).weights()
    assert weight.dtype == bias.dtype == torch.float32
    assert bias.tolist() == [0, 0]
    weight.zero_()
    assert linear.weight.abs().sum() > 0


@pytest.mark.parametrize("make", [bert, wrapped, vit])
def test_a_folder_loads_as_the_class_that_wrote_it(make, tmp_path):
    model = make()
    model.save_pretrained(tmp_path)
    loaded = load_classifier(tmp_path)
    assert type(loaded) is type(model)
    for key, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)


def test_a_checkpoint_without_its_head_is_refused(tmp_path):
    BertModel(BertConfig(**SMALL, vocab_size=50)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"classifier\.weight.*would be random"):
        load_classifier(tmp_path)


def test_a_model_that_is_no_classifier_is_refused(tmp_path):
    from transformers import CLIPTextConfig

    CLIPTextConfig(**SMALL).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no image or sequence classifier"):
        load_classifier(tmp_path)


def test_a_fingerprint_tells_weights_apart_in_any_precision():
    torch.manual_seed(0)
    model = bert()
    first = fingerprint(model)
    assert fingerprint(copy.deepcopy(model)) == first
    assert fingerprint(copy.deepcopy(model).train()) == first
    half = copy.deepcopy(model).bfloat16()
    assert fingerprint(half) == fingerprint(copy.deepcopy(half)) != first
    with torch.no_grad():
        model.classifier.bias[0] += 1e-3
    assert fingerprint(model) != first
