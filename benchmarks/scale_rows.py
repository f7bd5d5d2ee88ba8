"""Rows for `scale.py`, written shard by shard: texts, embeddings and logits, tied to a word in nine rows of ten."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets

from hf_midrange import columns


SHARD = 512
"""Rows of a shard of `extract`."""

WRITTEN = 5000
WORDS = "the a film plot actor was is very not good bad long slow bright sad funny and but while seems".split()
CONCEPTS = 50


def extracted(folder: Path) -> Dataset:
    """Return the shards in a folder as one memory-mapped data set."""
    return concatenate_datasets([Dataset.from_file(str(path)) for path in sorted(folder.glob("*.arrow"))])


def classifier():
    """Return a small text classifier; the same weights each time."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS) + 4, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128
    )
    return BertForSequenceClassification(config).eval()


def tokenizer():
    """Return a tokenizer that knows `WORDS`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    inner = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]")


def sentences(rng: np.random.Generator, groups: np.ndarray) -> list[str]:
    """Return a sentence a row; the group shows in its words."""
    picked = rng.integers(0, len(WORDS), (len(groups), 8))
    picked[:, 0] = groups % len(WORDS)
    return [" ".join(WORDS[j] for j in row) for row in picked]


def write_texts(folder: Path, rows: int) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    rng = np.random.default_rng(0)

    def part(count: int) -> dict:
        labels = rng.integers(0, 2, count)
        return {"text": pa.array(sentences(rng, labels)), "label": pa.array(labels)}

    _write(folder, rows, features, part)


def write_rows(folder: Path, rows: int, width: int, classes: int) -> None:
    """Write text, label, embedding and logits of a network that reads a confounder twice as strongly as the class."""
    features = Features(
        {
            "text": Value("string"),
            "label": ClassLabel(names=[f"class {k}" for k in range(classes)]),
            "embedding": columns.vector(width),
            "logits": columns.vector(classes),
        }
    )
    rng = np.random.default_rng(0)
    core, other = rng.normal(size=(2, classes, width)).astype(np.float32)
    head = (0.3 * core + 0.6 * other).T * 4 / width

    def part(count: int) -> dict:
        labels = rng.integers(0, classes, count)
        groups = np.where(rng.random(count) < 0.1, rng.integers(0, classes, count), labels)
        noise = rng.standard_normal((count, width), dtype=np.float32)
        embedding = 0.2 * core[labels] + 0.4 * other[groups] + noise
        return {
            "text": pa.array(sentences(rng, groups)),
            "label": pa.array(labels),
            "embedding": columns.vector_arrow(embedding),
            "logits": columns.vector_arrow((embedding @ head).astype(np.float32)),
        }

    _write(folder, rows, features, part)


def write_logits(folder: Path, rows: int, units: int) -> None:
    """Write labels, logits and fifty concepts; the first ten raise the logits of a class each."""
    words = [f"concept {j}" for j in range(CONCEPTS)]
    features = Features(
        {
            "label": ClassLabel(names=[f"class {k}" for k in range(units)]),
            "logits": columns.vector(units),
            "concepts_planted": columns.concept_list(words),
        }
    )
    rng = np.random.default_rng(0)

    def part(count: int) -> dict:
        labels = rng.integers(0, units, count)
        present = rng.random((count, CONCEPTS)) < 0.02
        present[:, :10] |= (labels[:, None] == np.arange(10)) & (rng.random((count, 10)) < 0.8)
        logits = rng.standard_normal((count, units), dtype=np.float32)
        logits[np.arange(count), labels] += 3
        logits[:, :10] += 1.5 * present[:, :10]
        return {
            "label": pa.array(labels),
            "logits": columns.vector_arrow(logits),
            "concepts_planted": columns.concept_arrow(present, words),
        }

    _write(folder, rows, features, part)


def _write(folder: Path, rows: int, features: Features, part) -> None:
    """Write shards of 100,000 rows; a file is there when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, start in enumerate(range(0, rows, 20 * WRITTEN)):
        stop, path = min(rows, start + 20 * WRITTEN), folder / f"rows-{number:05d}.arrow"
        draft = path.with_suffix(".draft")
        with pa.OSFile(str(draft), "wb") as file, pa.ipc.new_stream(file, features.arrow_schema) as writer:
            for first in range(start, stop, WRITTEN):
                table = pa.table(part(min(WRITTEN, stop - first))).cast(features.arrow_schema)
                writer.write_table(table, max_chunksize=1000)
        draft.rename(path)
