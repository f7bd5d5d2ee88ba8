"""The demonstration on digit dominoes: probe, extract, bands, concepts, associations, curation, repair, controls."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from datasets import Dataset, Value
from rich.console import Console

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.demo.dominoes import CLASSES, SOURCES, digits, dominoes
from hf_midrange.reporting.tables import print_table


if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from hf_midrange.head import LinearHead

SHARES = {"train": 0.05, "curation": 0.05, "test": 0.5}
"""Share of each class that breaks the tie, by split: the test split is untied."""
SIZES = {"train": 1200, "curation": 800, "test": 600}
QUICK_SIZES = {"train": 400, "curation": 400, "test": 200}
OURS, ORACLE, SHUFFLED = "hf_midrange", "true groups (oracle)", "as many random rows, same weights"


class Trial(NamedTuple):
    """What one seed gives."""

    metrics: dict[str, dict[str, Any]]
    """Method -> `group_metrics` on the test split."""
    curated: Dataset
    findings: Dataset
    model: PreTrainedModel
    """The network before repair."""
    head: LinearHead
    """The repaired head."""


def run_demo(seeds: int = 3, output: Path = Path("outputs/demo"), quick: bool = False) -> dict[str, Any]:
    """Go from a pretrained network on tied digits to a repaired one; print tables, write files, and return the facts.

    Args:
        seeds: how many times, each with data of its own.
        output: folder for facts (JSON), the picture (PNG), the curated dataset and the repaired model.
        quick: a reduced size, to see that everything works; its figures mean little.

    Raises:
        ValueError: if `seeds` is not positive.
    """
    if seeds < 1:
        raise ValueError(f"`seeds` must be at least 1, got {seeds}")
    started = time.perf_counter()
    data, sizes = digits(), QUICK_SIZES if quick else SIZES
    output.mkdir(parents=True, exist_ok=True)
    trials = []
    for seed in range(seeds):
        trials.append(run_trial(seed, sizes, data))
        Console().print(f"seed {seed} done after {time.perf_counter() - started:.0f} s", style="dim")
    facts = {
        "task": "digit dominoes",
        "rows": sizes,
        "contrary_share": SHARES,
        "methods": _spread([trial.metrics for trial in trials]),
        "trials": [trial.metrics for trial in trials],
        "curation": hm.curation_report(trials[0].curated),
    }
    _write(trials[0], facts, output)
    _print(trials[0], facts)
    Console().print(f"wrote {output}/ ({', '.join(sorted(path.name for path in output.iterdir()))})")
    return facts


def run_trial(seed: int, sizes: dict[str, int], data: tuple[np.ndarray, np.ndarray]) -> Trial:
    """Train a probe on tied dominoes, find what it confounds, curate, repair, and score all controls on one test."""
    from hf_midrange.concepts.lite0 import lite0

    splits = {name: dominoes(name, sizes[name], SHARES[name], seed, data) for name in SOURCES}
    model = lite0([str(c) for c in CLASSES])
    model = linear_probe(hm.extract(splits["train"], model)).merge_into(model)
    curation, test = hm.extract(splits["curation"], model), hm.extract(splits["test"], model)

    curation = hm.LogitBands().fit(curation).transform(curation)
    curation = hm.annotate(curation, [hm.Thumbnail(mode="L"), hm.ImageProperties()])
    findings = hm.associate(curation, seed=seed)

    curated = hm.curate(curation, findings, seed=seed)
    head = hm.retrain_head(curated, model, seed=seed)
    controls = {
        "class-balanced": hm.curate(curation, strategy="class-balanced", seed=seed),
        SHUFFLED: shuffled_weights(curated, seed),
        ORACLE: hm.curate(curation, strategy="group", seed=seed),
    }
    heads = {name: hm.retrain_head(rows, model, seed=seed, force=True) for name, rows in controls.items()}
    metrics = {"ERM": _score(test, hm.LinearHead.from_model(model))}
    metrics |= {name: _score(test, heads[name]) for name in ("class-balanced", SHUFFLED)}
    metrics |= {OURS: _score(test, head), ORACLE: _score(test, heads[ORACLE])}
    return Trial(metrics, curated, findings, model, head)


def linear_probe(train: Dataset) -> LinearHead:
    """Return the ERM head: L2 logistic regression (C = .01) on standardised embeddings clipped at +-4, on raw ones."""
    from sklearn.linear_model import LogisticRegression

    embedding = columns.finite_matrix(train, columns.EMBEDDING).astype(np.float64)
    mean, scale = embedding.mean(axis=0), embedding.std(axis=0)
    scale = np.where(scale > 1e-3 * np.median(scale), scale, np.inf)  # near-dead channels are noise at full size
    standardised = np.clip((embedding - mean) / scale, -4, 4)
    fitted = LogisticRegression(C=0.01, max_iter=1000).fit(standardised, columns.labels(train))
    weight = fitted.coef_[0] / scale
    bias = fitted.intercept_[0] - weight @ mean
    # Two mirrored units, whose difference is the decision function.
    return hm.LinearHead.from_weights(np.stack([-weight, weight]) / 2, np.array([-bias, bias]) / 2)


def shuffled_weights(curated: Dataset, seed: int) -> Dataset:
    """Return the control "is it these rows, or any rows?": the curated weights, shuffled within each class."""
    ids, weights = columns.labels(curated), np.array(curated[columns.WEIGHT], dtype=np.float32)
    rng = np.random.default_rng(seed)
    for k in np.unique(ids):
        rows = np.flatnonzero(ids == k)
        weights[rows] = weights[rng.permutation(rows)]
    return columns.with_columns(curated, {columns.WEIGHT: (weights, Value("float32"))})


def _score(test: Dataset, head: LinearHead) -> dict[str, Any]:
    predictions = head(columns.matrix(test, columns.EMBEDDING)).argmax(dim=1).numpy()
    names = columns.class_label(test.features, columns.GROUP).names
    return hm.group_metrics(predictions, columns.labels(test), columns.labels(test, columns.GROUP), group_names=names)


def _spread(trials: list[dict[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """Return mean and standard deviation over seeds of mean and worst-group accuracy, by method."""
    spread = {}
    for method in trials[0]:
        means, worsts = ([trial[method][key] for trial in trials] for key in ("mean", "worst_group"))
        ddof = min(1, len(trials) - 1)
        spread[method] = {
            "mean": float(np.mean(means)),
            "mean_sd": float(np.std(means, ddof=ddof)),
            "worst_group": float(np.mean(worsts)),
            "worst_group_sd": float(np.std(worsts, ddof=ddof)),
        }
    return spread


def _write(trial: Trial, facts: dict[str, Any], output: Path) -> None:
    from hf_midrange.association import save_findings
    from hf_midrange.demo.range_figure import range_figure

    (output / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    range_figure(trial.curated).savefig(output / "middle.png", dpi=110)
    trial.curated.save_to_disk(output / "curated")
    save_findings(trial.findings, output / "findings")
    trial.head.save_pretrained(output / "head")
    trial.head.merge_into(trial.model).save_pretrained(output / "model")


def _print(trial: Trial, facts: dict[str, Any]) -> None:
    found = [row for row in trial.findings if row["confounder"]]
    rows = [
        [row["unit_name"], row["concept"], f"{row['odds_ratio']:.1f}", f"{row['ci_low']:.1f} to {row['ci_high']:.1f}"]
        for row in sorted(found, key=lambda row: row["unit"])
    ]
    title = "what the network confounds with each class, from the middle of its logits (seed 0)"
    print_table(title, ["class", "confounded with", "odds ratio", "95 % interval"], rows)
    report = facts["curation"]
    carriers = "; ".join(carrier["name"] for view in report["views"] for carrier in view["carriers"][:4])
    Console().print(f"verdict: {report['verdict']}, {report['explanation']}. Contrary rows were told by: {carriers}")
    rows = [
        [method, *(f"{100 * row[key]:.1f} +- {100 * row[key + '_sd']:.1f}" for key in ("mean", "worst_group"))]
        for method, row in facts["methods"].items()
    ]
    title = f"untied test split, {len(facts['trials'])} seeds, mean +- standard deviation"
    print_table(title, ["head", "accuracy %", "worst-group accuracy %"], rows)
