"""How often `associate` confirms what is not there and finds what is; how well wrong labels are suspected.

`python benchmarks/calibration.py --seeds 200 --plot calibration.png`
"""

import argparse
import itertools

import numpy as np
from datasets import ClassLabel, Dataset, Features, disable_progress_bars
from scipy import sparse

from hf_midrange import columns
from hf_midrange.association import associate, suspected_mislabels
from hf_midrange.bands import LogitBands


def simulate(kind, seed, rows, concepts, effect=0.0, planted=0):
    """Two classes; concepts depend on the label alone, but for the planted ones, which also raise class 1's logit."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(rows) % 2)
    tilt = np.where(ids == 1, 1.5, 1 / 1.5)[:, None]
    base = {"plain": 0.2, "rare": 0.01, "dependent": 0.2}[kind]
    noise = rng.random((rows, concepts))
    if kind == "dependent":  # every concept copies one of ten hidden ones in half of the rows
        hidden = rng.random((rows, 10))
        copied = rng.random((rows, concepts)) < 0.5
        noise = np.where(copied, hidden[:, np.arange(concepts) % 10], noise)
    present = noise < base * tilt
    z = rng.normal(size=rows) + np.where(ids == 1, 1.5, -1.5) + effect * present[:, :planted].sum(axis=1)
    names = [f"concept_{i}" for i in range(concepts)]
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=["a", "b"])}))
    logits = np.stack([-z, z], axis=1).astype(np.float32)
    concept_column = (columns.concept_arrow(sparse.csr_matrix(present), names), columns.concept_list(names))
    return columns.with_columns(ds, {"logits": (logits, columns.vector(2)), "concepts_sim": concept_column})


def false_share(findings, planted):
    """Share of confirmed findings whose concept was not planted; 0 where none is confirmed."""
    confirmed = [
        int(c.split("_")[1]) for c, yes in zip(findings["concept"], findings["confirmed"], strict=True) if yes
    ]
    return sum(concept >= planted for concept in confirmed) / max(len(confirmed), 1)


def power_data(seed, rows=5000, prevalence=0.05, odds_ratio=3.0):
    """A concept of odds ratio 3 with the middle band, turned as a confounder is; 50 noise concepts."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(rows) % 2)
    z = rng.normal(size=rows) + np.where(ids == 1, 1.5, -1.5)
    middle = (z > -1.5) & (z < 1.5)
    with_it = np.where(ids == 1, ~middle, middle)  # the half of each label where the concept is commoner
    odds = prevalence / (1 - prevalence)
    low, high = odds / np.sqrt(odds_ratio), odds * np.sqrt(odds_ratio)
    share = np.where(with_it, high / (1 + high), low / (1 + low))
    present = np.column_stack([rng.random(rows) < share, rng.random((rows, 50)) < prevalence])
    names = [f"concept_{i}" for i in range(51)]
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=["a", "b"])}))
    logits = np.stack([-z, z], axis=1).astype(np.float32)
    concept_column = (columns.concept_arrow(sparse.csr_matrix(present), names), columns.concept_list(names))
    return columns.with_columns(ds, {"logits": (logits, columns.vector(2)), "concepts_sim": concept_column})


def noisy(seed, classes, strength, rows=2000, flipped=0.05):
    """Some labels are wrong, and a concept raises the first class's logit."""
    rng = np.random.default_rng(seed)
    true = rng.permutation(np.arange(rows) % classes)
    tied = rng.random(rows) < np.where(true == 0, 0.9, 0.1)
    logits = rng.normal(size=(rows, classes))
    logits[np.arange(rows), true] += 5
    logits[:, 0] += strength * (tied - 0.5)
    if classes == 2:  # two units that mirror each other, as in a binary classifier
        logits = np.outer(logits[:, 0] - logits[:, 1], [0.5, -0.5])
    wrong = rng.random(rows) < flipped
    ids = np.where(wrong, (true + rng.integers(1, classes, rows)) % classes, true)
    names = [f"class_{k}" for k in range(classes)]
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=names)}))
    concept_arrow = columns.concept_arrow(sparse.csr_matrix(tied[:, None]), ["tied"])
    logit_column = (logits.astype(np.float32), columns.vector(classes))
    ds = columns.with_columns(
        ds, {"logits": logit_column, "concepts_sim": (concept_arrow, columns.concept_list(["tied"]))}
    )
    return LogitBands().fit(ds).transform(ds), wrong


