"""Tests per second of `associate`'s counting and testing, against a loop over statsmodels on the same data.

`python benchmarks/associate.py` is short; `--rows 100000 --units 100 --concepts 1000 --sample 1000` is the full size;
`--shards 12 --rows 100000 --units 1000 --concepts 500` runs the whole of `associate` on an ImageNet-shaped set of 1.2
million rows kept in shards on disk (6 GB in a temporary folder).
"""

import argparse
import resource
import tempfile
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Value, concatenate_datasets, disable_progress_bars
from datasets.arrow_writer import ArrowWriter
from scipy import sparse
from statsmodels.stats.contingency_tables import StratifiedTable

from hf_midrange import columns
from hf_midrange.association import associate, provenance
from hf_midrange.association.screening import Level, Problem, adjusted, p_by_source, test_all
from hf_midrange.association.sources import Sources
from hf_midrange.association.tables import MINIMUM_ROWS


LEVEL = Level(exact=False)
"""No exact tests: the referee has none, so that both sides do the same work."""


def simulate(rows, units, concepts, density, seed=0, classes=None):
    """Return a problem with sparse concepts and one class per unit, or as many as told."""
    rng = np.random.default_rng(seed)
    classes = classes or units
    ids = rng.integers(0, classes, rows)
    twentieths = rng.integers(0, 20, size=(rows, units), dtype=np.int8)
    bands = np.repeat(np.arange(3, dtype=np.int8), [9, 10, 1])[twentieths]  # 45 % low, 50 % middle, 5 % top
    number = int(rows * concepts * density)
    pairs = (rng.integers(0, rows, number), rng.integers(0, concepts, number))
    present = sparse.csr_matrix((np.ones(number, dtype=bool), pairs), shape=(rows, concepts))
    return Problem(bands, np.arange(rows), ids, present, classes, 3, tuple(range(units)))


def referee(problem, tests):
    """Return p-values and pooled odds ratios of some tests, tables built and tested one by one."""
    dense = {concept: problem.present[:, [concept]].toarray()[:, 0] for concept in {int(c) for _, _, c in tests}}
    start, p = time.perf_counter(), []
    for unit, band, concept in tests:
        inside, has = problem.bands[:, unit] == band, dense[concept]
        cells = np.bincount(problem.ids * 4 + inside * 2 + has, minlength=4 * problem.classes).reshape(-1, 2, 2)
        cells = cells[:, ::-1, ::-1].astype(float)
        for label in range(problem.classes):
            if band == 0 or (band == 1 and label == unit):
                cells[label] = cells[label][:, ::-1]
        p.append(_statsmodels_p(cells, unit))
    return np.array(p), time.perf_counter() - start


def _statsmodels_p(cells, unit):
    """Return the p-value over the sides that `associate` would test too."""
    live = (cells.sum(1) > 0).all(1) & (cells.sum(2) > 0).all(1)
    kept = []
    for side in (np.arange(len(cells)) == unit, np.arange(len(cells)) != unit):
        tables = cells[side & live]
        whole = tables.sum(0)
        plain = tables if len(tables) else np.zeros((0, 2, 2))
        if len(plain) and min(whole.sum(0).min(), whole.sum(1).min()) >= MINIMUM_ROWS:
            kept += list(plain)
    return StratifiedTable(kept).test_null_odds(correction=False).pvalue if kept else np.nan


