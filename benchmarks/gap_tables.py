"""Tables and picture of the gap benchmark."""

from __future__ import annotations

from pathlib import Path

import numpy as np


NOTHING_TO_CLOSE = 0.05
"""Runs whose oracle gains less than this over ERM have no gap; they are listed apart."""


def oracle(run):
    """Return the better of the two recipes that know the true groups: the corrected head, and DFR's."""
    return max(run["group"]["wga"], run.get("DFR (oracle)", run["group"])["wga"])


def pooled(runs, strategy):
    """Return sum of gains over sum of gaps, of runs with a gap; None if there is none."""
    gaps = [(run[strategy]["wga"] - run["ERM"]["wga"], oracle(run) - run["ERM"]["wga"]) for run in runs]
    gaps = [pair for pair in gaps if pair[1] >= NOTHING_TO_CLOSE]
    return sum(gain for gain, _ in gaps) / sum(gap for _, gap in gaps) if gaps else None


def parted(results):
    """Return (task, tie) -> runs of all seeds."""
    kinds = {}
    for key, run in results.items():
        task, tie, _ = key.split("|")
        kinds.setdefault((task, tie), []).append(run)
    return kinds


def regret(results, strategy):
    """Return the mean over tasks of best(ERM, true groups) - delivered; tied and untied runs weigh the same."""
    sides = {True: {}, False: {}}
    for (task, tie), runs in parted(results).items():
        lost = [max(run["ERM"]["wga"], oracle(run)) - run[strategy]["wga"] for run in runs]
        sides[tie == "untied"].setdefault(task, []).extend(lost)
    means = [np.mean([np.mean(lost) for lost in tasks.values()]) for tasks in sides.values() if tasks]
    return float(np.mean(means)) if means else float("nan")


def closed(results, strategy):
    """Return the pooled gap closed of all tied runs, NaN where there is none."""
    found = pooled([run for (_, tie), runs in parted(results).items() if tie != "untied" for run in runs], strategy)
    return float("nan") if found is None else found


def interval(results, strategy, figure, draws=1000):
    """Return the 95 % bootstrap interval of a figure over tasks: runs of one task are no independent evidence."""
    rng, by_task_name = np.random.default_rng(0), {}
    for key, run in results.items():
        by_task_name.setdefault(key.split("|")[0], {})[key] = run
    names, found = list(by_task_name), []
    for _ in range(draws):
        drawn = rng.integers(0, len(names), len(names))
        again = {
            f"{j} {key}": run for j, number in enumerate(drawn) for key, run in by_task_name[names[number]].items()
        }
        found.append(figure(again, strategy))
    found = np.array(found)
    return tuple(np.nanquantile(found, (0.025, 0.975))) if np.isfinite(found).any() else (np.nan, np.nan)


def regrets(results, strategies):
    """Return a Markdown table of regret and gap closed with intervals, and the tied tasks that have no gap."""
    lines = ["| strategy | regret | gap closed |", "|---|---|---|"]
    for strategy in strategies:
        cells = []
        for figure in (regret, closed):
            low, high = interval(results, strategy, figure)
            cells.append(f"{figure(results, strategy):.3f} ({low:.3f} to {high:.3f})")
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    flat = [
        f"{task} at {tie}"
        for (task, tie), runs in parted(results).items()
        if tie != "untied" and pooled(runs, "ERM") is None
    ]
    return "\n".join([*lines, "", f"Without a gap to close: {', '.join(flat) or 'none'}."])


