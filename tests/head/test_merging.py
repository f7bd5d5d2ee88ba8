"""A head merged into a model stays there: in memory, after saving and loading, by name, and for adapters."""

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DataCollatorWithPadding,
    DeiTConfig,
    DeiTForImageClassificationWithTeacher,
    LlamaConfig,
    LlamaForSequenceClassification,
)

import hf_midrange as hm
from hf_midrange import LinearHead, columns
from hf_midrange.extraction.inputs import Collated
from hf_midrange.head.linear_head import refuse_unloadable
from hf_midrange.head.proof import NotRepairedError, prove_repaired, reloaded


SMALL = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
SMALL |= {"num_hidden_layers": 1}
NAMES = {"id2label": {0: "no", 1: "yes"}, "label2id": {"no": 0, "yes": 1}}


def llama():
    torch.manual_seed(0)
    return LlamaForSequenceClassification(LlamaConfig(**SMALL, num_key_value_heads=2, pad_token_id=0, **NAMES)).eval()


def bert():
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SMALL, **NAMES)).eval()


def tokens(rows=12):
    rng = np.random.default_rng(0)
    return {"input_ids": torch.as_tensor(rng.integers(3, 40, (rows, 5))), "attention_mask": torch.ones(rows, 5).long()}


def curated_by(model, rows=60, names=("no", "yes")):
    """Return rows whose embeddings a model made, with weights."""
    layer = dict(model.named_modules())["score" if hasattr(model, "score") else "classifier"]
    rng = np.random.default_rng(1)
    embedding = rng.normal(size=(rows, layer.in_features)).astype(np.float32)
    labels = (embedding[:, 0] + rng.normal(size=rows) > 0).astype(int)
    base = Dataset.from_dict({"label": labels}, features=Features({"label": ClassLabel(names=list(names))}))
    logits = LinearHead.from_model(model)(embedding).numpy()
    more = {
        "embedding": (embedding, columns.vector(layer.in_features)),
        "logits": (logits, columns.vector(2)),
        "weight": (rng.random(rows).astype(np.float32) + 0.1, Value("float32")),
    }
    return columns.with_columns(base, more)


@pytest.mark.parametrize("make", [llama, bert])
def test_a_repaired_model_is_the_same_after_loading(make, tmp_path):
    model = make()
    head = hm.retrain_head(curated_by(model), model)
    merged = head.merge_into(model)
    assert {*merged.state_dict()} == {*model.state_dict()}
    merged.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        before, after, old = (each(**tokens()).logits for each in (merged, loaded, model))
    torch.testing.assert_close(before, after, atol=1e-6, rtol=0)
    assert (before - old).abs().max() > 1e-3


def test_a_bias_that_would_be_lost_is_not_merged():
    head = LinearHead.from_weights(np.zeros((2, 16)), [0.0, 1.0])
    with pytest.raises(ValueError, match="no bias and would lose"):
        head.merge_into(llama())


