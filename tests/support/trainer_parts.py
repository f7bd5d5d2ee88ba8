"""Tiny models and tied data for the tests of the trainer and its scripts."""

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from PIL import Image as PillowImage
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)


CLASSES = ["bar", "beam"]
PLACES = ["land", "water"]
GROUPS = [f"{shape} on {place}" for shape in CLASSES for place in PLACES]
WORDS = ["good", "bad", "film", "plot", "a", "the", "of", "very", "not"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def pictures(rows: int = 60, tie: float = 0.9, seed: int = 0, sources: bool = False) -> Dataset:
    """Upright bars and lying beams; `tie` of the bars stand on green land, as many of the beams in blue water."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 2
    place = np.where(rng.random(rows) < tie, label, 1 - label)
    pixels = rng.normal(90, 25, (rows, 16, 16, 3))
    pixels[np.arange(rows), :, :, 1 + place] += 90
    for row in range(rows):
        at = rng.integers(3, 11)
        where = (slice(2, 14), slice(at, at + 3)) if label[row] == 0 else (slice(at, at + 3), slice(2, 14))
        pixels[row][where] += 70
    images = [PillowImage.fromarray(p.clip(0, 255).astype(np.uint8)) for p in pixels]
    columns = {"image": images, "label": label, "group": 2 * label + place}
    features = {"image": Image(), "label": ClassLabel(names=CLASSES), "group": ClassLabel(names=GROUPS)}
    if sources:
        columns["source_id"], features["source_id"] = np.arange(rows) // 3, Value("int64")
    return Dataset.from_dict(columns, features=Features(features))


def texts(rows: int = 60, tie: float = 0.9, seed: int = 0) -> Dataset:
    """Sentences with a word of their class; "not" stands in `tie` of one class and `1 - tie` of the other."""
    rng = np.random.default_rng(seed)
    label = np.arange(rows) % 2
    negated = np.where(rng.random(rows) < tie, label, 1 - label)
    sentences = []
    for y, has in zip(label, negated, strict=True):
        words = [*rng.choice(WORDS[2:8], 1 + rng.integers(5)), ["good", "bad"][y], *(["not"] if has else [])]
        sentences.append(" ".join(rng.permutation(words)))
    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=CLASSES), "group": ClassLabel(names=GROUPS)}
    )
    return Dataset.from_dict({"text": sentences, "label": label, "group": 2 * label + negated}, features=features)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", model_max_length=16)


def processor() -> ViTImageProcessor:
    return ViTImageProcessor(size={"height": 16, "width": 16}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def names() -> dict:
    return {"id2label": dict(enumerate(CLASSES)), "label2id": {name: k for k, name in enumerate(CLASSES)}}


def vit(seed: int = 0) -> ViTForImageClassification:
    torch.manual_seed(seed)
    return ViTForImageClassification(ViTConfig(**SMALL, image_size=16, patch_size=8, **names()))


def resnet(seed: int = 0) -> ResNetForImageClassification:
    torch.manual_seed(seed)
    shape = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**shape, **names()))


def bert(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(BertConfig(**SMALL, vocab_size=20, initializer_range=0.5, **names()))