def by_tie(results, strategies):
    """Return a Markdown table: pooled gap closed over all tasks by tie, and the change on untied data."""
    kinds = parted(results)
    last = {"natural": 99.0, "untied": 100.0}
    ties = sorted({tie for _, tie in kinds}, key=lambda tie: last.get(tie) or float(tie.rstrip("%")))
    lines = ["| strategy | " + " | ".join(ties) + " |", "|---" * (len(ties) + 1) + "|"]
    for strategy in strategies:
        cells = []
        for tie in ties:
            runs = [run for (_, other), part in kinds.items() if other == tie for run in part]
            cells.append(f"{_change(runs, strategy):+.3f} WGA" if tie == "untied" else _number(pooled(runs, strategy)))
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def by_task(results, strategies, tie):
    """Return a Markdown table of one tie: worst-group accuracy by task (mean over seeds), and the pooled gap."""
    kinds = {task: runs for (task, other), runs in parted(results).items() if other == tie}
    lines = ["| strategy | " + " | ".join(kinds) + " | pooled gap |", "|---" * (len(kinds) + 2) + "|"]
    for strategy in ("ERM", *strategies):
        cells = [f"{_mean(runs, strategy, 'wga'):.3f}" for runs in kinds.values()]
        every = [run for runs in kinds.values() for run in runs]
        lines.append(f"| {strategy} | " + " | ".join(cells) + f" | {_number(pooled(every, strategy))} |")
    return "\n".join(lines)


def details(results, strategies, tie):
    """Return a Markdown table of one tie over all tasks: accuracy, detection, balance, time, and paired difference."""
    runs = [run for (_, other), part in parted(results).items() if other == tie for run in part]
    head = "| strategy | mean accuracy | precision | recall | contrary weight | seconds | auto - it (WGA) |"
    lines = [head, "|---" * 7 + "|"]
    for strategy in strategies:
        figures = [_mean(runs, strategy, key) for key in ("mean", "precision", "recall", "contrary_weight", "seconds")]
        paired = np.array([run["auto"]["wga"] - run[strategy]["wga"] for run in runs])
        error = paired.std(ddof=1) / np.sqrt(len(paired)) if len(paired) > 1 else float("nan")
        cells = ["-" if np.isnan(figure) else f"{figure:.2f}" for figure in figures]
        lines.append(f"| {strategy} | " + " | ".join(cells) + f" | {paired.mean():+.3f} ± {1.96 * error:.3f} |")
    return "\n".join(lines)


def heads(results, selections, tie):
    """Return a Markdown table: gap closed by selection and kind of head."""
    runs = [run for (_, other), part in parted(results).items() if other == tie for run in part]
    selections = [name for name in selections if all("heads" in run[name] for run in runs)]
    kinds = sorted({kind for run in runs for name in selections for kind in run[name]["heads"]})
    lines = ["| selection | corrected | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 2) + "|"]
    for name in selections:
        cells = [_number(pooled(runs, name))]
        for kind in kinds:
            # Beside the selection's own figures, which the oracle may need, stand those with the other head.
            swapped = [run | {"other": {"wga": run[name]["heads"][kind]}} for run in runs]
            cells.append(_number(pooled(swapped, "other")))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(results, strategies, tie, path: Path):
    """Draw change of worst-group accuracy against the oracle's, a panel per strategy."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    kinds = {(task, t): runs for (task, t), runs in parted(results).items() if t in (tie, "untied")}
    figure, axes = plt.subplots(1, len(strategies), figsize=(2.6 * len(strategies), 3.2), sharex=True, sharey=True)
    for axis, strategy in zip(np.atleast_1d(axes), strategies, strict=True):
        for (_, kind), runs in kinds.items():
            gaps = [oracle(run) - run["ERM"]["wga"] for run in runs]
            gains = [run[strategy]["wga"] - run["ERM"]["wga"] for run in runs]
            axis.scatter(gaps, gains, s=12, color="tab:gray" if kind == "untied" else "tab:blue", label=kind)
        axis.axline((0, 0), slope=1, color="black", linewidth=0.6)
        axis.axhline(0, color="black", linewidth=0.6)
        axis.set_title(strategy, fontsize=9)
        axis.set_xlabel("oracle - ERM")
    np.atleast_1d(axes)[0].set_ylabel("change of worst-group accuracy")
    figure.suptitle(f"tied at {tie} (blue) and untied (grey): on the diagonal the gap is closed", fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _mean(runs, strategy, key):
    values = [run[strategy].get(key) for run in runs]
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else float("nan")


def _change(runs, strategy):
    return float(np.mean([run[strategy]["wga"] - run["ERM"]["wga"] for run in runs]))


def _number(value):
    return "-" if value is None else f"{value:.2f}"