def test_both_heads_of_a_distilled_model_are_corrected():
    torch.manual_seed(0)
    config = DeiTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    model = DeiTForImageClassificationWithTeacher(config).eval()
    head = LinearHead.from_model(model)
    assert head.weight.shape == (2, 32)
    changed = LinearHead(head.weight + 1, head.bias + 2, None)
    merged = changed.merge_into(model)
    seen = {}
    for name, layer in (("cls", merged.cls_classifier), ("dist", merged.distillation_classifier)):
        layer.register_forward_pre_hook(lambda _, given, name=name: seen.update({name: given[0]}))
    with torch.no_grad():
        logits = merged(torch.rand(3, 3, 8, 8)).logits
    torch.testing.assert_close(changed(torch.cat([seen["cls"], seen["dist"]], dim=1)), logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(LinearHead.from_model(merged).weight, changed.weight)


class Cosine(nn.Linear):
    def forward(self, given):
        return nn.functional.linear(nn.functional.normalize(given), nn.functional.normalize(self.weight))


def test_a_layer_that_is_no_plain_product_is_refused_by_name():
    with pytest.raises(ValueError, match="'1' is a Cosine"):
        LinearHead.from_model(nn.Sequential(nn.ReLU(), Cosine(5, 2)))


def test_classes_go_by_name():
    model = bert()
    rows = curated_by(model, names=("yes", "no"))
    logits = columns.matrix(rows, "logits")[:, ::-1].copy()
    swapped = columns.with_columns(rows, {"logits": (logits, columns.vector(2))})
    head = hm.retrain_head(swapped, model)
    assert head.class_names == ("yes", "no")
    assert LinearHead.from_model(head.merge_into(model)).class_names == ("no", "yes")
    again = LinearHead.from_model(head.merge_into(model))
    torch.testing.assert_close(again.weight, head.weight[[1, 0]])
    given = LinearHead.from_model(model)
    assert torch.equal(hm.retrain_head(swapped, given).weight, head.weight)
    other = LinearHead(given.weight, given.bias, ("cat", "dog"))
    with pytest.warns(UserWarning, match=r"\['cat', 'dog'\].*\['yes', 'no'\]"):
        hm.retrain_head(swapped, other)


def test_some_classes_of_many_leave_the_others_as_they_are():
    many = {k: f"kind {k}" for k in range(5)}
    model = BertForSequenceClassification(BertConfig(**SMALL, id2label=many, label2id={v: k for k, v in many.items()}))
    head = LinearHead.from_weights(np.ones((2, 16)), [1.0, 2.0], ("kind 3", "kind 1"))
    merged = head.merge_into(model)
    assert merged.classifier.bias[[3, 1]].tolist() == [1.0, 2.0]
    others = [0, 2, 4]
    assert torch.equal(merged.classifier.weight[others], model.classifier.weight[others])


def test_rows_of_another_model_are_refused():
    from hf_midrange.classifier import fingerprint

    model = bert()
    rows, facts = curated_by(model), {"model": "me/first", "fingerprint": fingerprint(model)}
    marked = columns.with_columns(
        rows, {"logits": (columns.matrix(rows, "logits"), columns.with_facts(columns.vector(2), **facts))}
    )
    assert hm.retrain_head(marked, model).num_classes == 2
    torch.manual_seed(7)
    other = BertForSequenceClassification(BertConfig(**SMALL, **NAMES))
    other.config.name_or_path = "me/second"
    with pytest.raises(ValueError, match="made by 'me/first'.*'me/second'"):
        hm.retrain_head(marked, other)


class Forgetful(BertForSequenceClassification):
    """A class that does not save its classifier."""

    def save_pretrained(self, folder):
        kept = {name: tensor for name, tensor in self.state_dict().items() if "classifier" not in name}
        super().save_pretrained(folder, state_dict=kept)


def test_what_is_lost_on_loading_is_proven_before_it_is_called_repaired(told_texts):
    rows, processor = told_texts
    model = bert()
    head = LinearHead.from_weights(np.random.default_rng(0).normal(size=(2, 16)), [0.5, -0.5])
    prove_repaired(head.merge_into(model), rows, processor)
    with pytest.raises(NotRepairedError, match="'classifier.weight', 'classifier.bias'. differ"):
        prove_repaired(head.merge_into(Forgetful(model.config)), rows, processor)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
@pytest.mark.parametrize("saved", [True, False])
def test_an_adapter_is_proven_to_carry_its_head(saved, told_texts, tmp_path):
    peft = pytest.importorskip("peft")
    rows, processor = told_texts
    options = {"target_modules": ["q_proj"], "modules_to_save": ["score"] if saved else None}
    base = llama()
    model = peft.get_peft_model(llama(), peft.LoraConfig(**options)).eval()
    given = LinearHead.from_model(model)
    head = LinearHead(given.weight + 1, given.bias, given.class_names, given.has_bias)
    merged = head.merge_into(model)
    prove_repaired(merged, rows, processor)
    merged.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**tokens()).logits, merged(**tokens()).logits, atol=1e-6, rtol=0)
        whole = loaded.merge_and_unload()
        torch.testing.assert_close(whole(**tokens()).logits, merged(**tokens()).logits, atol=1e-5, rtol=0)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks for it
