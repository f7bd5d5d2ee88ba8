"""Gap closed by every strategy under the same head, on real and simulated tasks with a tie, losers included.

A run is a task, a condition and a seed: an ERM head is fitted to training rows, every strategy curates curation rows
without group labels, `retrain_head` corrects the ERM head, and untied test rows score it. A condition is a tie (the
share of each class against it, `untied`, or `natural`: rows as they are in the data), a number of curation rows, a
share of wrong labels in training and curation rows, and whether the last class is five times rarer there.

Regret is the mean over tasks of best(ERM, true groups) - delivered, tied and untied weighing the same. Gap closed is
pooled: sum of (WGA - ERM) over sum of (oracle - ERM), over runs in which the oracle gains at least .05; the oracle is
the better of the true groups under the same head and DFR's recipe. Intervals are bootstrapped over tasks.

Results go into a JSON file as they come; a finished run is not repeated, and nothing is downloaded: clothes and
reviews need `--data` (an error says where they come from), `--natural` names a folder with files of the user's own
(`tasks/natural.py`). Tasks that took part in no choice of a rule are marked in `tasks/registry.py`.

    python benchmarks/gap.py --profile quick
    python benchmarks/gap.py --tasks real --data fashion=FOLDER reviews=FOLDER --wrong 0 0.1 --output real.json
    python benchmarks/gap.py --tasks natural --natural FOLDER --ties 0.05 untied natural --output natural.json
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
from baselines import BASELINES
from gap_tables import by_condition, by_task, details, pooled, summary, verdicts
from head import dfr
from recipes import RECIPES
from tasks import TASKS, Pool, Run, draw, tasks_named
from tasks.natural import DATA
from tasks.networks import trained
from tasks.pool import untied_share
from tasks.simulator import simulated, skewed_cue

from hf_midrange import columns, curate, curation_report, retrain_head
from hf_midrange.curation import STRATEGIES
from hf_midrange.verdicts import SHOWN, SUSPECTED


ORACLE = "DFR (oracle)"
ACTING = "auto, acting on suspicion"
"""`auto` with `act_on="suspected"`; made together with `auto`."""

MOST_HARM = 0.02
"""Mean loss of worst-group accuracy on untied runs beyond which `--check` fails."""

NAMED = STRATEGIES | BASELINES
ARMS = [name for name in [*NAMED, *RECIPES] if name != "concepts"]
SHOWN_ARMS = ["auto", ACTING, *(name for name in ARMS if name != "auto"), ORACLE]
BY_VIEW = ("view", "PoE (view)", "uLA (view)")
"""What needs a side view."""

AS_IT_IS, UNTIED = "natural", "untied"

Make = Callable[[float, int], Run]
MADE: dict[str, Make] = {f"simulated {c}x{k}": partial(simulated, c, k) for c in (2, 5, 10) for k in (0, 1, 2)}
MADE |= {f"skewed cue {skew}": partial(skewed_cue, skew) for skew in (1.0, 1.5)}
MADE |= {f"networks {i}/{j}": partial(trained, (i, j)) for i, j in ((3, 8), (4, 9))}
"""Runs that are made whole: simulations by number of classes and confounders, and networks trained end to end."""

WITHOUT_TIE = ("x0", "skewed cue")


class Profile(NamedTuple):
    """How much is run unless the options say."""

    tasks: tuple[str, ...]
    ties: tuple[str, ...]
    seeds: tuple[int, ...]


PROFILES = {
    # For CI: a minute or two of one core, half of it for the pool of features of the one task on pictures.
    "quick": Profile((TASKS[0].name, "simulated 2x1", "simulated 2x2", "simulated 5x1"), ("0.05", UNTIED), (0, 1)),
    "full": Profile(("real", *MADE), ("0.02", "0.05", "0.1", "0.25", "0.4", UNTIED), (0, 1, 2)),
}


def evaluate(run: Run, seed: int, strategies: list[str]) -> dict:
    """Return the figures of every strategy in one run."""
    labels, truth = columns.labels(run.curation), contrary_rows(run.curation)
    results = {"ERM": score(run.head, run), "rows": len(labels)}
    for strategy in strategies:
        if strategy in BY_VIEW and not columns.view_columns(run.curation.features):
            continue
        start = time.perf_counter()
        if strategy in RECIPES:
            found = score(RECIPES[strategy](run.curation, run.head, seed), run)
        else:
            options = {"act_on": SUSPECTED} if strategy == "auto" else {}
            curated = curate(run.curation, strategy=BASELINES.get(strategy, strategy), seed=seed, **options)
            found = score(retrain_head(curated, run.head, seed=seed), run) | selected(curated, labels, truth)
        found["seconds"] = round(time.perf_counter() - start, 3)
        results[strategy] = found
        if strategy == "auto":  # a suspicion leaves the head as it is, unless it is acted on
            results |= {ACTING: found, "auto": found if found["verdict"] == SHOWN else found | results["ERM"]}
        if strategy == "group":
            results[ORACLE] = score(dfr(run.curation, run.head), run)
    return results


def contrary_rows(curation: datasets.Dataset) -> np.ndarray:
    """Return rows outside the most common group of their class, `(n,)` bool: by construction those against the tie.

    The group tells the true class, which `label` may not.
    """
    groups = columns.labels(curation, columns.GROUP)
    classes = len(columns.class_label(curation.features).names)
    parts = len(columns.class_label(curation.features, columns.GROUP).names) // classes
    counts = np.bincount(groups, minlength=classes * parts)
    return counts[groups] < counts.reshape(classes, parts).max(axis=1)[groups // parts]


def selected(curated: datasets.Dataset, labels: np.ndarray, truth: np.ndarray) -> dict:
    """Return verdict, detection of rows against the tie, and their share of the weight (mean over classes)."""
    names = columns.class_label(curated.features, columns.PSEUDO_GROUP).names
    marked = [any(word in name for word in (", like ", "misclassified", "high loss")) for name in names]
    found = np.array(marked)[columns.labels(curated, columns.PSEUDO_GROUP)]
    weight = np.array(curated[columns.WEIGHT])
    shares = [weight[truth & (labels == k)].sum() / weight[labels == k].sum() for k in np.unique(labels)]
    return {
        "verdict": curation_report(curated)["verdict"],
        "precision": float(truth[found].mean()) if found.any() and truth.any() else None,
        "recall": float(found[truth].mean()) if found.any() and truth.any() else None,
        "contrary_weight": round(float(np.mean(shares)), 4),
    }


def score(head: Callable, run: Run) -> dict:
    """Return the scores of a `LinearHead`, or of a function from embeddings to predictions."""
    predictions = head(run.embedding)
    right = (predictions if isinstance(predictions, np.ndarray) else predictions.argmax(dim=1).numpy()) == run.labels
    worst = min(float(right[run.groups == group].mean()) for group in np.unique(run.groups))
    return {"wga": round(worst, 4), "mean": round(float(right.mean()), 4)}


def grid(arguments: argparse.Namespace) -> Iterator[tuple[str, int, Callable[[], Run]]]:
    """Yield key, seed, and how to draw each run. Missing data are told of before the first run."""
    tasks = [task for name in arguments.tasks if name not in MADE for task in tasks_named(name)]
    pools = {task.name: Pool.of(task, arguments.data.get(task.data), arguments.cache) for task in tasks}
    conditions = list(product(arguments.ties, arguments.rows, arguments.wrong, arguments.rare))
    for task, (tie, rows, wrong, rare), seed in product(tasks, conditions, arguments.seeds):
        pool = pools[task.name]
        untied = untied_share(pool)
        if (untied == 0 and tie != UNTIED) or (tie == AS_IT_IS and task.data != DATA):
            continue
        share = {UNTIED: untied, AS_IT_IS: None}[tie] if tie in (UNTIED, AS_IT_IS) else float(tie)
        make = partial(draw, pool, share, seed, rows, wrong, rare)
        yield f"{task.name}|{condition(tie, rows, wrong, rare)}|{seed}", seed, make
    for name, tie, seed in product(
        [name for name in arguments.tasks if name in MADE], arguments.ties, arguments.seeds
    ):
        if tie != AS_IT_IS and (tie == UNTIED or not any(word in name for word in WITHOUT_TIE)):
            classes = int(name.split()[1].split("x")[0]) if "x" in name else 2
            share = 1 - 1 / classes if tie == UNTIED else float(tie)
            yield f"{name}|{condition(tie)}|{seed}", seed, partial(MADE[name], share, seed)


def condition(tie: str, rows: int | None = None, wrong: float = 0.0, rare: bool = False) -> str:
    """Return "5%, 200 rows, 10% wrong labels, rare class"."""
    parts = [tie if tie in (UNTIED, AS_IT_IS) else f"{float(tie):.0%}", f"{rows} rows" if rows else ""]
    parts += [f"{wrong:.0%} wrong labels" if wrong else "", "rare class" if rare else ""]
    return ", ".join(filter(None, parts))


def commit() -> str:
    """Return the commit of the code at hand, marked if files were changed since."""
    shown = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True)
    return shown.stdout.strip() or "unknown"


def shortfalls(runs: dict) -> list[str]:
    """Return in words where `auto` fails: to close more of the gap than balanced classes, to do no harm untied."""
    sides = {side: [run for key, run in runs.items() if (UNTIED in key) == side] for side in (True, False)}
    untied = [run["auto"]["wga"] - run["ERM"]["wga"] for run in sides[True]]
    found, closed, control = [], pooled(sides[False], "auto"), pooled(sides[False], "class-balanced")
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


def report(stored: dict, path: Path) -> None:
    """Print the tables, and write them beside the JSON file."""
    runs = stored["runs"]
    present = [name for name in SHOWN_ARMS if all(name in run for run in runs.values())]
    if not {"auto", "group"} <= {*present}:
        print("no tables: they compare with `auto` and `group`, which were not run")
        return
    parts = [f"Made from commit {stored['commit']}, {len(runs)} runs.", summary(runs, ["ERM", *present])]
    parts += ["Gap closed by condition, pooled; change of the worst group where untied:", by_condition(runs, present)]
    parts += ["Verdicts of `auto`:", verdicts(runs)]
    for name in sorted({key.split("|")[1] for key in runs}):
        if name in ("5%", AS_IT_IS, UNTIED):
            parts += [f"Worst-group accuracy by task, {name}:", by_task(runs, present, name)]
        if name == "5%":
            parts += ["Of these:", details(runs, present, name)]
    text = "\n\n".join(parts)
    path.with_suffix(".md").write_text(text + "\n")
    print(text)


def _made(job: tuple[str, int, Callable[[], Run], list[str]]) -> tuple[str, dict]:
    key, seed, make, strategies = job
    return key, evaluate(make(), seed, strategies)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=list(PROFILES), default="quick")
    parser.add_argument(
        "--tasks", nargs="+", help="names of tasks, or real, natural, plain; the profile's if not given"
    )
    parser.add_argument("--ties", nargs="+", help="shares against the tie, 'untied' or 'natural'")
    parser.add_argument("--rows", type=int, nargs="+", default=[None], help="curation rows per two classes")
    parser.add_argument("--wrong", type=float, nargs="+", default=[0.0], help="shares of wrong labels in given rows")
    parser.add_argument("--rare", type=int, nargs="+", default=[0], choices=[0, 1], help="1: the last class is rare")
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--strategies", nargs="+", default=ARMS, choices=[*NAMED, *RECIPES])
    parser.add_argument("--natural", type=Path, metavar="FOLDER", help="parquet files of real data (tasks/natural.py)")
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=FOLDER", help="fashion=, reviews=")
    parser.add_argument("--cache", type=Path, default=Path("outputs/gap"), help="where pools of features are kept")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("gap.json"))
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 if auto closes no more than class-balanced, or harms untied"
    )
    arguments = parser.parse_args()
    for name, value in PROFILES[arguments.profile]._asdict().items():
        setattr(arguments, name, getattr(arguments, name) or value)
    datasets.disable_progress_bars()
    arguments.data = {name: Path(folder) for name, folder in (entry.split("=", 1) for entry in arguments.data)}
    arguments.data |= {DATA: arguments.natural} if arguments.natural else {}
    stored = {"commit": commit(), "runs": {}}
    if arguments.output.exists():
        stored = json.loads(arguments.output.read_text())
    jobs = []
    for key, seed, make in grid(arguments):
        missing = [name for name in arguments.strategies if name not in stored["runs"].get(key, {})]
        jobs += [(key, seed, make, missing)] if missing else []
    many = arguments.processes > 1
    for key, found in (get_context("fork").Pool(arguments.processes).imap_unordered if many else map)(_made, jobs):
        stored["runs"][key] = stored["runs"].get(key, {}) | found
        lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(run)}" for name, run in stored["runs"].items())
        arguments.output.write_text(f'{{"commit": {json.dumps(stored["commit"])}, "runs": {{\n{lines}\n}}}}\n')
    report(stored, arguments.output)
    if arguments.check and (found := shortfalls(stored["runs"])):
        raise SystemExit(f"the check failed: {'; '.join(found)}")


if __name__ == "__main__":
    main()
