"""Every command and every block of code in README, run as it is printed."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from support.hub_server.running import running

import hf_midrange as hm


ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def striped_images(rows, seed):
    """Class 1 has a bright stripe below; a bright stripe above goes with it in nine rows of ten."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    above = np.where(rng.random(rows) < 0.1, 1 - labels, labels)
    pixels = rng.integers(0, 90, size=(rows, 32, 32, 3), dtype=np.uint8)
    pixels[:, 20:28] += (70 * labels[:, None, None, None]).astype(np.uint8)
    pixels[:, 4:12] += (120 * above[:, None, None, None]).astype(np.uint8)
    features = Features({"image": Image(), "label": ClassLabel(names=["plain", "striped"])})
    return Dataset.from_dict({"image": [PILImage.fromarray(p) for p in pixels], "label": labels}, features=features)


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder with what README calls my-images, test-split and me/my-classifier."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    folder = tmp_path_factory.mktemp("readme")
    names = {0: "plain", 1: "striped"}
    config = TimmWrapperConfig(architecture="test_resnet", id2label=names, label2id={v: k for k, v in names.items()})
    torch.manual_seed(0)
    model = TimmWrapperForImageClassification(config)
    cfg = model.timm_model.pretrained_cfg | {"input_size": (3, 32, 32), "crop_pct": 1.0}
    config.pretrained_cfg = model.timm_model.pretrained_cfg = model.timm_model.default_cfg = cfg
    probe = hm.curate(hm.extract(striped_images(200, 0), model), strategy="class-balanced")
    model = hm.retrain_head(probe).merge_into(model)
    model.save_pretrained(folder / "me" / "my-classifier")
    striped_images(240, 1).save_to_disk(folder / "my-images")
    striped_images(60, 2).save_to_disk(folder / "test-split")
    return folder


def test_the_two_commands_are_make_targets():
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("make ")]
    assert commands == ["make demo", "make test"]
    for command in commands:
        subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, check=True, capture_output=True)


def test_each_command_runs_as_printed(reader):
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("hf-midrange")]
    local = [command for command in commands if not command.startswith("hf-midrange publish")]
    assert len(local) == 2
    for command in local:
        typed = [sys.executable, "-m", "hf_midrange.commands.app", *shlex.split(command)[1:]]
        done = subprocess.run(typed, cwd=reader, capture_output=True, text=True)
        nothing_shown = 3 if " run " in command else 0
        assert done.returncode in (0, nothing_shown), f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_python_of_readme_runs(reader, monkeypatch):
    from datasets import load_from_disk
    from transformers import AutoModelForImageClassification

    monkeypatch.chdir(reader)
    model = AutoModelForImageClassification.from_pretrained("me/my-classifier")
    names = {"dataset": load_from_disk("my-images"), "model": model}
    code, _, _ = blocks("python")
    exec(code, names)
    assert Path("report").is_dir()
    assert type(names["model"]) is type(model)
    assert names["head"].weight.shape == (2, names["head"].weight.shape[1])
    names["curated"].save_to_disk("shared/curated")
    names["findings"].save_to_disk("shared/findings", num_shards=1)  # there may be none
    names["model"].save_pretrained("shared/model")


def test_the_trainer_of_readme_runs(tmp_path, monkeypatch):
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    # No batch normalisation: untrained statistics would make training and evaluation two different networks.
    model = ViTForImageClassification(
        ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32,
                  patch_size=8)  # fmt: skip
    )
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    probe = hm.curate(hm.extract(striped_images(200, 0), model, processor), strategy="class-balanced")
    model = hm.retrain_head(probe).merge_into(model)
    names = {"hm": hm, "model": model, "processor": processor}
    names |= {"train": striped_images(240, 3), "test": striped_images(60, 4)}
    before = model.classifier.weight.detach().clone()
    _, code, _ = blocks("python")
    exec(code, names)
    assert not before.equal(model.classifier.weight.cpu())
    assert Path("out/debias_report.json").is_file()


SHARE = """
import sys
import hf_midrange as hm
from datasets import load_from_disk
from hf_midrange.commands.app import main
from transformers import AutoImageProcessor, AutoModelForImageClassification
curated, findings = load_from_disk("shared/curated"), load_from_disk("shared/findings")
model = AutoModelForImageClassification.from_pretrained("shared/model")
processor = AutoImageProcessor.from_pretrained("shared/model")
exec(CODE)
for command in COMMANDS:
    try:
        main(command)
    except SystemExit as end:
        assert not end.code, command
"""


def test_sharing_works_against_a_hub(reader, tmp_path):
    """After the two tests above, whose results it publishes."""
    if not (reader / "repaired" / "model").is_dir():  # `run` writes it where a tie is shown
        shutil.copytree(reader / "shared" / "model", reader / "repaired" / "model")
    *_, code = blocks("python")
    commands = [line for block in blocks("bash") for line in block.splitlines() if "hf-midrange publish" in line]
    script = SHARE.replace("CODE", repr(code)).replace("COMMANDS", repr([shlex.split(c)[1:] for c in commands]))
    token = "hf_" + "a" * 34
    with running(tmp_path / "hub", {token: {"name": "me"}}) as server:
        done = server.run(f"import os; os.chdir({str(reader)!r})\n{script}", tmp_path / "home", token)
        assert done.returncode == 0, done.stderr
        assert token not in done.stdout + done.stderr
        assert len(re.findall("published http", done.stdout)) == len(commands) == 2
        for kind, repo_id in (("datasets", "me/my-images-mid"), ("models", "me/my-classifier-mid")):
            log = server.git(kind, repo_id, "log", "--format=%s", "main").splitlines()
            assert len(log) in (2, 3)  # a second time, unless nothing changed
            assert log[-1] == "initial commit"


def test_the_picture_is_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file()