def mislabels(seeds):
    """Print precision and recall for planted wrong labels, beside as many rows of the lowest own margin."""
    for classes, strength in itertools.product((2, 3, 10), (4, 9)):
        scores = []
        for seed in range(seeds):
            ds, wrong = noisy(seed, classes, strength)
            rows = np.array(suspected_mislabels(ds, associate(ds))["row"][:], dtype=int)
            logits, ids = columns.matrix(ds, "logits").copy(), columns.labels(ds)
            own = logits[np.arange(len(ids)), ids].copy()
            logits[np.arange(len(ids)), ids] = -np.inf
            least = np.argsort(own - logits.max(axis=1), kind="stable")[: len(rows)]
            scores.append([*_precision_recall(rows, wrong), *_precision_recall(least, wrong)])
        ours, recall, base, base_recall = np.nanmean(scores, axis=0)
        print(
            f"{classes} classes, confounder of {strength}, 5 % wrong: precision {ours:.2f}, recall {recall:.2f}; "
            f"as many rows of the lowest margin: {base:.2f}, {base_recall:.2f}"
        )


def _precision_recall(rows, wrong):
    return (wrong[rows].mean() if len(rows) else np.nan), np.isin(np.flatnonzero(wrong), rows).mean()


def plot(shares, path):
    """Draw nominal level against the share of null runs with any discovery and with any confirmed finding."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 4))
    axes = figure.subplots()
    axes.plot([0, 0.2], [0, 0.2], color="grey", linewidth=1, label="nominal")
    for name, (levels, values) in shares.items():
        axes.plot(levels, values, marker="o", label=name)
    axes.set(xlabel="alpha", ylabel="share of null runs with any", title="Calibration without any effect")
    axes.legend()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--concepts", type=int, default=100)
    parser.add_argument("--plot", help="where to write the calibration plot")
    options = parser.parse_args()
    disable_progress_bars()
    levels, curves = (0.01, 0.05, 0.1, 0.2), {}
    for kind in ("plain", "rare", "dependent"):
        found = np.zeros((options.seeds, len(levels), 2), dtype=bool)
        for seed in range(options.seeds):
            ds = simulate(kind, seed, options.rows, options.concepts)
            for i, alpha in enumerate(levels):
                findings = associate(ds, alpha=alpha)
                found[seed, i] = len(findings) > 0, any(findings["confirmed"])
        curves[f"discovery, {kind}"] = (levels, found[:, :, 0].mean(0))
        curves[f"confirmed, {kind}"] = (levels, found[:, :, 1].mean(0))
        print(f"{kind}: any discovery {found[:, :, 0].mean(0)}, any confirmed {found[:, :, 1].mean(0)} at {levels}")
    shares = [
        false_share(associate(simulate("plain", s, options.rows, options.concepts, 0.6, 10)), 10)
        for s in range(options.seeds)
    ]
    print(f"10 planted: mean false share of confirmed findings {np.mean(shares):.4f} (alpha 0.05)")
    hits = []
    for seed in range(options.seeds):
        findings = associate(power_data(seed))
        hits.append(
            any(c == "concept_0" and f for c, f in zip(findings["concept"], findings["confounder"], strict=True))
        )
    print(f"power: odds ratio 3, prevalence 5 %, 5,000 rows: confounder in {np.mean(hits):.3f} of runs")
    mislabels(min(options.seeds, 10))
    if options.plot:
        plot(curves, options.plot)


if __name__ == "__main__":
    main()
