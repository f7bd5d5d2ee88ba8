"""Tables of the gap benchmark."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


NOTHING_TO_CLOSE = 0.05
"""Runs whose oracle gains less than this over ERM have no gap; they are listed apart."""

VERDICTS = ("shown", "suspected", "none seen", "cannot be carried")

Runs = dict[str, dict]
"""Key `task|condition|seed` -> figures by strategy."""


def oracle(run: dict) -> float:
    """Return the better of the two recipes that know the true groups: the corrected head, and DFR's."""
    return max(run["group"]["wga"], run.get("DFR (oracle)", run["group"])["wga"])


def gain(run: dict, strategy: str) -> float:
    """Return the change of worst-group accuracy."""
    return run[strategy]["wga"] - run["ERM"]["wga"]


def pooled(runs: list[dict], strategy: str) -> float | None:
    """Return sum of gains over sum of gaps, of runs with a gap; None if there is none."""
    gaps = [(gain(run, strategy), oracle(run) - run["ERM"]["wga"]) for run in runs]
    gaps = [pair for pair in gaps if pair[1] >= NOTHING_TO_CLOSE]
    return sum(mine for mine, _ in gaps) / sum(gap for _, gap in gaps) if gaps else None


def parted(results: Runs) -> dict[tuple[str, str], list[dict]]:
    """Return (task, condition) -> runs of all seeds."""
    kinds: dict[tuple[str, str], list[dict]] = {}
    for key, run in results.items():
        task, condition, _ = key.split("|")
        kinds.setdefault((task, condition), []).append(run)
    return kinds


def regret(results: Runs, strategy: str) -> float:
    """Return the mean over tasks of best(ERM, true groups) - delivered; tied and untied runs weigh the same."""
    sides: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    for (task, condition), runs in parted(results).items():
        lost = [max(run["ERM"]["wga"], oracle(run)) - run[strategy]["wga"] for run in runs]
        sides["untied" in condition].setdefault(task, []).extend(lost)
    means = [np.mean([np.mean(lost) for lost in tasks.values()]) for tasks in sides.values() if tasks]
    return float(np.mean(means)) if means else float("nan")


def closed(results: Runs, strategy: str) -> float:
    """Return the pooled gap closed of all tied runs, NaN where there is none."""
    found = pooled([run for key, run in results.items() if "untied" not in key], strategy)
    return float("nan") if found is None else found


def untied_change(results: Runs, strategy: str) -> float:
    """Return the mean change of worst-group accuracy where nothing is tied, tasks weighing the same."""
    means = [
        np.mean([gain(run, strategy) for run in runs])
        for (_, condition), runs in parted(results).items()
        if "untied" in condition
    ]
    return float(np.mean(means)) if means else float("nan")


