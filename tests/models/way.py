"""The whole way of one model: extract, a new head, merge, save; and what a process without the package finds."""

import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from support.classifiers import images, texts, tokenizer
from torch import nn

import hf_midrange as hm
from hf_midrange.classifier import main_input
from hf_midrange.columns import matrix


ROWS = 3


class Trial(NamedTuple):
    """How far a model came; an empty text is well."""

    key: str
    model: str
    extract: str = ""
    merge: str = ""
    reload: str = ""
    note: str = ""


def side_of(model: nn.Module) -> int:
    """Return the side in pixels of the images a model takes."""
    config = getattr(model, "config", None)
    for holder in (config, getattr(config, "vision_config", None)):
        size = getattr(holder, "image_size", None)
        if size is not None:
            return size[0] if isinstance(size, list | tuple) else int(size)
    cfg = getattr(model, "pretrained_cfg", None)
    return (cfg.get("min_input_size") or cfg["input_size"])[-1] if cfg else 64


class Pixels:
    """From an image to a tensor of fixed size; for a model of tokens, to colours by number."""

    def __init__(self, side: int, channels: int = 3, tokens: int | None = None):
        self.side, self.channels, self.tokens = side, channels, tokens

    def __call__(self, image: Image.Image) -> torch.Tensor:
        values = np.asarray(image.resize((self.side, self.side)), dtype=np.float32) / 255
        if self.tokens is not None:
            return torch.from_numpy((values.mean(2) * (self.tokens - 1)).astype(np.int64).ravel())
        whole = torch.from_numpy(values).permute(2, 0, 1) * 2 - 1
        return whole[torch.arange(self.channels) % 3]


def rows_of(task: str) -> Dataset:
    """Return a few rows for a model of images or texts."""
    return images(ROWS) if task == "image" else texts(ROWS)


def processor_of(task: str, model: nn.Module) -> Any:
    """Return what prepares rows for a model without its own processor."""
    if task == "text":
        made = tokenizer()
        made.model_input_names = ["input_ids", "attention_mask"]
        return made
    config = getattr(model, "config", None)
    channels = getattr(config, "num_channels", 3)
    if main_input(model) == "input_ids":
        return Pixels(8, tokens=config.vocab_size - 1)
    return Pixels(side_of(model), channels if isinstance(channels, int) else 3)


def inputs_by_hand(task: str, model: nn.Module, processor: Any) -> dict[str, torch.Tensor]:
    """Return the inputs of all rows as a user would make them."""
    ds = rows_of(task)
    if task == "text":
        return dict(processor(ds["text"][:], padding=True, truncation=True, return_tensors="pt"))
    name = main_input(model) if not hasattr(model, "pretrained_cfg") else "x"
    return {name: torch.stack([processor(image.convert("RGB")) for image in ds["image"]])}


def logits_by_hand(model: nn.Module, inputs: dict[str, torch.Tensor]) -> np.ndarray:
    """Return what the model itself makes of inputs, `(n, C)`."""
    with torch.inference_mode():
        found = model.eval()(**inputs)
    found = getattr(found, "logits", found)
    return (found[0] if isinstance(found, tuple) else found).float().numpy()


def apart(found: np.ndarray, expected: np.ndarray) -> str:
    """Say how far two arrays of logits lie apart, or nothing."""
    if found.shape != expected.shape:
        return f"shape {found.shape}, not {expected.shape}"
    far = float(np.abs(found - expected).max()) / (1 + float(np.abs(expected).max()))
    return "" if far <= 1e-5 else f"differs by {far:.1e}"


def refused(error: Exception) -> str:
    """Say why the package refused a model."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def travel(
    key: str, name: str, task: str, model: nn.Module, folder: Path, settings: dict[str, Any] | None = None
) -> Trial:
    """Take a model as far as it comes; what is to be reloaded lies in `folder`. `settings` are those of timm."""
    processor, ds = processor_of(task, model), rows_of(task)
    inputs = inputs_by_hand(task, model, processor)
    expected = logits_by_hand(model, inputs)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            extracted = hm.extract(ds, model, processor, batch_size=ROWS)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            return Trial(key, name, refused(error))
    warned = any("than alone" in str(each.message) for each in caught)
    note = "warned: a row has other logits in a batch than alone" if warned else ""
    said = apart(matrix(extracted, "logits"), expected)
    if said:
        return Trial(key, name, said, note=note)
    try:
        given = hm.LinearHead.from_model(model)
        noise = torch.Generator().manual_seed(0)
        weight = given.weight + torch.randn(given.weight.shape, generator=noise) / given.width**0.5
        bias = given.bias + torch.randn(given.bias.shape, generator=noise) if given.has_bias else given.bias
        head = replace(given, weight=weight, bias=bias)
        merged = head.merge_into(model)
        wanted = head(matrix(extracted, "embedding")).numpy()
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        return Trial(key, name, "", refused(error), note=note)
    said = apart(logits_by_hand(merged, inputs), wanted)
    if said:
        return Trial(key, name, "", said, note=note)
    folder.mkdir(parents=True)
    if hasattr(merged, "save_pretrained"):
        merged.save_pretrained(folder / "model")
    else:
        torch.save(merged.state_dict(), folder / "weights.pt")
    torch.save({"task": task, "timm": None if hasattr(merged, "save_pretrained") else name, "inputs": inputs,
                "settings": settings or {}, "logits": torch.from_numpy(wanted)}, folder / "asked.pt")  # fmt: skip
    return Trial(key, name, note=note)


STRANGER = """
import sys, warnings
sys.modules["hf_midrange"] = None
warnings.simplefilter("ignore")
from pathlib import Path
import torch, timm, transformers
transformers.logging.set_verbosity_error()

for folder in sorted(Path(sys.argv[1]).iterdir()):
    try:
        asked = torch.load(folder / "asked.pt", weights_only=True)
        if asked["timm"]:
            model = timm.create_model(asked["timm"], num_classes=3, **asked["settings"])
            model.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
        else:
            auto = {"image": transformers.AutoModelForImageClassification,
                    "text": transformers.AutoModelForSequenceClassification}[asked["task"]]
            model = auto.from_pretrained(folder / "model")
        with torch.inference_mode():
            found = model.eval()(**asked["inputs"])
        found = getattr(found, "logits", found)
        found = found[0] if isinstance(found, tuple) else found
        far = float((found - asked["logits"]).abs().max() / (1 + asked["logits"].abs().max()))
        said = "" if far <= 1e-5 else f"differs by {far:.1e}"
    except Exception as error:
        said = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
    print("RELOADED", folder.name, said, sep="\\t", flush=True)
"""


def reloaded(folder: Path) -> dict[str, str]:
    """Return what a process that cannot import the package finds in the folders of models, by name."""
    done = subprocess.run(
        [sys.executable, "-c", STRANGER, str(folder)], capture_output=True, text=True, timeout=1200, check=True
    )
    lines = [line.split("\t") for line in done.stdout.splitlines() if line.startswith("RELOADED")]
    return {name: said for _, name, said in lines}
