"""Code that comes with a model is never run, nor offered: by no command, and by no call in the source."""

import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as PILImage
from typer.testing import CliRunner

import hf_midrange as hm
from hf_midrange.commands import app as cli


ROOT = Path(__file__).parents[2]
OURS = {"LinearHead", "hm.LinearHead", "LogitBands", "hm.LogitBands", "Baseline", "super()", "cls"}
"""What reads files of ours, in which there is no code; a configuration's own class runs none either."""


def calls_of_from_pretrained():
    """Return every call in the package and the scripts: file and line, what is called, and its keywords."""
    found = []
    for path in sorted([*ROOT.glob("hf_midrange/**/*.py"), *ROOT.glob("scripts/**/*.py")]):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                if node.func.attr == "from_pretrained":
                    names = {keyword.arg or ast.unparse(keyword.value) for keyword in node.keywords}
                    found.append((f"{path.relative_to(ROOT)}:{node.lineno}", ast.unparse(node.func.value), names))
    return found


def is_loaded_already(of: str) -> bool:
    """Whether a class is taken from an object, or is peft's own: which class it is is not read from a folder."""
    return of.startswith("type(") or of == "PeftModel"


def test_every_call_says_whether_code_may_run():
    found = calls_of_from_pretrained()
    assert len(found) > 8
    silent = [
        place
        for place, of, names in found
        if of not in OURS and not is_loaded_already(of) and not names & {"trust_remote_code", "hub"}
    ]
    assert silent == []


EVIL = """
from pathlib import Path
Path({marker!r}).write_text("ran")
class Evil: pass
"""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """Return a folder with a model whose preprocessing brings code, one that is code itself, and rows for both."""
    from transformers import TimmWrapperConfig, TimmWrapperForImageClassification

    folder = tmp_path_factory.mktemp("hostile")
    names = {0: "a", 1: "b"}
    torch.manual_seed(0)
    config = TimmWrapperConfig(architecture="test_resnet", id2label=names, label2id={v: k for k, v in names.items()})
    model = TimmWrapperForImageClassification(config)
    model.save_pretrained(folder / "model")
    (folder / "model" / "evil.py").write_text(EVIL.format(marker=str(folder / "ran")))
    kinds = {"image_processor_type": "EvilProcessor", "processor_class": "EvilProcessor"}
    coded = {name: "evil.Evil" for name in ("AutoImageProcessor", "AutoProcessor", "AutoTokenizer", "AutoConfig")}
    (folder / "model" / "preprocessor_config.json").write_text(json.dumps({**kinds, "auto_map": coded}))
    whole = folder / "code"
    whole.mkdir()
    (whole / "evil.py").write_text(EVIL.format(marker=str(folder / "ran")))
    models = ("AutoModel", "AutoModelForImageClassification", "AutoModelForImageTextToText")
    coded |= {name: "evil.Evil" for name in models}
    (whole / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": coded}))

    rng = np.random.default_rng(0)
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    images = [PILImage.fromarray(rng.integers(0, 256, (32, 32, 3)).astype(np.uint8)) for _ in range(40)]
    rows = Dataset.from_dict({"image": images, "label": [0, 1] * 20}, features=features)
    rows.save_to_disk(folder / "rows")
    extracted = hm.extract(rows, model)
    extracted.save_to_disk(folder / "extracted")
    hm.curate(extracted, strategy="class-balanced").save_to_disk(folder / "curated")
    return folder


COMMANDS = [
    ("extract", "rows", "--model", "model"),
    ("extract", "rows", "--model", "code"),
    ("run", "rows", "--model", "model"),
    ("run", "rows", "--model", "code"),
    ("retrain", "curated", "--model", "model", "--merge"),
    ("annotate", "extracted", "--source", "early-features:model"),
    ("annotate", "extracted", "--source", "predictions:code"),
    ("annotate", "extracted", "--source", "captions:code"),
    ("annotate", "extracted", "--source", "zero-shot:colours:code"),
    ("annotate", "extracted", "--source", "zero-shot:colours:model"),
    ("publish", "me/x", "--model", "model"),
    ("publish", "me/x", "--model", "code"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
@pytest.mark.filterwarnings("ignore")
def test_a_yes_at_the_prompt_runs_nothing(words, hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(hostile)
    output = [] if words[0] == "publish" else ["--output", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, [*words, *output], input="y\n" * 100)
    assert not (hostile / "ran").exists()
    assert "custom code?" not in done.output  # nobody is asked
    # What fails says so; a model whose preprocessing alone is foreign may be used without it.
    assert done.exit_code == 0 or isinstance(done.exception, (ValueError, OSError, KeyError)), done.exception


@pytest.mark.parametrize("script", ["train", "debias"])
def test_the_training_scripts_run_nothing_either(script, hostile, tmp_path, monkeypatch):
    import launching as training

    monkeypatch.setattr("builtins.input", lambda *_: "y")
    for model in ("model", "code"):
        words = ["--model", str(hostile / model), "--dataset", str(hostile / "rows"), "--output_dir", str(tmp_path)]
        with pytest.raises((ValueError, OSError)):
            getattr(training, script)(*training.parsed([*words, "--curation_split", "train", "--max_steps", "1"]))
        assert not (hostile / "ran").exists()