def compare(options):
    problem = simulate(options.rows, options.units, options.concepts, options.density)
    start = time.perf_counter()
    tested = test_all(problem, list(range(options.units)), LEVEL)
    ours = time.perf_counter() - start
    rng = np.random.default_rng(1)
    sample = np.column_stack([rng.integers(0, size, options.sample) for size in tested.p.shape])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, theirs = referee(problem, sample)
    got = tested.p[tuple(sample.T)]
    assert (np.isnan(got) == np.isnan(expected)).all(), "not the same tests were made"
    error = np.nanmax(np.abs(got - expected))
    assert error < 1e-9, error
    rate, base = tested.p.size / ours, options.sample / theirs
    print(
        f"{options.rows:,} rows x {options.units} units x 3 bands x {options.concepts} concepts: {ours:.1f} s, "
        f"{rate:,.0f} tests/s; statsmodels {base:,.0f} tests/s ({options.sample} tests); ratio {rate / base:,.0f}; "
        f"largest difference {error:.1e}; peak memory {peak_gb():.2f} GB"
    )


def screened(problem, values):
    """Test everything, by source what is discovered if rows are independent, as `associate` does; return how many."""
    tested = test_all(problem, list(range(len(problem.members))), LEVEL)
    chosen = adjusted(tested.p) <= LEVEL.alpha
    if problem.sources is not None:
        for unit in np.flatnonzero(chosen.any(axis=(1, 2))):
            p_by_source(problem, unit, np.argwhere(chosen[unit]), values, LEVEL)
    return int(chosen.sum())


