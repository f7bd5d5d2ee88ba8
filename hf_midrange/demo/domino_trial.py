"""The demonstration on digit dominoes: from a tied probe to its repair, with controls, and a picture of the middle."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, Value
from rich.console import Console

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.demo.dominoes import CLASSES, SOURCES, digits, dominoes
from hf_midrange.pipeline import told
from hf_midrange.reporting.groups import shuffled_within
from hf_midrange.reporting.rendering import counted
from hf_midrange.reporting.tables import print_table


if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from hf_midrange.head import LinearHead
    from hf_midrange.training import DebiasReport

SHARES = {"train": 0.05, "curation": 0.05, "test": 0.5}
"""Share of each class that breaks the tie, by split: the test split is untied."""
SIZES = {"train": 1200, "curation": 800, "test": 600}
QUICK_SIZES = {"train": 400, "curation": 400, "test": 200}
OURS, ORACLE, SHUFFLED = "hf_midrange", "true groups (oracle)", "as many random rows, same weights"


MEMBER, STRANGER = "#0072b2", "#d55e00"  # told apart by people who see few colours; also filled against outlined
EXAMPLES = 4


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
    started, sizes = time.perf_counter(), QUICK_SIZES if quick else SIZES
    Console().print("a pretrained network that should tell 3 from 8, below another digit that is tied to them")
    data = digits()
    output.mkdir(parents=True, exist_ok=True)
    outcomes, trials = [], []
    for seed in range(seeds):
        said = f"[{seed + 1}/{seeds}] {sum(sizes.values())} pictures, {time.perf_counter() - started:.0f} s so far"
        Console().print(said, markup=False, highlight=False)
        metrics, outcome = run_trial(seed, sizes, data)
        Console().print(f"      {outcome.sentence}", markup=False, highlight=False)
        outcomes.append(outcome)
        trials.append(metrics)
    first = outcomes[0]
    facts = {
        "task": "digit dominoes",
        "rows": sizes,
        "contrary_share": SHARES,
        "methods": _spread(trials),
        "trials": trials,
        "curation": first.curation,
    }
    first.write(output)
    (output / "facts.json").write_text(json.dumps(facts, indent=2) + "\n")
    range_figure(first.curated).savefig(output / "middle.png", dpi=110)
    _print(first.findings, facts)
    Console().print(f"wrote {output}/ ({', '.join(sorted(path.name for path in output.iterdir()))})")
    Console().print(f"look: {output / 'report.html'}")
    return facts


def run_trial(
    seed: int, sizes: dict[str, int], data: tuple[np.ndarray, np.ndarray]
) -> tuple[dict[str, dict[str, Any]], DebiasReport]:
    """Train a probe on tied dominoes, debias it, and score it and all controls on one test split.

    Returns:
        What `group_metrics` gives on the test split by method, and the outcome of the debiasing.
    """
    from hf_midrange.concepts.lite0 import lite0
    from hf_midrange.training.debiasing import Debiasing

    told(f"      the network learns {CLASSES[0]} from {CLASSES[1]}: {sizes['train']} pictures")
    splits = {name: dominoes(name, sizes[name], SHARES[name], seed, data) for name in SOURCES}
    model = lite0([str(c) for c in CLASSES])
    model = linear_probe(hm.extract(splits["train"], model)).merge_into(model)
    outcome = Debiasing(model, seed=seed).run(splits["curation"], None, [hm.Thumbnail(mode="L"), hm.ImageProperties()])
    told(f"      the repaired head and its controls are scored: {sizes['test']} pictures")
    curated, test = outcome.curated, hm.extract(splits["test"], model)
    controls = {
        "class-balanced": hm.curate(curated, strategy="class-balanced", seed=seed),
        SHUFFLED: shuffled_weights(curated, seed),
        ORACLE: hm.curate(curated, strategy="group", seed=seed),
    }
    heads = {name: hm.retrain_head(rows, model, seed=seed, force=True) for name, rows in controls.items()}
    metrics = {"ERM": _score(test, hm.LinearHead.from_model(model))}
    metrics |= {name: _score(test, heads[name]) for name in ("class-balanced", SHUFFLED)}
    metrics |= {OURS: _score(test, outcome.head), ORACLE: _score(test, heads[ORACLE])}
    return metrics, replace(outcome, model=outcome.head.merge_into(model))


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
    weights = np.array(curated[columns.WEIGHT], dtype=np.float32)
    shuffled = shuffled_within(columns.labels(curated), weights, seed)
    return columns.with_columns(curated, {columns.WEIGHT: (shuffled, Value("float32"))})


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


def _print(findings: Dataset | None, facts: dict[str, Any]) -> None:
    found = [row for row in findings or () if row["confounder"]]
    rows = [
        [row["unit_name"], row["concept"], f"{row['odds_ratio']:.1f}", f"{row['ci_low']:.1f} to {row['ci_high']:.1f}"]
        for row in sorted(found, key=lambda row: row["unit"])
    ]
    title = "what the network confounds with each class, from the middle of its logits (seed 0)"
    if rows:
        print_table(title, ["class", "confounded with", "odds ratio", "95 % interval"], rows)
    rows = [
        [method, *(_percent(row, key, len(facts["trials"])) for key in ("mean", "worst_group"))]
        for method, row in facts["methods"].items()
    ]
    title = f"untied test split, {counted(len(facts['trials']), 'seed')}"
    print_table(title, ["head", "accuracy %", "worst-group accuracy %"], rows)


def _percent(row: dict[str, float], key: str, trials: int) -> str:
    """Return a share in percent, with its standard deviation over trials where there are several."""
    return f"{100 * row[key]:.1f}" + (f" +- {100 * row[key + '_sd']:.1f}" if trials > 1 else "")


def range_figure(ds: Dataset, units: int = 4) -> Figure:
    """Return one panel per class: its logit's distribution, the middle shaded, and examples from the range.

    Members of the class and strangers to it are apart, in the histogram and in the examples: the four lowest rows, the
    four nearest the centre of the middle, the four highest. A place without a row stays empty, which is itself a
    fact: strangers are rare at the top.

    Args:
        ds: has `image`, `label`, `logits` and `band`; every band between the lowest and the highest is middle.
        units: at most this many classes, from the first.

    Raises:
        KeyError: if a column is missing.
        ImportError: if matplotlib is not installed.
    """
    columns.require(ds, columns.IMAGE, columns.LABEL, columns.LOGITS, columns.BAND)
    try:
        from matplotlib.figure import Figure
    except ImportError as err:
        raise ImportError("the demo's picture needs matplotlib: `pip install 'hf-midrange[demo]'`") from err
    names = [_literal(name) for name in columns.class_label(ds.features).names[:units]]
    ids, bands = columns.labels(ds), columns.matrix(ds, columns.BAND)
    top = bands.max()
    figure = Figure(figsize=(15, 3.1 * len(names)), layout="constrained")
    panels = figure.subfigures(len(names), 1, squeeze=False)[:, 0]
    for k, (name, panel) in enumerate(zip(names, panels, strict=True)):
        logits, band = columns.matrix(ds, columns.LOGITS)[:, k], bands[:, k]
        places = {"low": band == 0, "mid": (band > 0) & (band < top), "top": band == top}
        left, right = panel.subfigures(1, 2, width_ratios=[1, 3.2])
        _distribution(left.subplots(), logits, places["mid"], ids == k, name)
        _examples(right, ds, logits, places, ids == k, name)
    return figure


def _distribution(
    axes: Any,  # noqa: ANN401 - matplotlib Axes
    logits: np.ndarray,
    middle: np.ndarray,
    member: np.ndarray,
    name: str,
) -> None:
    """Draw one class's logit over its members and all others, the middle shaded."""
    bins = np.linspace(logits.min(), logits.max(), 41)
    axes.hist(logits[member], bins, color=MEMBER, alpha=0.65, label=f"label is {name}")
    axes.hist(logits[~member], bins, color=STRANGER, histtype="step", linewidth=1.6, label="any other label")
    if middle.any():
        axes.axvspan(logits[middle].min(), logits[middle].max(), color="0.5", alpha=0.2, label="mid band")
    axes.set(xlabel=f"logit of {name}", ylabel="rows")
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _examples(
    panel: Any,  # noqa: ANN401 - a matplotlib SubFigure
    ds: Dataset,
    logits: np.ndarray,
    places: dict[str, np.ndarray],
    member: np.ndarray,
    name: str,
) -> None:
    middle = logits[places["mid"]]
    centre = (middle.min() + middle.max()) / 2 if middle.size else 0.0
    ranks = (logits, np.abs(logits - centre), -logits)  # first comes what is shown: lowest, most central, highest
    blocks = panel.subfigures(1, len(places))
    for block, (place, inside), rank in zip(blocks, places.items(), ranks, strict=True):
        grid = block.subplots(2, EXAMPLES)
        block.suptitle(place, fontsize=11, fontweight="bold")
        for row, (side, mask) in enumerate(((name, member), (f"not {name}", ~member))):
            rows = np.flatnonzero(mask & inside)
            shown = rows[np.argsort(rank[rows], kind="stable")][:EXAMPLES]
            for column in range(EXAMPLES):
                axes = grid[row, column]
                axes.set(xticks=[], yticks=[])
                if column < len(shown):
                    axes.imshow(ds[int(shown[column])][columns.IMAGE])
                else:
                    axes.set_axis_off()
            grid[row, 0].set_title(f"{side}: {len(rows)} rows", fontsize=8, loc="left")


def _literal(text: str) -> str:
    """Return text in which a dollar sign starts no formula."""
    return str(text).replace("$", r"\$")