def test_an_adapter_that_lost_its_head_is_proven_to_have_lost_it(told_texts):
    peft = pytest.importorskip("peft")
    rows, processor = told_texts
    model = peft.get_peft_model(llama(), peft.LoraConfig(target_modules=["q_proj"])).eval()
    with pytest.raises(NotRepairedError, match="modules_to_save"):
        prove_repaired(model, rows, processor)


class SeveralDropouts(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear, self.dropout = nn.Linear(width, 2), nn.Dropout(0.5)

    def forward(self, given):
        return torch.stack([self.linear(self.dropout(given)) for _ in range(3)]).mean(dim=0)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            lambda: nn.Sequential(nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 2)),
            r"'classifier.2' is not what Bert.*lose",
        ),
        (lambda: SeveralDropouts(16), r"'classifier.linear' is not what Bert.*look for \['classifier.bias'"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(16, 2)), "'classifier' is computed from other"),
        (lambda: Cosine(16, 2), "'classifier' is a Cosine"),
        (lambda: nn.Sequential(nn.Unflatten(1, (16, 1)), nn.Conv1d(16, 2, 1)), "'classifier.1', is a Conv1d"),
    ],
)
def test_a_head_that_would_be_lost_is_refused_by_name(head, message):
    model = bert()
    model.classifier = head()
    with pytest.raises(ValueError, match=message):
        refuse_unloadable(model)
    with pytest.raises(ValueError, match=message):
        LinearHead.from_weights(np.zeros((2, 16)), np.zeros(2)).merge_into(model)


def test_a_head_without_the_bias_that_its_class_has_is_corrected_without(told_texts):
    rows, processor = told_texts
    model = bert()
    model.classifier = nn.Linear(16, 2, bias=False)
    given = LinearHead.from_model(model)
    merged = LinearHead(given.weight * 2, given.bias, None, given.has_bias).merge_into(model)
    prove_repaired(merged, rows, processor)
    assert merged.classifier.bias is None


def test_what_a_trainer_reads_is_proven_on_its_rows(told_texts):
    rows, processor = told_texts
    encoded = rows.map(lambda batch: processor(batch["text"]), batched=True, remove_columns="text")
    pad = DataCollatorWithPadding(processor)
    reader = Collated(encoded.select_columns(["input_ids", "attention_mask"]), pad)
    head = LinearHead.from_weights(np.ones((2, 16)), [0.5, -0.5])
    prove_repaired(head.merge_into(bert()), encoded, reader)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_model_on_a_gpu_is_corrected_and_stays_there():
    model = bert()
    rows = curated_by(model)
    expected = hm.retrain_head(rows, model)
    moved = model.cuda()
    assert LinearHead.from_model(moved).weight.device.type == "cpu"
    found = hm.retrain_head(rows, moved)
    torch.testing.assert_close(found.weight, expected.weight, atol=1e-5, rtol=1e-4)
    assert found.merge_into(moved).classifier.weight.device.type == "cuda"


def test_two_heads_are_loaded_as_they_were_saved(tmp_path):
    config = DeiTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    model = DeiTForImageClassificationWithTeacher(config).eval()
    head = LinearHead.from_model(model)
    merged = LinearHead(head.weight * 2, head.bias + 1).merge_into(model)
    again = reloaded(merged)
    torch.testing.assert_close(LinearHead.from_model(again).weight, head.weight * 2)
    torch.testing.assert_close(again.distillation_classifier.bias, merged.distillation_classifier.bias)
