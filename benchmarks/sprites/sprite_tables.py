"""Tables and picture of the sprite experiment, beside the published accuracies."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sprite_cells import Cells, cosines, tied_regions_found


PUBLISHED = dict(
    zip(range(11), (82.7, 83.3, 86.4, 87.1, 88.0, 87.9, 81.6, 73.5, 63.0, 47.1, 34.0), strict=True)
)  # tenths of the tie level -> test accuracy in percent
"""Mean of the authors' five seeds, from the notebook of arXiv 2411.10019."""
ONE_SEED = dict(zip(range(11), (78.2, 69.8, 75.8, 70.5, 87.3, 91.8, 88.0, 73.5, 63.2, 51.0, 33.7), strict=True))
"""There, one seed (4) trained end to end with dropout."""
SHOWN_ROWS = 300


def written(cells: Cells, ties: Sequence[float], seeds: Sequence[int], output: Path) -> None:
    """Write what is done of a grid: all facts as JSON, tables as Markdown, curves and matrices as PNG."""
    done = {tie: [facts for seed in seeds if (facts := cells.facts(tie, seed))] for tie in ties}
    missing = [f"{tie:.1f} / {seed}" for tie in ties for seed in seeds if cells.facts(tie, seed) is None]
    done = {tie: runs for tie, runs in done.items() if runs}
    if not done:
        return
    everything = [facts for runs in done.values() for facts in runs]
    output.with_suffix(".json").write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text("\n".join(tables(done, missing)) + "\n", encoding="utf-8")
    picture(cells, done, output.with_suffix(".png"))


def tables(done: dict[float, list[dict]], missing: Sequence[str]) -> list[str]:
    """Return the lines of the Markdown file."""
    commits = sorted({facts["commit"] for runs in done.values() for facts in runs})
    size = next(iter(done.values()))[0]["size"]
    precision = "bfloat16 activations" if size["low_precision"] else "float32"
    lines = [f"Made from commit {', '.join(commits)}; {size['epochs']} epochs, {precision}.", ""]
    if missing:
        lines += [f"Not yet run (tie / seed): {', '.join(missing)}.", ""]
    lines += ["Test accuracy in percent, mean (each seed), on untied sprites:", "", *accuracy_table(done)]
    lines += ["", "Mean cosine between the features of two test sprites:", "", *similarity_table(done)]
    lines += ["", "Held-out sprites, tied as in training; means over the three neurons and the seeds:", ""]
    lines += [*middle_table(done), "", "Share standing in the tied region, by band of the neuron (rows):", ""]
    return [*lines, *band_table(done)]


def accuracy_table(done: dict[float, list[dict]]) -> list[str]:
    titles = ["tie", "tied in truth", "trained on", "ours", "tied sprites", "others", "worst group"]
    titles += ["published, 5 seeds", "one seed"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for tie, runs in done.items():
        each = [100 * run["accuracy"] for run in runs]
        shown = f"{np.mean(each):.1f} ({', '.join(f'{value:.1f}' for value in each)})"
        parts = [f"{100 * _mean(runs, key):.1f}" for key in ("accuracy_tied", "accuracy_other", "worst_group")]
        theirs = [_published(table, tie) for table in (PUBLISHED, ONE_SEED)]
        cells = [f"{tie:.1f}", f"{_mean(runs, 'tied_share'):.2f}", f"{_mean(runs, 'trained_on'):.0f}", shown]
        lines.append(f"| {' | '.join([*cells, *parts, *theirs])} |")
    return lines


def similarity_table(done: dict[float, list[dict]]) -> list[str]:
    kinds = list(next(iter(done.values()))[0]["similarity"])
    lines = ["| tie | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for tie, runs in done.items():
        values = [np.mean([run["similarity"][kind] for run in runs]) for kind in kinds]
        lines.append(f"| {tie:.1f} | " + " | ".join(f"{value:+.2f}" for value in values) + " |")
    return lines


def middle_table(done: dict[float, list[dict]]) -> list[str]:
    kinds = list(next(iter(next(iter(done.values()))[0]["mean_logits"].values())))
    lines = ["| tie | " + " | ".join(f"mean logit, {kind}" for kind in kinds) + " | own region found, of neurons |"]
    lines.append("|---" * (len(kinds) + 2) + "|")
    for tie, runs in done.items():
        cells = []
        for kind in kinds:
            values = [row[kind] for run in runs for row in run["mean_logits"].values() if row[kind] is not None]
            cells.append(f"{np.mean(values):.1f}" if values else "no rows")
        found = f"{sum(map(tied_regions_found, runs))} of {3 * len(runs)}"
        lines.append(f"| {tie:.1f} | {' | '.join(cells)} | {found} |")
    return lines


def band_table(done: dict[float, list[dict]]) -> list[str]:
    sides = [(side, band) for side in ("members", "strangers") for band in ("low", "mid", "high")]
    lines = ["| tie | " + " | ".join(f"{side}, {band}" for side, band in sides) + " |", "|---" * 7 + "|"]
    for tie, runs in done.items():
        cells = []
        for side, band in sides:
            rows = [row for run in runs for row in run["positions"] if (row["side"], row["band"]) == (side, band)]
            total = sum(row["rows"] for row in rows)
            inside = sum(row["regions"][row["tied_region"]] for row in rows)
            cells.append(f"{inside / total:.2f} ({total})" if total else "no rows")
        lines.append(f"| {tie:.1f} | {' | '.join(cells)} |")
    return lines


def picture(cells: Cells, done: dict[float, list[dict]], path: Path) -> None:
    """Draw accuracy by tie, and of one seed a tie the features' cosines, sorted by shape and by position."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(2.1 * max(4, len(done)), 7.6), layout="constrained")
    grid = figure.add_gridspec(3, len(done), height_ratios=(1.2, 1, 1))
    axis = figure.add_subplot(grid[0, :])
    levels = [k / 10 for k in PUBLISHED]
    axis.plot(levels, list(PUBLISHED.values()), "o-", color="tab:gray", label="published, 5 seeds")
    points = [(tie, 100 * run["accuracy"]) for tie, runs in done.items() for run in runs]
    axis.plot(*zip(*points, strict=True), "x", color="tab:blue", label="ours, a seed each")
    axis.set_xlabel("tie level")
    axis.set_ylabel("test accuracy %")
    axis.legend()
    for column, (tie, runs) in enumerate(done.items()):
        features = cells.features(tie, runs[0]["seed"])
        shape, place = features["label"][:SHOWN_ROWS], features["pos_x"][:SHOWN_ROWS]
        table = cosines(features["embedding"][:SHOWN_ROWS])
        for row, (by, order) in enumerate(
            [("shape", np.lexsort((place, shape))), ("position", np.lexsort((shape, place)))], start=1
        ):
            axis = figure.add_subplot(grid[row, column])
            axis.imshow(table[np.ix_(order, order)], cmap="RdBu_r", vmin=-1, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
            if column == 0:
                axis.set_ylabel(f"sorted by {by}")
            if row == 1:
                axis.set_title(f"tie {tie:.1f}", fontsize=10)
    figure.savefig(path, dpi=75)
    plt.close(figure)


def _mean(runs: list[dict], key: str) -> float:
    return float(np.mean([run[key] for run in runs]))


def _published(table: dict[int, float], tie: float) -> str:
    tenths = 10 * tie
    return f"{table[round(tenths)]:.1f}" if abs(tenths - round(tenths)) < 1e-9 else "-"
