"""Values per second of fitting bands, in blocks of units and on a stream, against numpy in memory on the same data.

`python benchmarks/bands.py` is short; `--rows 1200000 --units 1000` has the shape of ImageNet's training set and keeps
4.8 GB of logits in a temporary folder.
"""

import argparse
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features
from datasets.arrow_writer import ArrowWriter

from hf_midrange import columns
from hf_midrange.bands import LogitBands
from hf_midrange.io.blocks import MOST_ROWS


def simulate(folder, rows, units, seed=0):
    """Return a memory-mapped dataset of normal logits, a class's own higher by 3."""
    rng = np.random.default_rng(seed)
    features = Features(
        {"label": ClassLabel(names=[f"c{k}" for k in range(units)]), columns.LOGITS: columns.vector(units)}
    )
    path = str(Path(folder) / "rows.arrow")
    with ArrowWriter(path=path, features=features) as writer:
        for first in range(0, rows, 20_000):
            ids = np.arange(first, min(first + 20_000, rows)) % units
            logits = rng.standard_normal((len(ids), units), dtype=np.float32)
            logits[np.arange(len(ids)), ids] += 3
            table = pa.table({"label": ids, columns.LOGITS: columns.vector_arrow(logits)})
            writer.write_table(table.cast(features.arrow_schema))
    return Dataset.from_file(path)


def numpy_cuts(values, ids):
    """Return the medians of strangers and members of each unit: what bands cost at the least."""
    found = []
    for k in range(values.shape[1]):
        unit, member = values[:, k].astype(np.float64), ids == k
        found.append((np.median(unit[~member]), np.median(unit[member])))
    return np.array(found)


class Measured:
    """Seconds taken, and the peak of memory that is no mapped file, in MB above what was there."""

    def __enter__(self):
        self.before, self.peak, self.done = anonymous(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.start
        self.done.set()
        self.thread.join()

    def watch(self):
        """Take the peak until told to stop."""
        while not self.done.wait(0.02):
            self.peak = max(self.peak, anonymous() - self.before)


def anonymous():
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def main(rows, units):
    with tempfile.TemporaryDirectory() as folder:
        ds = simulate(folder, rows, units)
        found = {}
        for name, fit in {
            "exact, in blocks": lambda: LogitBands().fit(ds),
            "stream, one pass": lambda: LogitBands().fit(ds.to_iterable_dataset()),
        }.items():
            with Measured() as measured:
                found[name] = np.array([unit.cuts for unit in fit().fitted])
            rate = rows * units / measured.seconds
            print(
                f"{name}: {rows:,} x {units:,} in {measured.seconds:.1f} s, {rate / 1e6:.1f} million values a second "
                f"({1.2e9 / rate:.0f} s for 1.2 million x 1,000), {measured.peak:.0f} MB"
            )
        some = min(rows * units, 20_000_000) // units
        part = ds.select(range(some))
        values, ids = columns.matrix(part, columns.LOGITS), columns.labels(part)
        with Measured() as measured:
            numpy_cuts(values, ids)
        rate = some * units / measured.seconds / 1e6
        print(f"numpy, medians only, {some:,} rows in memory: {rate:.1f} million a second")
        check(ds, found, min(units, 5))


def check(ds, found, units):
    """Compare the cuts with numpy, exactly and by rank, on the first units."""
    ids, worst = columns.labels(ds), 0.0
    for k in range(units):
        unit = columns.some_units(ds, columns.LOGITS, [k])[:, 0].astype(np.float64)
        strangers = np.sort(unit[ids != k])
        assert found["exact, in blocks"][k].tolist() == [np.median(strangers), np.median(unit[ids == k])]
        rank = np.searchsorted(strangers, found["stream, one pass"][k, 0]) / len(strangers)
        worst = max(worst, abs(rank - 0.5))
    print(f"exact cuts equal numpy's; ranks of those of {MOST_ROWS:,} rows of a stream are off by {worst:.6f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--units", type=int, default=50)
    main(**vars(parser.parse_args()))