def interval(
    results: Runs, strategy: str, figure: Callable[[Runs, str], float], against: str | None = None, draws: int = 500
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of a figure over tasks: runs of one task are no independent evidence.

    Args:
        results: the runs.
        strategy: whose figure.
        figure: such as `regret`.
        against: another strategy, of whose figure the difference is taken in each draw.
        draws: number of bootstrap samples.
    """
    rng, by_name = np.random.default_rng(0), {}
    for key, run in results.items():
        by_name.setdefault(key.split("|")[0], {})[key] = run
    names, found = list(by_name), []
    for _ in range(draws):
        drawn = rng.integers(0, len(names), len(names))
        again = {f"{j} {key}": run for j, number in enumerate(drawn) for key, run in by_name[names[number]].items()}
        found.append(figure(again, strategy) - (figure(again, against) if against else 0.0))
    return tuple(np.nanquantile(found, (0.025, 0.975))) if np.isfinite(found).any() else (np.nan, np.nan)


def summary(results: Runs, strategies: list[str]) -> str:
    """Return a Markdown table of what a strategy is worth, with intervals, and the tied tasks that have no gap."""
    lines = ["| strategy | regret | its regret - that of `auto` | gap closed | untied: mean change | worst run |"]
    lines.append("|---" * 6 + "|")
    for strategy in strategies:
        cells = []
        for figure, against in ((regret, None), (regret, "auto"), (closed, None), (untied_change, None)):
            value = figure(results, strategy) - (figure(results, against) if against else 0.0)
            low, high = interval(results, strategy, figure, against)
            cells.append(f"{value:.3f} ({low:.3f} to {high:.3f})")
        untied = [gain(run, strategy) for key, run in results.items() if "untied" in key]
        lines.append(f"| {strategy} | {' | '.join(cells)} | {min(untied, default=float('nan')):+.3f} |")
    flat = [
        f"{task} at {condition}"
        for (task, condition), runs in parted(results).items()
        if "untied" not in condition and pooled(runs, "ERM") is None
    ]
    return "\n".join([*lines, "", f"Without a gap to close: {', '.join(flat) or 'none'}."])


def by_condition(results: Runs, strategies: list[str]) -> str:
    """Return a Markdown table: pooled gap closed over all tasks by condition, and the change on untied data."""
    kinds: dict[str, list[dict]] = {}
    for (_, condition), runs in parted(results).items():
        kinds.setdefault(condition, []).extend(runs)
    lines = ["| strategy | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for strategy in strategies:
        cells = [
            f"{np.mean([gain(run, strategy) for run in runs]):+.3f} WGA"
            if "untied" in condition
            else _number(pooled(runs, strategy))
            for condition, runs in kinds.items()
        ]
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def verdicts(results: Runs) -> str:
    """Return a Markdown table of the verdicts by condition, and how many say nothing where true groups gain."""
    kinds: dict[str, list[dict]] = {}
    for (_, condition), runs in parted(results).items():
        kinds.setdefault(condition, []).extend(runs)
    lines = ["| condition | runs | " + " | ".join(VERDICTS) + " | none seen, but true groups gain > .05 |"]
    lines.append("|---" * 7 + "|")
    for condition, runs in kinds.items():
        given = [run["auto"].get("verdict") for run in runs]
        missed = sum(
            verdict == "none seen" and gain(run, "group") > NOTHING_TO_CLOSE
            for verdict, run in zip(given, runs, strict=True)
        )
        counts = [f"{given.count(verdict) / len(runs):.2f}" for verdict in VERDICTS]
        lines.append(f"| {condition} | {len(runs)} | {' | '.join(counts)} | {missed / len(runs):.2f} |")
    return "\n".join(lines)


def by_task(results: Runs, strategies: list[str], condition: str) -> str:
    """Return a Markdown table of one condition: worst-group accuracy by task (mean over seeds), and the pooled gap."""
    kinds = {task: runs for (task, other), runs in parted(results).items() if other == condition}
    lines = ["| strategy | " + " | ".join(kinds) + " | pooled gap |", "|---" * (len(kinds) + 2) + "|"]
    for strategy in ("ERM", *strategies):
        cells = [f"{_mean(runs, strategy, 'wga'):.3f}" for runs in kinds.values()]
        every = [run for runs in kinds.values() for run in runs]
        lines.append(f"| {strategy} | " + " | ".join(cells) + f" | {_number(pooled(every, strategy))} |")
    return "\n".join(lines)


def details(results: Runs, strategies: list[str], condition: str) -> str:
    """Return a Markdown table of one condition over all tasks: accuracy, detection, balance, and time."""
    runs = [run for (_, other), part in parted(results).items() if other == condition for run in part]
    lines = ["| strategy | mean accuracy | precision | recall | contrary weight | seconds |", "|---" * 6 + "|"]
    for strategy in strategies:
        figures = [_mean(runs, strategy, key) for key in ("mean", "precision", "recall", "contrary_weight", "seconds")]
        cells = ["-" if np.isnan(figure) else f"{figure:.2f}" for figure in figures]
        lines.append(f"| {strategy} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean(runs: list[dict], strategy: str, key: str) -> float:
    values = [run[strategy].get(key) for run in runs]
    values = [value for value in values if value is not None]
    return float(np.mean(values)) if values else float("nan")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