def by_source(options):
    """Print how many times the time of independent rows it takes where rows share sources.

    The screening where nothing is there, and the whole of `associate` where rows of a source are alike in the logits
    and in the concepts: taken for independent they show thousands of findings that are not there.
    """
    problem, rng, values = (
        simulate(options.rows, options.units, options.concepts, options.density),
        np.random.default_rng(2),
        np.zeros(options.rows),
    )
    by_label = np.empty(options.rows, dtype=np.int64)
    by_label[np.argsort(problem.ids, kind="stable")] = np.arange(options.rows)
    base = least(lambda: screened(problem, values))
    for each in (2, 5, 20, 50):
        for name, order in (("one label each", by_label), ("any labels", rng.permutation(options.rows))):
            shared = problem._replace(sources=Sources.of(order // each, problem.ids))
            ratio = least(lambda: screened(shared, values)) / base  # noqa: B023
            print(f"screening, {each} rows a source, {name}: {ratio:.2f} x that of independent rows")
    for each in (5, 20):
        ds = alike(options.rows // each, each)
        plain, shared = (least(lambda: associate(one), 1) for one in (ds.remove_columns("source_id"), ds))  # noqa: B023
        print(f"associate, {each} rows a source that are alike: {shared / plain:.2f} x that of independent rows")


def least(task, rounds=5):
    """Return the least processor time of some runs, in seconds."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        task()
        times.append(time.process_time() - start)
    return min(times)


def alike(number, each, units=5, concepts=50, seed=0):
    """Return rows of which half of each logit's noise, and all concepts, are those of their source."""
    rng = np.random.default_rng(seed)
    source = np.repeat(np.arange(number), each)
    ids, logits = rng.integers(0, units, len(source)), rng.normal(size=(len(source), units))
    logits = logits + rng.normal(size=(number, units))[source]
    logits[np.arange(len(source)), ids] += 2
    present = sparse.csr_matrix((rng.random((number, concepts)) < 0.2)[source])
    names = [f"concept_{i}" for i in range(concepts)]
    features = Features({"label": ClassLabel(num_classes=units), "source_id": Value("int64")})
    ds = Dataset.from_dict({"label": ids, "source_id": source}, features=features)
    added = {
        "logits": (logits.astype(np.float32), columns.vector(units)),
        "concepts_sim": (columns.concept_arrow(present, names), columns.concept_list(names)),
    }
    return columns.with_columns(ds, added)


def growth(options):
    """Print the exponent with which the time grows in rows, units and concepts: from a quarter to the whole, each.

    The number of labels stays.
    """
    full = {"rows": options.rows, "units": options.units, "concepts": options.concepts}
    for name in full:
        sizes, times = (0.25, 0.5, 1.0), []
        for share in sizes:
            size = {key: int(value * share) if key == name else value for key, value in full.items()}
            problem = simulate(**size, density=options.density, classes=options.units)
            rounds = []
            for _ in range(3):
                start = time.perf_counter()
                test_all(problem, list(range(size["units"])), LEVEL)
                rounds.append(time.perf_counter() - start)
            times.append(np.median(rounds))
        exponent = np.polyfit(np.log(sizes), np.log(times), 1)[0]
        shown = ", ".join(f"{t:.2f}" for t in times)
        print(f"growth in {name}: {shown} s at a quarter, a half and all of {full[name]:,}: exponent {exponent:.2f}")


def write_shard(path, options, seed):
    """Write one shard of logits, their bands and concepts; concept k raises unit k for the first ten units."""
    rng = np.random.default_rng(seed)
    rows, units, concepts = options.rows, options.units, options.concepts
    ids = rng.integers(0, units, rows)
    present = sparse.random(rows, concepts, options.density, format="csr", rng=rng).astype(bool)
    logits = rng.standard_normal((rows, units), dtype=np.float32)
    logits[np.arange(rows), ids] += 3
    logits[:, :10] += 1.5 * present[:, :10].toarray().astype(np.float32)
    bands = np.digitize(logits, [0, 3]).astype(np.int8)
    names = [f"concept_{i}" for i in range(concepts)]
    features = {
        "label": ClassLabel(num_classes=units),
        "logits": columns.vector(units),
        "band": columns.vector(units, "int8"),
        "concepts_sim": columns.concept_list(names),
    }
    arrays = [pa.array(ids), *map(columns.vector_arrow, (logits, bands)), columns.concept_arrow(present, names)]
    writer = ArrowWriter(path=str(path), features=Features(features))
    writer.write_table(pa.table(dict(zip(features, arrays, strict=True))))
    writer.finalize()


def sharded(options):
    """Run `associate` on memory-mapped shards; report time and the peak of memory that is not a mapped file."""
    disable_progress_bars()
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{seed}.arrow" for seed in range(options.shards)]
        for seed, path in enumerate(paths):
            write_shard(path, options, seed)
        ds = concatenate_datasets([Dataset.from_file(str(path)) for path in paths])
        with AnonymousMemory() as memory:
            start = time.perf_counter()
            findings = associate(ds)
            took = time.perf_counter() - start
    facts = provenance(findings)
    confounders = {row["concept"] for row in findings if row["confounder"]}
    planted = len(confounders & {f"concept_{i}" for i in range(10)})
    print(
        f"{options.shards} x {options.rows:,} rows x {options.units} units x 3 bands x {options.concepts} concepts: "
        f"{took:.1f} s, {facts['tested']:,} tests, {len(findings)} findings, {planted} of 10 planted confounders and "
        f"{len(confounders) - planted} others; peak memory {memory.peak / 1024**2:.2f} GB above what was there"
    )


class AnonymousMemory:
    """The peak of this process's anonymous memory, in kB, above what it was before."""

    def __enter__(self):
        self.before, self.peak, self.done = self.now(), 0, threading.Event()
        self.watch = threading.Thread(target=self.look)
        self.watch.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        self.watch.join()

    def look(self):
        """Take the peak until told to stop."""
        while not self.done.wait(0.05):
            self.peak = max(self.peak, self.now() - self.before)

    @staticmethod
    def now():
        """Return the anonymous memory, in kB."""
        status = Path("/proc/self/status").read_text()
        return int(status.split("RssAnon:")[1].split()[0])


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--units", type=int, default=10)
    parser.add_argument("--concepts", type=int, default=200)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--sample", type=int, default=300, help="tests given to statsmodels")
    parser.add_argument("--shards", type=int, default=0, help="run on this many shards of --rows instead of comparing")
    options = parser.parse_args()
    if options.shards:
        sharded(options)
    else:
        disable_progress_bars()
        compare(options)
        by_source(options)
        growth(options)


if __name__ == "__main__":
    main()
