"""Tests per second of `associate`'s counting and testing, against a loop over statsmodels on the same data.

`python benchmarks/associate.py` is short; `--rows 100000 --units 100 --concepts 1000` is the full size;
`--shards 12 --rows 100000 --units 1000 --concepts 500` counts an ImageNet-shaped set shard by shard, unit by unit.
"""

import argparse
import resource
import time
import warnings

import numpy as np
from scipy import sparse
from statsmodels.stats.contingency_tables import StratifiedTable

from hf_midrange.association.counting import UnitCounts, count_unit, occurrences
from hf_midrange.association.sides import enough_rows, orient, testable_sides
from hf_midrange.association.testing import Options, Problem, p_values, test_all


OPTIONS = Options(alpha=0.05, method="bh", least=5, exact_below=0.0)
"""No exact tests: the referee has none, so that both sides do the same work."""


def simulate(rows, units, concepts, density, seed=0, only_units=None):
    """Return a problem with one class per unit and sparse concepts; bands of the first units only, where told."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, units, rows)
    twentieths = rng.integers(0, 20, size=(rows, only_units or units), dtype=np.int8)
    bands = np.repeat(np.arange(3, dtype=np.int8), [9, 10, 1])[twentieths]  # 45 % low, 50 % middle, 5 % top
    number = int(rows * concepts * density)
    pairs = (rng.integers(0, rows, number), rng.integers(0, concepts, number))
    present = sparse.csr_matrix((np.ones(number, dtype=bool), pairs), shape=(rows, concepts))
    return Problem(bands, ids, present, units, 3, tuple(range(units)))


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
        if len(plain) and min(whole.sum(0).min(), whole.sum(1).min()) >= OPTIONS.least:
            kept += list(plain)
    return StratifiedTable(kept).test_null_odds(correction=False).pvalue if kept else np.nan


def compare(options):
    problem = simulate(options.rows, options.units, options.concepts, options.density)
    start = time.perf_counter()
    tested = test_all(problem, list(range(options.units)), OPTIONS)
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


def growth(options):
    """Print how the time grows when rows, units and concepts are doubled, one at a time."""
    base = {"rows": options.rows // 2, "units": options.units // 2, "concepts": options.concepts // 2}
    for name in (None, *base):
        size = {key: value * (2 if key == name else 1) for key, value in base.items()}
        problem = simulate(**size, density=options.density)
        start = time.perf_counter()
        test_all(problem, list(range(size["units"])), OPTIONS)
        print(f"growth: {size}: {time.perf_counter() - start:.2f} s")


def sharded(options):
    """Count every unit over shards and test it, keeping one unit's counts and the shards' bands at a time."""
    start = time.perf_counter()
    shards = [
        simulate(options.rows, options.units, options.concepts, options.density, seed, options.only_units)
        for seed in range(options.shards)
    ]
    found = [occurrences(shard.present, shard.ids, shard.classes) for shard in shards]
    whole = found[0]._replace(with_concept=sum(part.with_concept for part in found))
    made = time.perf_counter() - start
    start, tests = time.perf_counter(), 0
    for unit in range(options.units)[: options.only_units]:
        parts = [count_unit(shard.bands[:, unit], part, 3) for shard, part in zip(shards, found, strict=True)]
        counts = UnitCounts(sum(part.a for part in parts), sum(part.in_band for part in parts))
        for band in range(3):
            tables = counts.tables(band, whole)
            sides = testable_sides(tables, unit, OPTIONS.least)
            tests += int(enough_rows(tables, OPTIONS.least).sum())
            p_values(orient(tables, unit, band, 2).kept(sides.both()), OPTIONS)
    took = time.perf_counter() - start
    units = min(options.units, options.only_units or options.units)
    print(
        f"{options.shards} x {options.rows:,} rows x {options.concepts} concepts, {options.units} classes: "
        f"{units} units in {took:.1f} s ({took / units:.2f} s a unit, {tests:,} tests); simulating took {made:.0f} s; "
        f"peak memory {peak_gb():.2f} GB"
    )


def peak_gb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--units", type=int, default=10)
    parser.add_argument("--concepts", type=int, default=200)
    parser.add_argument("--density", type=float, default=0.01)
    parser.add_argument("--sample", type=int, default=300, help="tests given to statsmodels")
    parser.add_argument("--shards", type=int, default=0, help="simulate this many shards instead of comparing")
    parser.add_argument("--only-units", type=int, help="with --shards: time the first units only")
    options = parser.parse_args()
    if options.shards:
        sharded(options)
    else:
        compare(options)
        growth(options)


if __name__ == "__main__":
    main()
