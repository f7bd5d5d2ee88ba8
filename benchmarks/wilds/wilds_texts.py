"""MultiNLI and CivilComments."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value, concatenate_datasets, load_dataset
from wilds_layout import codes, file_in, grouped, hub_splits, read_csv, require, split_codes, splits_of
from wilds_scores import IDENTITIES

from hf_midrange import columns


RELATIONS = ("contradiction", "entailment", "neutral")
NEGATION = ("no negation", "a negation")
NEGATION_WORDS = ("nobody", "no", "never", "nothing")
"""Source: Gururangan et al. (arXiv 1803.02324), as group DRO (arXiv 1911.08731) uses it."""
SHARES = (0.5, 0.2, 0.3)
"""Of train, validation and test, where MultiNLI is parted anew."""
COMMENTS, IDENTITY = ("not toxic", "toxic"), ("no identity", "an identity")

_FILES = ("multinli_1.0_train.jsonl", "multinli_1.0_dev_matched.jsonl", "multinli_1.0_dev_mismatched.jsonl")
_HUB_SPLITS = ("train", "validation_matched", "validation_mismatched")


def has_negation(sentence: str) -> bool:
    """Whether a sentence has one of the four negation words, less punctuation and in any case."""
    plain = sentence.translate(str.maketrans("", "", string.punctuation)).lower()
    return not set(NEGATION_WORDS).isdisjoint(plain.split(" "))


def multinli(source: str | Path | DatasetDict, seed: int = 0) -> DatasetDict:
    """Return MultiNLI, with `text`, `text_pair`, `label` (relation) and `group` (relation x negation in the second).

    The published benchmark parts the sentences anew, 50, 20 and 30 %, and `metadata_random.csv` says which is where.
    The Hub's copy knows nothing of it: from there rows are parted by `seed`, and figures are near the published ones'
    setting, not the same.

    Args:
        source: the folder with `metadata_random.csv` of group DRO (unnamed row numbers, `gold_label`,
            `sentence2_has_negation`, `split`) and the three files `multinli_1.0_*.jsonl` that it counts rows of, one
            after the other; or a Hub id, or what was loaded from one, such as `nyu-mll/multi_nli`.
        seed: of the parts, for the Hub's copy.

    Raises:
        FileNotFoundError: if a file is missing.
        ValueError: if it is of another layout; the message says what was found and expected.
    """
    if isinstance(source, DatasetDict) or not (isinstance(source, Path) or Path(source).exists()):
        return _multinli_of_hub(source, seed)
    folder = Path(source)
    table = read_csv(file_in(folder, "metadata_random.csv"), ("", "gold_label", "sentence2_has_negation", "split"))
    rows = [row for name in _FILES for row in _json_lines(file_in(folder, name))]
    numbers = codes(table[""], len(rows), f"the row numbers of metadata_random.csv ({len(rows)} sentences are there)")
    label = codes(table["gold_label"], 3, "column 'gold_label'")
    here = [rows[number] for number in numbers]
    wrong = [i for i, row in enumerate(here) if row["gold_label"] != RELATIONS[label[i]]]
    if wrong:
        raise ValueError(
            f"metadata_random.csv and the sentences disagree in {len(wrong)} labels, first in its row {wrong[0]} "
            f"({RELATIONS[label[wrong[0]]]} and {here[wrong[0]]['gold_label']}); are the files whole?"
        )
    pairs = [row["sentence1"] for row in here], [row["sentence2"] for row in here]
    negated = codes(table["sentence2_has_negation"], 2, "column 'sentence2_has_negation'")
    return _pairs(*pairs, label, negated, codes(table["split"], 3, "column 'split'"))


def civilcomments(source: str | Path | DatasetDict, groups: Literal["coarse", "fine"]) -> DatasetDict:
    """Return CivilComments, with `text`, `label` (toxic or not), and coarse or fine groups.

    The two are different benchmarks whose figures cannot be compared, so there is no default. A comment is toxic, or
    mentions an identity, where at least half of its raters say so.

    Args:
        source: the folder with `all_data_with_identities.csv` of WILDS (`comment_text`, `toxicity`, `split`, and the
            eight identities); or a Hub id, or what was loaded from one, with `comment_text` or `text` and the rest.
        groups: `"coarse"`: four groups, toxicity x whether one of the eight identities is mentioned, in `group`.
            `"fine"`: a column of bools for each identity and no `group`: the sixteen groups identity x toxicity
            overlap. `overlapping_group_metrics` scores by them, as WILDS does.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if `groups` is neither, or the file is of another layout.
    """
    if groups not in ("coarse", "fine"):
        raise ValueError(f"`groups` must be 'coarse' or 'fine', got {groups!r}")
    if isinstance(source, DatasetDict) or not (isinstance(source, Path) or Path(source).exists()):
        return _comments_of_hub(source, groups)
    table = read_csv(
        file_in(Path(source), "all_data_with_identities.csv"), ("comment_text", "toxicity", "split", *IDENTITIES)
    )
    shares = {name: table[name].to_numpy() for name in ("toxicity", *IDENTITIES)}
    split = split_codes(table["split"].to_pylist(), "column 'split'")
    return _comments(table["comment_text"].to_pylist(), shares, split, groups)


def _json_lines(path: Path) -> list[dict[str, Any]]:
    wanted = ("gold_label", "sentence1", "sentence2")
    with path.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    odd = [number for number, row in enumerate(rows) if any(name not in row for name in wanted)]
    if odd:
        raise ValueError(f"{path} must have {', '.join(wanted)} in each line, but line {odd[0] + 1} has not")
    return [{name: row[name] for name in wanted} for row in rows]


def _multinli_of_hub(source: Any, seed: int) -> DatasetDict:  # noqa: ANN401 - an id or a DatasetDict
    data = source if isinstance(source, DatasetDict) else load_dataset(str(source))
    missing = [name for name in _HUB_SPLITS if name not in data]
    if missing:
        raise ValueError(f"the Hub dataset must have the splits {', '.join(_HUB_SPLITS)}; it has {', '.join(data)}")
    wanted = ["premise", "hypothesis", "label"]
    for name in _HUB_SPLITS:
        require(data[name], wanted, name)
    rows = concatenate_datasets([data[name].select_columns(wanted) for name in _HUB_SPLITS])
    rows = rows.select(np.flatnonzero(np.array(rows["label"][:]) >= 0))  # -1: the raters did not agree
    names = columns.class_label(rows.features).names
    if sorted(names) != sorted(RELATIONS):
        raise ValueError(f"the Hub dataset's labels must be {', '.join(RELATIONS)}, but are {names}")
    label = np.array([RELATIONS.index(name) for name in names])[columns.labels(rows)]
    negated = np.array([has_negation(sentence) for sentence in rows["hypothesis"][:]], dtype=np.int64)
    ends = np.round(np.cumsum(SHARES)[:2] * len(rows))
    split = np.searchsorted(ends, np.arange(len(rows)), side="right")
    split = np.random.default_rng(seed).permutation(split)
    return _pairs(rows["premise"][:], rows["hypothesis"][:], label, negated, split)


def _pairs(
    first: Sequence[str], second: Sequence[str], label: np.ndarray, negated: np.ndarray, split: np.ndarray
) -> DatasetDict:
    features = {
        columns.TEXT: Value("string"),
        columns.TEXT_PAIR: Value("string"),
        columns.LABEL: ClassLabel(names=list(RELATIONS)),
        columns.GROUP: grouped(RELATIONS, NEGATION, "with"),
    }
    values = (first, second, label, 2 * label + negated)
    return splits_of(dict(zip(features, values, strict=True)), Features(features), split)


def _comments_of_hub(source: Any, groups: str) -> DatasetDict:  # noqa: ANN401 - an id or a DatasetDict
    data = hub_splits(source if isinstance(source, DatasetDict) else str(source), ("toxicity", *IDENTITIES))
    text = "comment_text" if "comment_text" in data["train"].column_names else columns.TEXT
    for name, part in data.items():
        require(part, (text,), name)
    rows: Dataset = concatenate_datasets(list(data.values()))
    split = np.repeat(np.arange(len(data)), [len(part) for part in data.values()])
    shares = {name: columns.numbers(rows, name) for name in ("toxicity", *IDENTITIES)}
    return _comments(rows[text][:], shares, split, groups)


def _comments(texts: Sequence[str], shares: dict[str, np.ndarray], split: np.ndarray, groups: str) -> DatasetDict:
    present = {name: values.astype(np.float64) >= 0.5 for name, values in shares.items()}
    toxic = present.pop("toxicity").astype(np.int64)
    features: dict[str, Any] = {columns.TEXT: Value("string"), columns.LABEL: ClassLabel(names=list(COMMENTS))}
    values: dict[str, Any] = {columns.TEXT: texts, columns.LABEL: toxic}
    if groups == "coarse":
        features[columns.GROUP] = grouped(COMMENTS, IDENTITY, "with")
        values[columns.GROUP] = 2 * toxic + np.any(list(present.values()), axis=0)
    else:
        features |= {name: Value("bool") for name in IDENTITIES}
        values |= present
    return splits_of(values, Features(features), split)
