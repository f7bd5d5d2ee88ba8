"""Gap closed by every strategy under the same head, on simulated embeddings whose truth is known.

Gap closed = sum(WGA - ERM) / sum(oracle - ERM) over the runs in which the true groups, under the same head, gain at
least .05; untied runs are listed as the mean change of WGA instead. Results go into a JSON file as they come, and a
finished run is not repeated.

    python benchmarks/gap.py --output gap.json
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, Features

from hf_midrange import LinearHead, columns, curate, curation_report, retrain_head


STRATEGIES = ("class-balanced", "random", "wrong", "mid", "mid-minority", "afr", "evals", "self", "george", "latent",
              "confounder-head", "view", "auto", "group")  # fmt: skip
TIES = (0.02, 0.05, 0.1, 0.25)
WIDTH, NOTHING_TO_CLOSE = 64, 0.05


def simulate(rows, classes, contrary, seed):
    """Return embeddings with a core and a confounder direction per class, and a noisy view of the confounder.

    A share `contrary` of each class is tied to another class's confounder; None: the confounder is drawn at random.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % classes
    others = (labels + rng.integers(1, classes, rows)) % classes
    contrary = 1 - 1 / classes if contrary is None else contrary
    tied = np.where(rng.random(rows) < contrary, others, labels)
    embedding, side = rng.normal(size=(rows, WIDTH)), rng.normal(size=(rows, classes + 4))
    embedding[np.arange(rows), labels] += 3.0
    embedding[np.arange(rows), classes + tied] += 3.5
    side[np.arange(rows), tied] += 3.5
    return embedding.astype(np.float32), labels, tied, side.astype(np.float32)


def erm(classes, contrary, seed):
    """Return a head fitted to 1,500 rows per two classes with the same tie, as an L2 logistic regression, C = .01."""
    from sklearn.linear_model import LogisticRegression

    values, labels, _, _ = simulate(750 * classes, classes, contrary, [seed, 1])
    model = LogisticRegression(C=0.01, max_iter=1000).fit(values, labels)
    weight, bias = model.coef_, model.intercept_
    if classes == 2:
        weight, bias = np.concatenate([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
    return LinearHead.from_weights(weight, bias)


def dataset(values, labels, tied, side, head):
    names = [f"class {k}" for k in range(head.num_classes)]
    base = Dataset.from_dict({"label": labels}, features=Features({"label": ClassLabel(names=names)}))
    more = {
        "group": (tied, ClassLabel(names=[f"tied to {name}" for name in names])),
        "embedding": (values, columns.vector(WIDTH)),
        "logits": (head(values).numpy(), columns.vector(len(names))),
        "view_side": (side, columns.vector(side.shape[1])),
    }
    return columns.with_columns(base, more)


def run(classes, contrary, seed):
    """Return worst-group accuracy, mean accuracy, detection and seconds of each strategy in one simulated task."""
    head = erm(classes, contrary, seed)
    ds = dataset(*simulate(400 * classes, classes, contrary, [seed, 2]), head)
    values, labels, tied, _ = simulate(2000 * classes, classes, None, [seed, 3])
    truth = np.array(ds["label"]) != np.array(ds["group"])
    results = {"ERM": score(head, values, labels, tied)}
    for strategy in STRATEGIES:
        start = time.perf_counter()
        curated = curate(ds, strategy=strategy, seed=seed)
        repaired = retrain_head(curated, head, seed=seed)
        names = curated.features["pseudo_group"].names
        found = np.array(["like" in names[cell] for cell in curated["pseudo_group"]])
        results[strategy] = score(repaired, values, labels, tied) | {
            "seconds": round(time.perf_counter() - start, 2),
            "precision": float(truth[found].mean()) if found.any() else None,
            "recall": float(found[truth].mean()) if found.any() else None,
            "verdict": curation_report(curated)["verdict"],
        }
    return results


def score(head, values, labels, tied):
    right = head(values).argmax(dim=1).numpy() == labels
    cells = labels * head.num_classes + tied
    return {"wga": min(float(right[cells == cell].mean()) for cell in np.unique(cells)), "mean": float(right.mean())}


def pooled(runs, strategy):
    """Return the pooled gap closed over runs with a gap, or None if there is none."""
    gaps = [(each[strategy]["wga"] - each["ERM"]["wga"], each["group"]["wga"] - each["ERM"]["wga"]) for each in runs]
    gaps = [pair for pair in gaps if pair[1] >= NOTHING_TO_CLOSE]
    return sum(gain for gain, _ in gaps) / sum(gap for _, gap in gaps) if gaps else None


def table(results):
    """Return a Markdown table: pooled gap closed per number of classes and tie, mean change on untied data."""
    kinds = sorted({key.rsplit("/", 1)[0] for key in results})
    lines = ["| strategy | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for strategy in STRATEGIES:
        cells = []
        for kind in kinds:
            runs = [each for key, each in results.items() if key.rsplit("/", 1)[0] == kind]
            closed = None if "untied" in kind else pooled(runs, strategy)
            change = float(np.mean([each[strategy]["wga"] - each["ERM"]["wga"] for each in runs]))
            cells.append(f"{change:+.3f} WGA" if closed is None else f"{closed:.2f}")
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--ties", type=float, nargs="+", default=list(TIES), help="share of rows against the tie")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("gap.json"))
    arguments = parser.parse_args()
    results = json.loads(arguments.output.read_text()) if arguments.output.exists() else {}
    for classes in arguments.classes:
        for contrary in (*arguments.ties, None):
            for seed in range(arguments.seeds):
                tie = "untied" if contrary is None else f"{contrary:.0%}"
                key = f"{classes} classes, {tie}/{seed}"
                if key not in results:
                    results[key] = run(classes, contrary, seed)
                    arguments.output.write_text(json.dumps(results, indent=1))
    print(table(results))


if __name__ == "__main__":
    main()
