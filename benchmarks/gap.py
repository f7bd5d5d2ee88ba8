"""Gap closed by every strategy under the same head, on real and simulated tasks with a tie, losers included.

A run is a task, a tie and a seed: an ERM head is fitted to tied training rows, every strategy curates the same tied
curation rows without group labels, `retrain_head` corrects the ERM head, and an untied test split scores it. Gap
closed is pooled: sum of (WGA - ERM) over sum of (oracle - ERM), over runs in which the oracle gains at least .05; the
oracle is the better of the true groups under the same head and DFR's recipe. On untied runs WGA's change is shown.

Regret is the mean over tasks of best(ERM, true groups) - delivered, tied and untied weighing the same; its intervals
are bootstrapped over tasks. `--wrong` changes labels of training and curation rows; `--natural` adds tasks on files of
the user's own (`tasks/natural.py`), which may also be drawn as they are.

Results go into a JSON file as they come; a finished run is not repeated, and nothing is downloaded: clothes and
reviews need `--data` (an error says where they come from). Results say which seeds and tasks were used to choose
rules; those of reports are others.

    python benchmarks/gap.py --profile quick
    python benchmarks/gap.py --profile full --data fashion=FOLDER reviews=FOLDER --output gap_full.json
    python benchmarks/gap.py --natural FOLDER --ties 0.05 natural untied --wrong 0 0.1 --output natural.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
from baselines import BASELINES
from gap_tables import by_task, by_tie, details, heads, picture, pooled, regrets
from head import dfr
from recipes import RECIPES
from tasks import TASKS, Pool, draw, task_named
from tasks.natural import DATA, NATURAL
from tasks.pool import untied_share
from tasks.simulator import simulated

from hf_midrange import columns, curate, curation_report, retrain_head
from hf_midrange.curation import STRATEGIES


CONTROLS = ("class-balanced", "random", "mid")
CROSSED = ("class-balanced", "wrong", "auto", "group")
"""Selections under which other kinds of head are fitted too, so that nobody credits a selection for the head."""

ORACLE = "DFR (oracle)"
MOST_HARM = 0.02
"""Mean loss of worst-group accuracy on untied runs beyond which `--check` fails."""

NAMED = STRATEGIES | BASELINES
SHOWN = [name for name in [*NAMED, *RECIPES] if name != "concepts"]
BY_VIEW = ("view", "PoE (view)", "uLA (view)")
"""What needs a side view."""

AS_IT_IS = "natural"
"""The tie of rows as they are in the data."""

TIES = {"untied": None, AS_IT_IS: AS_IT_IS}
SIMULATED = [(2, 0), (2, 1), (2, 2), (5, 0), (5, 1), (5, 2), (10, 0), (10, 1), (10, 2)]


class Profile(NamedTuple):
    """How much of the grid is run."""

    tasks: tuple[str, ...]
    ties: tuple[float | None, ...]
    """Share of each class against the tie; None: untied."""
    simulated: tuple[tuple[int, int], ...]
    """Numbers of classes and of confounders."""
    seeds: int


EMBEDDED = tuple(task.name for task in TASKS if task.data is None)
PROFILES = {
    # For CI: a minute or two of one core, half of it for the pool of features of the one task on pictures.
    "quick": Profile(EMBEDDED[:1], (0.05, None), ((2, 1), (2, 2), (5, 1)), 2),
    "full": Profile(tuple(t.name for t in TASKS), (0.02, 0.05, 0.1, 0.25, None), tuple(SIMULATED), 5),
}


def evaluate(run, seed, strategies, crossed):
    """Return the figures of every strategy in one run."""
    labels = columns.labels(run.curation)
    truth = contrary_rows(run.curation)
    results = {"ERM": score(run.head, run)}
    for strategy in strategies:
        if strategy in BY_VIEW and not columns.view_columns(run.curation.features):
            continue
        start = time.perf_counter()
        if strategy in RECIPES:
            found = score(RECIPES[strategy](run.curation, run.head, seed), run)
            results[strategy] = found | {"seconds": round(time.perf_counter() - start, 3)}
            continue
        curated = curate(run.curation, strategy=BASELINES.get(strategy, strategy), seed=seed)
        repaired = retrain_head(curated, run.head, seed=seed)
        seconds = time.perf_counter() - start
        results[strategy] = score(repaired, run) | selected(curated, labels, truth) | {"seconds": round(seconds, 3)}
        if strategy in crossed:
            fitted = retrain_head(curated, seed=seed)
            results[strategy]["heads"] = {"new": score(fitted, run)["wga"]}
        if strategy == "group":
            results[ORACLE] = score(dfr(run.curation, run.head), run)
    return results


def contrary_rows(curation):
    """Return rows outside the most common group of their class, `(n,)` bool: by construction those against the tie.

    The group tells the true class, which `label` may not.
    """
    groups = columns.labels(curation, columns.GROUP)
    classes = len(columns.class_label(curation.features).names)
    parts = len(columns.class_label(curation.features, columns.GROUP).names) // classes
    counts = np.bincount(groups, minlength=classes * parts)
    return counts[groups] < counts.reshape(classes, parts).max(axis=1)[groups // parts]


def selected(curated, labels, truth):
    """Return verdict, detection of rows against the tie, and their share of the weight (mean over classes)."""
    names = columns.class_label(curated.features, columns.PSEUDO_GROUP).names
    marked = [any(word in name for word in (", like ", "misclassified", "high loss")) for name in names]
    found = np.array(marked)[columns.labels(curated, columns.PSEUDO_GROUP)]
    weight = np.array(curated[columns.WEIGHT])
    shares = [weight[truth & (labels == k)].sum() / weight[labels == k].sum() for k in np.unique(labels)]
    report = curation_report(curated)
    return {
        "verdict": report["verdict"],
        "rule": report.get("rule"),
        "precision": float(truth[found].mean()) if found.any() and truth.any() else None,
        "recall": float(found[truth].mean()) if found.any() and truth.any() else None,
        "contrary_weight": round(float(np.mean(shares)), 4),
    }


def score(head, run):
    """Return the scores of a `LinearHead`, or of a function from embeddings to predictions."""
    predictions = head(run.embedding)
    right = (predictions if isinstance(predictions, np.ndarray) else predictions.argmax(dim=1).numpy()) == run.labels
    worst = min(float(right[run.groups == group].mean()) for group in np.unique(run.groups))
    return {"wga": round(worst, 4), "mean": round(float(right.mean()), 4)}


def grid(profile, arguments):
    """Yield key, and how to draw the run. Missing data are told of before the first run."""
    tasks = [task_named(name) for name in arguments.tasks or profile.tasks]
    tasks += NATURAL if DATA in arguments.data and not arguments.tasks else []
    pools = {task.name: Pool.of(task, arguments.data.get(task.data), arguments.cache) for task in tasks}
    seeds = arguments.seeds or range(profile.seeds)
    for task, wrong in product(tasks, arguments.wrong):
        pool, name = pools[task.name], f"{task.name}, {wrong:.0%} wrong labels" if wrong else task.name
        ties = [tie for tie in profile.ties if tie != AS_IT_IS or task in NATURAL]
        for tie, seed in product(ties, seeds):
            share = {None: untied_share(pool), AS_IT_IS: None}.get(tie, tie)
            make = partial(draw, pool, share, seed, task.sizes, arguments.rows, wrong)
            yield f"{name}|{named_tie(tie)}|{seed}", seed, make
    for classes, confounders in () if arguments.tasks else profile.simulated:
        ties = [tie for tie in profile.ties if tie != AS_IT_IS] if confounders else [None]
        for tie, seed in product(ties, seeds):
            share = 1 - 1 / classes if tie is None else tie
            key = f"simulated {classes}x{confounders}|{named_tie(tie)}|{seed}"
            yield key, seed, partial(simulated, classes, confounders, share, seed)


def named_tie(tie):
    """Return "5%" for a share of .05, "untied" for None, and "natural"."""
    return {None: "untied", AS_IT_IS: AS_IT_IS}.get(tie) or f"{tie:.0%}"


def commit():
    """Return the commit of the code at hand, marked if files were changed since."""
    shown = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True)
    return shown.stdout.strip() or "unknown"


def shortfalls(runs):
    """Return in words where `auto` fails: to close more of the gap than balanced classes, to do no harm untied."""
    tied = [run for key, run in runs.items() if key.split("|")[1] != "untied"]
    untied = [run["auto"]["wga"] - run["ERM"]["wga"] for key, run in runs.items() if key.split("|")[1] == "untied"]
    found, closed, control = [], pooled(tied, "auto"), pooled(tied, "class-balanced")
    if closed is None:
        found.append("no tied run has a gap to close")
    elif closed <= control:
        found.append(f"`auto` closes {closed:.2f} of the gap of tied runs, `class-balanced` {control:.2f}")
    if not untied or np.mean(untied) < -MOST_HARM:
        change = f"is {np.mean(untied):+.3f}" if untied else "was not measured"
        found.append(
            f"the mean change of worst-group accuracy by `auto` untied {change}; at most -{MOST_HARM} is borne"
        )
    return found


def report(stored, folder):
    """Print the tables, and write them and the picture beside the JSON file."""
    runs = stored["runs"]
    present = [name for name in [*SHOWN, ORACLE] if all(name in run for run in runs.values())]
    made = f"Made from commit {stored['commit']}, {len(runs)} runs."
    parts = [made, "", "Regret, and gap closed, with 95 % intervals over tasks:", "", regrets(runs, ["ERM", *present]),
             "", "Gap closed by tie, and change on untied data:", "", by_tie(runs, present)]  # fmt: skip
    ties = sorted({key.split("|")[1] for key in runs} - {"untied"})
    for tie in ties:
        parts += ["", f"Worst-group accuracy by task, {tie} against the tie:", "", by_task(runs, present, tie)]
    if "5%" in ties:
        parts += ["", "At 5%:", "", details(runs, present, "5%"), "", "Gap closed by selection and head, at 5%:", "",
                  heads(runs, [name for name in CROSSED if name in present], "5%")]  # fmt: skip
        picture(runs, [name for name in ("class-balanced", "wrong", "afr", "view", "auto") if name in present], "5%",
                folder.with_suffix(".png"))  # fmt: skip
    folder.with_suffix(".md").write_text("\n".join(parts) + "\n")
    print("\n".join(parts))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=list(PROFILES), default="quick")
    parser.add_argument("--tasks", nargs="+", help="real tasks to run, instead of those of the profile")
    parser.add_argument("--ties", nargs="+", help="shares against the tie, 'untied' or 'natural'")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of those of the profile")
    parser.add_argument("--strategies", nargs="+", default=SHOWN, choices=[*NAMED, *RECIPES])
    parser.add_argument("--wrong", type=float, nargs="+", default=[0.0], help="shares of wrong labels in given rows")
    parser.add_argument("--natural", type=Path, metavar="FOLDER", help="parquet files of real data (tasks/natural.py)")
    parser.add_argument("--rows", type=int, help="curation rows per two classes")
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=FOLDER", help="fashion=, reviews=")
    parser.add_argument("--cache", type=Path, default=Path("outputs/gap"), help="where pools of features are kept")
    parser.add_argument("--output", type=Path, default=Path("gap.json"))
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if auto closes no more than class-balanced, or harms untied"
    )
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    arguments.data = {name: Path(folder) for name, folder in (entry.split("=", 1) for entry in arguments.data)}
    arguments.data |= {DATA: arguments.natural} if arguments.natural else {}
    profile = PROFILES[arguments.profile]
    if arguments.ties:
        profile = profile._replace(ties=tuple(TIES.get(tie) if tie in TIES else float(tie) for tie in arguments.ties))
    stored = {"commit": commit(), "runs": {}}
    if arguments.output.exists():
        stored = json.loads(arguments.output.read_text())
    for key, seed, make in grid(profile, arguments):
        done = stored["runs"].get(key, {})
        missing = [name for name in arguments.strategies if name not in done]
        if missing:
            stored["runs"][key] = done | evaluate(make(), seed, missing, CROSSED)
            arguments.output.write_text(json.dumps(stored, indent=1))
    report(stored, arguments.output)
    if arguments.check and (found := shortfalls(stored["runs"])):
        raise SystemExit(f"the check failed: {'; '.join(found)}")


if __name__ == "__main__":
    main()
