"""A folder with what the pages call my-images, me/my-classifier, reviews.csv and so on."""

import csv
from pathlib import Path

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

import hf_midrange as hm


GOOD, BAD = ["quiet", "delight", "lovely"], ["dull", "nowhere", "tired"]
PLAIN = ["the", "a", "plot", "film", "goes", "was", "and", "story", "actors"]


def striped(rows, seed):
    """Class 1 has a bright stripe below; a bright stripe above goes with it in nine rows of ten."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 2
    above = np.where(rng.random(rows) < 0.1, 1 - labels, labels)
    pixels = rng.integers(0, 90, size=(rows, 32, 32, 3), dtype=np.uint8)
    pixels[:, 20:28] += (70 * labels[:, None, None, None]).astype(np.uint8)
    pixels[:, 4:12] += (120 * above[:, None, None, None]).astype(np.uint8)
    names = ClassLabel(names=["plain", "striped"])
    return Dataset.from_dict(
        {"image": [Picture.fromarray(p) for p in pixels], "label": labels},
        features=Features({"image": Image(), "label": names}),
    )


def reviews(path, rows=240, seed=0):
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["text", "label"])
        for row in range(rows):
            words = [*rng.choice(PLAIN, 6), rng.choice((BAD, GOOD)[row % 2])]
            words += ["two", "thumbs"] * bool((row % 2) ^ (rng.random() < 0.1))
            out.writerow([" ".join(words), ("negative", "positive")[row % 2]])


def fitted(model, ds, processor):
    """A network whose last layer was fitted to the rows."""
    curated = hm.curate(hm.extract(ds, model, processor), strategy="class-balanced")
    return hm.retrain_head(curated).merge_into(model)


def make(folder: Path) -> None:
    torch.manual_seed(0)
    names = {"id2label": {0: "plain", 1: "striped"}, "label2id": {"plain": 0, "striped": 1}}
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    vit = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, **sizes, **names))
    vit = fitted(vit, striped(200, 0), processor)
    for part in (vit, processor):
        part.save_pretrained(folder / "me" / "my-classifier")
    images = striped(240, 1)
    images.save_to_disk(folder / "my-images")
    hm.extract(striped(60, 2), vit, processor).save_to_disk(folder / "test-split")
    for number, row in enumerate(images):
        place = folder / "my-image-folder" / ("plain", "striped")[row["label"]]
        place.mkdir(parents=True, exist_ok=True)
        row["image"].save(place / f"{number:03}.png")

    reviews(folder / "reviews.csv")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "two", "thumbs", *PLAIN, *GOOD, *BAD]
    known = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=known, pad_token="[PAD]", unk_token="[UNK]")
    names = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    bert = BertForSequenceClassification(BertConfig(vocab_size=len(words), **sizes, **names))
    reviews(folder / "earlier.csv", seed=1)
    table = Dataset.from_csv(str(folder / "earlier.csv")).cast_column(
        "label", ClassLabel(names=["negative", "positive"])
    )
    bert = fitted(bert, table, tokenizer)
    for part in (bert, tokenizer):
        part.save_pretrained(folder / "me" / "my-text-classifier")
