"""Time to a repaired head against DFR's full recipe on the same features, in the same run.

Ours: `curate` (no group labels, its cross-validated report included) and one correction of the given head; the
correction alone is timed too. DFR (Kirichenko et al. 2023) uses the true groups: seven values of C on half the rows,
then the mean of 20 l1 heads on group-balanced subsamples, by scikit-learn's liblinear. Runs alternate; medians count.
With OMP_NUM_THREADS=1, `--processor-time` leaves out what other work on the machine takes.

    python benchmarks/head.py --sizes 800x1280 20000x2048
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import numpy as np
from datasets import ClassLabel, Dataset, Features
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from tasks.pool import erm_head

from hf_midrange import columns, curate, retrain_head


STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
REFITS = 20
FACTORS, VIEW = 64, 48
"""Factors behind an embedding, and numbers of the side view, as many as a 4 x 4 thumbnail has."""

CORE, SHORTCUT = 2.5, 3.0
"""Distance of a class's mean from the others, in deviations."""

HEAD_SECONDS: list[float] = []


def simulate(rows, width, classes, seed, contrary=0.05):
    """Return embeddings, labels, groups (class times classes plus shortcut), and a view of the shortcut.

    64 factors, among them a core and a shortcut per class, are mixed into all channels, which are thus correlated as
    those of real embeddings are.
    """
    rng, every = np.random.default_rng(seed), np.arange(rows)
    labels = rng.integers(0, classes, rows)
    tied = np.where(rng.random(rows) < contrary, (labels + rng.integers(1, classes, rows)) % classes, labels)
    factors, view = rng.normal(size=(rows, FACTORS)), rng.normal(size=(rows, VIEW))
    factors[every, labels] += CORE
    factors[every, classes + tied] += SHORTCUT
    view[every, tied] += SHORTCUT
    mixing = np.random.default_rng(1).normal(size=(FACTORS, width)).astype(np.float32)
    values = factors.astype(np.float32) @ mixing + 2 * rng.standard_normal((rows, width), dtype=np.float32)
    return values, labels, labels * classes + tied, view.astype(np.float32)


def erm(width, classes):
    values, labels, _, _ = simulate(1000 * classes, width, classes, 77)
    return erm_head(values, labels, classes)


def worst(predictions, labels, groups):
    return min((predictions == labels)[groups == group].mean() for group in np.unique(groups))


def dataset(values, labels, groups, view, head):
    """Return what both recipes start from: the extracted columns, true groups for DFR, a view for ours."""
    names = ClassLabel(names=[f"class {k}" for k in range(head.num_classes)])
    base = Dataset.from_dict({"label": labels}, features=Features({"label": names}))
    more = {
        "group": (groups, ClassLabel(num_classes=head.num_classes**2)),
        "embedding": (values, columns.vector(values.shape[1])),
        "logits": (head(values).numpy(), columns.vector(head.num_classes)),
    }
    return columns.with_columns(base, more | ({} if view is None else {"view_side": (view, columns.vector(VIEW))}))


def ours(ds, head, clock=time.perf_counter):
    curated = curate(ds)
    selected = clock()
    fitted = retrain_head(curated, head, force=True)
    HEAD_SECONDS.append(clock() - selected)
    return lambda new: fitted(new).argmax(dim=1).numpy()


def l1_head(strength):
    from sklearn.multiclass import OneVsRestClassifier

    return OneVsRestClassifier(LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear"))


def balanced_rows(groups, rng):
    size = np.bincount(groups)[np.unique(groups)].min()
    return np.concatenate([rng.choice(np.flatnonzero(groups == g), size, replace=False) for g in np.unique(groups)])


def dfr(ds, head):
    values, labels, groups = columns.matrix(ds, "embedding"), columns.labels(ds), columns.labels(ds, "group")
    rng = np.random.default_rng(0)
    order = rng.permutation(len(labels))
    fit, choose = order[: len(order) // 2], order[len(order) // 2 :]
    rows = fit[balanced_rows(groups[fit], rng)]
    scaler = StandardScaler().fit(values[rows])
    features, scores = scaler.transform(values), []
    for strength in STRENGTHS:
        model = l1_head(strength).fit(features[rows], labels[rows])
        scores.append(worst(model.predict(features[choose]), labels[choose], groups[choose]))
    chosen, total = STRENGTHS[int(np.argmax(scores))], 0.0
    scaler = StandardScaler().fit(values)
    features = scaler.transform(values)
    for _ in range(REFITS):
        rows = balanced_rows(groups, rng)
        model = l1_head(chosen).fit(features[rows], labels[rows])
        parts = [np.append(part.coef_[0], part.intercept_) for part in model.estimators_]
        total = total + np.array(parts) / REFITS

    def predict(new):
        scores = scaler.transform(new) @ total[:, :-1].T + total[:, -1]
        return (scores[:, 0] > 0).astype(int) if len(total) == 1 else scores.argmax(axis=1)

    return predict


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=["800x1280"], help="rows x width")
    parser.add_argument("--classes", type=int, nargs="+", default=[2])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-view", action="store_true", help="leave out the side view; ours reads the embedding")
    parser.add_argument("--processor-time", action="store_true", help="of the process, instead of the clock's time")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.processor_time else time.perf_counter
    print("| rows x width | classes | ours s | head s | DFR s | DFR / ours | DFR / head | WGA ERM | ours | DFR |")
    print("|---" * 10 + "|")
    for size in arguments.sizes:
        for classes in arguments.classes:
            compare(*map(int, size.split("x")), classes, arguments.repeats, not arguments.no_view, clock)


def compare(rows, width, classes, repeats, with_view, clock):
    head = erm(width, classes)
    *parts, view = simulate(rows, width, classes, 5)
    ds = dataset(*parts, view if with_view else None, head)
    new, new_labels, new_groups, _ = simulate(4000, width, classes, 6, contrary=1 - 1 / classes)
    recipes = {"ours": partial(ours, clock=clock), "dfr": dfr}
    times, accuracies = {name: [] for name in recipes}, {}
    HEAD_SECONDS.clear()
    for _ in range(repeats):
        for name, recipe in recipes.items():
            start = clock()
            predict = recipe(ds, head)
            times[name].append(clock() - start)
            accuracies[name] = worst(predict(new), new_labels, new_groups)
    mine, theirs, alone = (float(np.median(each)) for each in (times["ours"], times["dfr"], HEAD_SECONDS))
    before = worst(head(new).argmax(dim=1).numpy(), new_labels, new_groups)
    print(
        f"| {rows} x {width} | {classes} | {mine:.2f} | {alone:.2f} | {theirs:.2f} | {theirs / mine:.1f} | "
        f"{theirs / alone:.1f} | {before:.3f} | {accuracies['ours']:.3f} | {accuracies['dfr']:.3f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
