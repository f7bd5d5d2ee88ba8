"""Every command and every block of code in README, run as it is printed."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage

import hf_midrange as hm


ROOT = Path(__file__).parents[1]
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
def workplace(tmp_path_factory):
    """A folder with what README calls my-images, test-split and me/my-classifier."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    folder = tmp_path_factory.mktemp("readme")
    names = {0: "plain", 1: "striped"}
    config = TimmWrapperConfig(architecture="test_resnet", id2label=names, label2id={v: k for k, v in names.items()})
    model = TimmWrapperForImageClassification(config)
    cfg = model.timm_model.pretrained_cfg | {"input_size": (3, 32, 32), "crop_pct": 1.0}
    config.pretrained_cfg = model.timm_model.pretrained_cfg = model.timm_model.default_cfg = cfg
    probe = hm.curate(hm.extract(striped_images(200, 0), model), strategy="class-balanced")
    model = hm.retrain_head(probe).merge_into(model)
    model.save_pretrained(folder / "me" / "my-classifier")
    striped_images(240, 1).save_to_disk(folder / "my-images")
    hm.extract(striped_images(60, 2), model).save_to_disk(folder / "test-split")
    return folder


def test_the_two_commands_are_make_targets():
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("make ")]
    assert commands == ["make demo", "make test"]
    for command in commands:
        subprocess.run([*shlex.split(command), "-n"], cwd=ROOT, check=True, capture_output=True)


def test_each_command_runs_as_printed(workplace):
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("hf-midrange")]
    assert len(commands) == 2
    for command in commands:
        typed = [sys.executable, "-m", "hf_midrange.cli", *shlex.split(command)[1:]]
        done = subprocess.run(typed, cwd=workplace, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_the_python_of_readme_runs(workplace, monkeypatch):
    from datasets import load_from_disk
    from transformers import AutoModelForImageClassification

    monkeypatch.chdir(workplace)
    model = AutoModelForImageClassification.from_pretrained("me/my-classifier")
    names = {"dataset": load_from_disk("my-images"), "model": model}
    (code,) = blocks("python")
    exec(code, names)
    assert type(names["model"]) is type(model)
    assert names["head"].weight.shape == (2, names["head"].weight.shape[1])


def test_the_picture_is_there():
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (ROOT / path).is_file()
