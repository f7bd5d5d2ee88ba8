"""Classifiers for tests of several rooms."""

import numpy as np
import timm
import torch
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value
from PIL import Image as PillowImage
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    PreTrainedTokenizerFast,
)


CLASSES = ["cat", "dog", "bird"]


WORDS = ["good", "bad", "film", "plot", "a", "the", "of", "very", "not"]


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def images(rows: int = 23, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(0, 255, (30 + i % 5, 36, 3), dtype=np.uint8) for i in range(rows)]
    features = Features({"image": Image(), "label": ClassLabel(names=CLASSES)})
    columns = {"image": [PillowImage.fromarray(p) for p in pixels], "label": [i % 3 for i in range(rows)]}
    return Dataset.from_dict(columns, features=features)


def texts(rows: int = 23, pair: bool = False, seed: int = 0) -> Dataset:
    rng = np.random.default_rng(seed)
    columns = {"text": [" ".join(rng.choice(WORDS, 1 + i % 7)) for i in range(rows)]}
    if pair:
        columns["text_pair"] = [" ".join(rng.choice(WORDS, 1 + i % 4)) for i in range(rows)]
    features = Features({**{name: Value("string") for name in columns}, "label": ClassLabel(names=CLASSES)})
    return Dataset.from_dict({**columns, "label": [i % 3 for i in range(rows)]}, features=features)


def tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="[PAD]", unk_token="[UNK]", model_max_length=12)


def timm_model(name: str = "test_resnet") -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model(name, num_classes=3)


def bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    return BertForSequenceClassification(BertConfig(**SMALL, vocab_size=20, num_labels=3, initializer_range=0.5))


def gpt2() -> GPT2ForSequenceClassification:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=20, num_labels=3, pad_token_id=0, bos_token_id=2,
                        eos_token_id=3, initializer_range=0.5)  # fmt: skip
    return GPT2ForSequenceClassification(config)


def as_table(stream: IterableDataset) -> Dataset:
    return Dataset.from_list(list(stream), features=stream.features)
