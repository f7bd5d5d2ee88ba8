"""Small curated data sets made by hand, without a network: what publishing reads, and nothing else."""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value

from hf_midrange import columns
from hf_midrange.curation.report import reason_feature


def report(verdict: str = "repaired", explanation: str = "worst 0.50 before, 0.80 after") -> dict:
    return {"verdict": verdict, "explanation": explanation, "strategy": "auto", "seed": 0, "rows": 8, "cells": []}


def curated(
    rows: int = 8,
    names: tuple[str, ...] = ("no", "yes"),
    words: tuple[str, ...] = ("film", "actor"),
    groups: tuple[str, ...] = ("g0", "g1"),
    mark: float = 1.0,
    verdict: dict | None = None,
) -> Dataset:
    """Return text rows; `mark` is the weight of each, so that two versions can be told apart in every row."""
    rng = np.random.default_rng(0)
    k, c = len(names), np.arange(rows)
    logits = rng.normal(size=(rows, k)).astype(np.float32)
    return Dataset.from_dict(
        {
            "text": [f"row {i} {words[i % len(words)]}" for i in c],
            "label": c % k,
            "logits": logits,
            "embedding": rng.normal(size=(rows, 3)).astype(np.float32),
            "quantile": rng.random((rows, k)).astype(np.float32),
            "band": rng.integers(-1, 3, size=(rows, k)).astype(np.int8),
            "concepts_words": [[i % len(words)] if i % 3 else [] for i in c],
            "pseudo_group": c % len(groups),
            "keep": c % 4 > 0,
            "weight": np.full(rows, mark, np.float32),
            "confounders": [[0] if i % 2 else [] for i in c],
            "reason": [f"because {i}" for i in c],
        },
        features=Features(
            {
                "text": Value("string"),
                "label": ClassLabel(names=list(names)),
                "logits": columns.vector(k),
                "embedding": columns.vector(3),
                "quantile": columns.vector(k),
                "band": columns.vector(k, "int8"),
                "concepts_words": columns.concept_list(words),
                "pseudo_group": ClassLabel(names=list(groups)),
                "keep": Value("bool"),
                "weight": Value("float32"),
                "confounders": columns.concept_list(words[:1]),
                "reason": reason_feature(verdict or report()),
            }
        ),
    )
