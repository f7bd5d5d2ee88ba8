"""The card that the trainer writes and pushes, in place of the stock one."""

import json

import pytest
import yaml
from huggingface_hub import ModelCard
from support.hub_server.running import running
from support.trainer_parts import CLASSES, pictures
from support.training_rows import trained

import hf_midrange as hm


ME = "hf_" + "m" * 34


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    """The trainer with its card before debiasing, after it, and after an evaluation that follows."""
    folder = tmp_path_factory.mktemp("my model")
    trainer = trained(folder)
    trainer.evaluate()
    texts = []
    trainer.create_model_card()
    texts.append((folder / "README.md").read_text())
    trainer.debias(sources=[hm.Thumbnail()])
    trainer.create_model_card(
        license="apache-2.0", tags="birds", finetuned_from="me/base", dataset_tags=["me/pictures"], language="en"
    )
    texts.append((folder / "README.md").read_text())
    return trainer, folder, texts


def test_without_debiasing_the_card_speaks_of_no_correction(cards):
    text = cards[2][0]
    card = ModelCard(text, ignore_metadata_errors=False)
    assert card.data.tags == ["hf_midrange"]
    assert "correct" not in text
    assert "was not searched for shortcuts" in text
    assert "None dataset" not in text
    assert f"Classes: {', '.join(CLASSES)}." in text
    assert "## How it does" in text  # the evaluation was scored by group


def test_after_debiasing_the_card_has_verdict_findings_and_both_heads(cards):
    trainer, folder, (_, text) = cards
    card = ModelCard(text, ignore_metadata_errors=False)
    report = trainer.debias_report
    assert {"hf_midrange", "debiasing", "birds"} <= {*card.data.tags}
    assert (card.data.license, card.data.language, card.data.base_model) == ("apache-2.0", "en", "me/base")
    assert f"**{report.verdict}**" in text
    table = [line for line in text.splitlines() if line.startswith("| ") and "%" in line]
    rows = {line.split("|")[1].strip(" *"): line for line in table}
    for name, metrics in (("before debiasing", report.before), ("hf_midrange", report.after)):
        assert f"{100 * metrics['worst_group_accuracy']:.1f} %" in rows[name]
        assert f"{100 * metrics['accuracy']:.1f} %" in rows[name]
    assert "classifier.1.weight and classifier.1.bias" in text
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values["accuracy"] == pytest.approx(report.after["accuracy"], abs=1e-6)
    (entry, *_) = yaml.safe_load(next((folder / ".eval_results").iterdir()).read_text())
    assert entry["dataset"]["id"] == "me/pictures"


def test_an_evaluation_that_follows_is_what_the_card_says(cards):
    trainer, folder, _ = cards
    other = pictures(120, 0.3, seed=9)
    metrics = trainer.evaluate(other)
    trainer.create_model_card()
    assert f"**{100 * metrics['eval_worst_group_accuracy']:.1f} %" in (folder / "README.md").read_text()


PUSH = """
import sys
from support.training_rows import trained
import hf_midrange as hm
trainer = trained("out", hub_model_id="me/bars", hub_private_repo=True)
trainer.debias(sources=[hm.Thumbnail()])
trainer.push_to_hub()
"""

READ = """
import json
from huggingface_hub import HfApi, ModelCard
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained("me/bars")
AutoImageProcessor.from_pretrained("me/bars")
info = HfApi().model_info("me/bars")
print(json.dumps({
    "files": [file.rfilename for file in info.siblings],
    "head": model.classifier[1].weight.tolist(),
    "labels": list(model.config.id2label.values()),
    "card": ModelCard.load("me/bars").text,
    "private": info.private,
}))
"""


CURATE = """
from support.training_rows import trained
import hf_midrange as hm
trainer = trained("out")
trainer.save_model("before")
report = trainer.debias(sources=[hm.Thumbnail()])
hm.publish_dataset(report.curated, "me/x-mid", findings=report.findings)
"""

RETRAIN = """
from datasets import load_dataset
from transformers import AutoModelForImageClassification
from support.training_rows import arguments
from support.trainer_parts import processor
import hf_midrange as hm
trainer = hm.MidRangeTrainer(
    AutoModelForImageClassification.from_pretrained("../pusher/before"), arguments("again"),
    train_dataset=load_dataset("me/x-mid"), processing_class=processor(),
)
report = trainer.debias()
assert report.findings is None
report.head.save_pretrained("head")
trainer.train()
print(trainer.rows_used)
"""


@pytest.mark.slow
def test_the_copy_on_the_hub_gives_the_same_head(tmp_path):
    with running(tmp_path / "server", {ME: {"name": "me"}}) as server:
        for code, place in ((CURATE, "pusher"), (RETRAIN, "reader")):
            done = server.run(code, tmp_path / place, ME)
            assert done.returncode == 0, done.stderr[-3000:]
    (steps,) = (tmp_path / "pusher" / "out" / "_debias").iterdir()
    first, again = (hm.LinearHead.from_pretrained(folder) for folder in (steps / "head", tmp_path / "reader" / "head"))
    assert again.weight.tolist() == first.weight.tolist()
    assert again.bias.tolist() == first.bias.tolist()
    assert "of 240 rows, weighted by column `weight`" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("xet", [False, True])
def test_push_to_hub_brings_model_and_card_and_none_of_the_steps(xet, tmp_path):
    with running(tmp_path / "server", {ME: {"name": "me"}}) as server:
        pushed = server.run(PUSH, tmp_path / "pusher", ME, xet=xet)
        assert pushed.returncode == 0, pushed.stderr[-3000:]
        read = server.run(READ, tmp_path / "reader", ME, xet=xet, ours=False)
        assert read.returncode == 0, read.stderr[-3000:]
    found = json.loads(read.stdout.splitlines()[-1])
    report = json.loads((tmp_path / "pusher" / "out" / "debias_report.json").read_text())
    head = hm.LinearHead.from_pretrained(next((tmp_path / "pusher" / "out" / "_debias").iterdir()) / "head")
    assert found["head"] == head.weight.tolist()
    assert found["labels"] == CLASSES
    assert found["private"] is True
    assert f"**{report['verdict']}**" in found["card"]
    assert {"model.safetensors", "README.md", "preprocessor_config.json"} <= {*found["files"]}
    assert not [name for name in found["files"] if "_debias" in name or "shard-" in name]
