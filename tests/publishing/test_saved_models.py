"""What is published is what was repaired: adapters, heads without bias, and what a class would not save."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from support.trainer_parts import bert, texts, tokenizer, vit
from transformers import AutoModelForSequenceClassification, GPT2Config, GPT2ForSequenceClassification

import hf_midrange as hm
from hf_midrange.publishing import Background, PublishError, model_facts
from hf_midrange.publishing.model import write_files


peft = pytest.importorskip("peft")
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


def adapter(model, **options):
    named = model.named_modules()
    inner = [name for name, module in named if isinstance(module, torch.nn.Linear) and "attention" in name]
    config = peft.LoraConfig(r=2, target_modules=inner, init_lora_weights=False, **options)
    return peft.get_peft_model(model, config)


def written(model, folder, **background):
    facts = model_facts(model, "me/y", Background(**background))
    folder.mkdir(exist_ok=True)
    write_files(model, None, facts, folder)
    return facts


def logits(model):
    batch = tokenizer()(texts(12)["text"][:], padding=True, return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**batch).logits


def test_of_an_adapter_the_adapter_alone_is_written_and_gives_the_corrected_logits(tmp_path):
    bert().save_pretrained(tmp_path / "base")
    model = adapter(bert(), task_type="SEQ_CLS")
    head = hm.LinearHead.from_weights(np.random.default_rng(0).normal(size=(2, 16)), [0.5, -0.5])
    repaired = head.merge_into(model)
    facts = written(repaired, tmp_path / "out", head=head, base_model="me/base")
    files = {path.name for path in (tmp_path / "out").iterdir()}
    assert files == {"adapter_config.json", "adapter_model.safetensors", "README.md"}
    assert facts.changed == ("classifier.weight", "classifier.bias")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    loaded = peft.PeftModel.from_pretrained(base, tmp_path / "out")
    torch.testing.assert_close(logits(loaded), logits(repaired), atol=1e-6, rtol=0)
    assert not torch.allclose(logits(loaded), logits(model), atol=1e-2)
    torch.testing.assert_close(logits(loaded.merge_and_unload()), logits(repaired), atol=1e-5, rtol=0)


def test_the_card_of_an_adapter_says_what_it_belongs_to(tmp_path):
    written(adapter(bert(), task_type="SEQ_CLS"), tmp_path, base_model="me/base")
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.library_name, card.data.base_model) == ("peft", "me/base")
    assert card.data.base_model_relation == "adapter"
    assert 'PeftModel.from_pretrained(base, "me/y")' in card.text
    assert json.loads((tmp_path / "adapter_config.json").read_text())["base_model_name_or_path"] == "me/base"


def test_an_adapter_whose_base_is_only_here_is_refused(tmp_path):
    bert().save_pretrained(tmp_path / "base")
    model = adapter(AutoModelForSequenceClassification.from_pretrained(tmp_path / "base"), task_type="SEQ_CLS")
    with pytest.raises(PublishError, match="give the Hub id of that, as `base_model`"):
        model_facts(model, "me/y", Background())


IN_A_FRESH_PROCESS = """
import sys
sys.modules["hf_midrange"] = None
import peft, torch
from transformers import AutoModelForImageClassification
at = sys.argv[1]
model = peft.PeftModel.from_pretrained(AutoModelForImageClassification.from_pretrained(at + "/base"), at + "/out")
pixels = torch.load(at + "/pixels.pt")
with torch.no_grad():
    found = [each.eval()(pixel_values=pixels).logits for each in (model, model.merge_and_unload())]
torch.save(found, at + "/logits.pt")
"""


@pytest.mark.parametrize("saved", [None, ["classifier"]])
def test_an_adapter_brings_its_head_to_a_process_without_this_package(saved, tmp_path):
    vit().save_pretrained(tmp_path / "base")
    model = adapter(vit(), modules_to_save=saved)
    given = hm.LinearHead.from_model(model)
    head = hm.LinearHead(given.weight + 0.1, given.bias - 0.1, given.class_names)
    repaired = head.merge_into(model)
    before, after = model.state_dict(), repaired.state_dict()
    shared = {name for name in before.keys() & after.keys() if not torch.equal(before[name], after[name])}
    assert {name for name in {*after} - {*before} | shared if ".original_module." not in name} == {
        f"base_model.model.classifier.modules_to_save.default.{part}" for part in ("weight", "bias")
    }
    written(repaired, tmp_path / "out", head=head, base_model="me/base")
    pixels = torch.randn(5, 3, 16, 16)
    torch.save(pixels, tmp_path / "pixels.pt")
    subprocess.run([sys.executable, "-c", IN_A_FRESH_PROCESS, str(tmp_path)], check=True)
    with torch.no_grad():
        expected = repaired.eval()(pixel_values=pixels).logits
    loaded, merged = torch.load(tmp_path / "logits.pt")
    torch.testing.assert_close(loaded, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(merged, expected, atol=1e-5, rtol=0)


def test_a_head_by_name_is_published_and_said(tmp_path):
    model = bert()
    model.dropout_head = torch.nn.Linear(16, 2)  # a second layer that could be the last
    head = hm.LinearHead.from_model(model, "classifier")
    facts = written(head.merge_into(model, "classifier"), tmp_path, head=head, layer="classifier")
    assert facts.changed == ("classifier.weight", "classifier.bias")
    with pytest.raises(ValueError, match="choose one by name"):
        model_facts(model, "me/y", Background(head=head))


def test_a_parameter_that_the_class_does_not_save_is_refused():
    model = GPT2ForSequenceClassification(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=1, pad_token_id=0))
    model.score.bias = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(PublishError, match=r"nobody would get the repaired model: \['score.bias'\] differ"):
        hm.publish_model(model, "me/y", token="hf_none")


def test_a_head_without_bias_is_named_as_it_is(tmp_path):
    model = GPT2ForSequenceClassification(GPT2Config(vocab_size=16, n_embd=8, n_layer=1, n_head=1, pad_token_id=0))
    head = hm.LinearHead.from_weights(np.zeros((2, 8)), np.zeros(2))
    facts = model_facts(model, "me/y", Background(head=head))
    assert facts.changed == ("score.weight",)
