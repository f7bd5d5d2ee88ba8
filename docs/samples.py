"""Sample reports, in docs/samples: pictures and texts with a tie, and pictures in which something is suspected."""

import json
import sys
from pathlib import Path

from datasets import Dataset
from transformers import (
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    Trainer,
    TrainingArguments,
    set_seed,
)

import hf_midrange as hm


ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "examples"))
from tinted_digits import NAMES, digits  # noqa: E402


def trained(train: Dataset) -> tuple[ResNetForImageClassification, ConvNextImageProcessor]:
    """Return a small network trained on pictures."""
    set_seed(0)
    names = dict(enumerate(NAMES)), dict(zip(NAMES, range(2), strict=True))
    config = ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64], depths=[1, 1, 1], layer_type="basic",
                          id2label=names[0], label2id=names[1])  # fmt: skip
    model = ResNetForImageClassification(config)
    processor = ConvNextImageProcessor(size={"shortest_edge": 32}, crop_pct=1.0)
    rows = train.with_transform(
        lambda batch: {"labels": batch["label"], **processor(batch["image"], return_tensors="pt")}
    )
    args = TrainingArguments("outputs/sample", num_train_epochs=2, learning_rate=1e-3, per_device_train_batch_size=32,
                             remove_unused_columns=False, save_strategy="no", logging_strategy="no")  # fmt: skip
    Trainer(model, args, train_dataset=rows).train()
    return model, processor


def of_images(tied: float) -> hm.Report:
    """Return the report of pictures of which this share follows the tie."""
    model, processor = trained(digits(1200, tied, 0))
    sources = [hm.Thumbnail(), hm.ImageProperties(), hm.EarlyFeatures(model, processor)]
    found = hm.debias(digits(800, tied, 2).remove_columns("group"), model, processor=processor, sources=sources)
    test = hm.extract(digits(600, 0.5, 1), model, processor)
    return hm.report(found.curated, found.findings, head=found.head, evaluation=test)


def of_texts() -> hm.Report:
    """Return the report of the notebook on texts."""
    cells = json.loads((ROOT / "notebooks" / "texts.ipynb").read_text())["cells"]
    names: dict[str, object] = {}
    for code in ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        exec(code, names)
    return hm.report(names["curated"], names["findings"], head=names["head"])


if __name__ == "__main__":
    samples = {
        "images": of_images(0.95),
        "texts": of_texts(),
        "suspected": of_images(0.5),
    }
    for name, made in samples.items():
        folder = ROOT / "docs" / "samples" / name
        made.save(folder)
        (folder / "report.json").unlink()
