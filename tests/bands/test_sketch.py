"""Fitting in bounded memory: streams, shards and sketches merged across processes."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from datasets import Features
from hypothesis import given, settings
from hypothesis import strategies as st
from support.banded_rows import dataset, rows

import hf_midrange.bands.reading as reading
from hf_midrange import columns
from hf_midrange.bands import BandSketch, LogitBands, read_shards
from hf_midrange.bands.sketch import KEPT, RANK_ERROR


NAMES = ["c0", "c1", "c2"]
RULES = ["class-relative", "quantile", "range", "std", "edges"]


def bands(rule):
    return LogitBands(rule, (0.0, 1.5) if rule == "edges" else None)


def values_and_ids(n, seed=0, classes=3):
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(n) % classes)
    values = rng.standard_normal((n, classes)).astype(np.float32)
    values[np.arange(n), ids] += 2
    return values, ids


@pytest.mark.parametrize("rule", RULES)
def test_few_rows_are_fitted_as_in_memory(rule):
    values, ids = values_and_ids(KEPT)
    sketch = BandSketch(NAMES)
    for part in np.split(np.arange(KEPT), [1, 1000, 5000]):
        sketch.update(values[part], ids[part])
    assert bands(rule).fit_sketch(sketch) == bands(rule).fit(dataset(values, ids, NAMES))


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 1000), st.lists(st.integers(0, 200), max_size=5), st.permutations(range(6)), st.sampled_from(RULES)
)
def test_sharding_and_merge_order_do_not_matter(seed, cuts, order, rule):
    values, ids = values_and_ids(200, seed)
    parts = np.split(np.arange(200), sorted(cuts))
    sketches = []
    for part in parts:
        sketches.append(BandSketch(NAMES))
        sketches[-1].update(values[part], ids[part])
    first, *others = [sketches[i] for i in order if i < len(sketches)]
    for other in others:
        first.merge(BandSketch.from_bytes(other.to_bytes()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert bands(rule).fit_sketch(first) == bands(rule).fit(dataset(values, ids, NAMES))


@pytest.fixture(scope="module")
def million():
    """Values and ids of a million rows, their sketch, and that of five parts merged."""
    values, ids = values_and_ids(1_000_000, classes=2)
    values[:, 1] = np.round(values[:, 1], 1)
    whole, parts = BandSketch(NAMES[:2]), [BandSketch(NAMES[:2]) for _ in range(5)]
    for number, part in enumerate(np.array_split(np.arange(len(ids)), 50)):
        whole.update(values[part], ids[part])
        parts[number % 5].update(values[part], ids[part])
    for part in parts[1:]:
        parts[0].merge(BandSketch.from_bytes(part.to_bytes()))
    return values, ids, (whole, parts[0])


@pytest.mark.parametrize("merged", [0, 1])
def test_medians_and_knots_of_a_million_rows_are_within_the_bound(million, merged):
    values, ids, sketches = million
    for k, unit in enumerate(LogitBands().fit_sketch(sketches[merged]).fitted):
        assert_ranks(values[ids != k, k], unit.typical[:1], 0.5)
        assert_ranks(values[ids == k, k], unit.typical[1:], 0.5)
        assert_ranks(values[:, k], unit.knots, (np.arange(512) + 0.5) / 512)


@pytest.mark.parametrize("merged", [0, 1])
def test_cuts_of_a_million_rows_are_within_the_bound(million, merged):
    values, _, sketches = million
    deciles = LogitBands("quantile", n_bands=10).fit_sketch(sketches[merged])
    deviations = LogitBands("std", (0.0, 1.0)).fit_sketch(sketches[merged])
    for k in range(2):
        assert_ranks(values[:, k], deciles.fitted[k].cuts, np.arange(1, 10) / 10)
        exact = values[:, k].astype(np.float64)
        assert deviations.fitted[k].cuts == pytest.approx((exact.mean(), exact.mean() + exact.std()), rel=1e-12)


def assert_ranks(values, found, ranks):
    """A tied value has all ranks between the rows below it and the rows not above it."""
    ordered = np.sort(values.astype(np.float64))
    below, upto = (np.searchsorted(ordered, found, side) / len(ordered) for side in ("left", "right"))
    assert np.all((below - RANK_ERROR <= ranks) & (ranks <= upto + RANK_ERROR))


def test_a_tiny_class_in_a_long_stream_keeps_its_exact_median():
    values, ids = values_and_ids(30_000, classes=2)
    ids[:] = 0
    ids[[5, 77, 20_000]] = 1
    values[ids == 1, 1] += 4
    sketch = BandSketch(["usual", "rare"])
    sketch.update(values[:15_000], ids[:15_000])
    sketch.update(values[15_000:], ids[15_000:])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        rare = LogitBands(edges=(0.5,)).fit_sketch(sketch)
    assert rare.fitted[1].typical[1] == np.median(values[ids == 1, 1])


def test_memorised_rows_are_told_from_merged_sketches():
    left, right = BandSketch(NAMES), BandSketch(NAMES)
    for number, sketch in enumerate((left, right)):
        values, ids = values_and_ids(60, number)
        values[np.arange(60), ids] += 20
        sketch.update(values, ids)
    left.merge(BandSketch.from_bytes(right.to_bytes()))
    with pytest.warns(UserWarning, match="memorised"):
        LogitBands().fit_sketch(left)


def test_memory_does_not_grow_with_rows():
    sketch, sizes = BandSketch(["a"]), []
    rng = np.random.default_rng(0)
    for rows_so_far in (100_000, 2_000_000):
        while sketch.rows < rows_so_far:
            sketch.update(rng.standard_normal((100_000, 1)))
        sizes.append(len(sketch.to_bytes()))
    assert sizes[1] < 1.3 * sizes[0] < 0.5 * 8 * 100_000


def test_a_stream_is_fitted_batch_by_batch(monkeypatch):
    values, ids = values_and_ids(3000)
    ds = dataset(values, ids, NAMES)
    monkeypatch.setattr(reading, "BATCH_VALUES", 900)
    seen = []
    update = BandSketch.update
    monkeypatch.setattr(BandSketch, "update", lambda self, v, i=None: (seen.append(len(v)), update(self, v, i))[1])
    for rule in RULES:
        assert bands(rule).fit(ds.to_iterable_dataset(num_shards=3)) == bands(rule).fit(ds)
    assert max(seen) <= 300
    with pytest.raises(ValueError, match="no rows"):
        LogitBands().fit(ds.to_iterable_dataset().filter(lambda row: False))
    bad = values.copy()
    bad[1234, 0] = np.inf
    with pytest.raises(ValueError, match="1234"):
        LogitBands("std").fit(dataset(bad, ids, NAMES).to_iterable_dataset())
    with pytest.raises(KeyError, match="embedding"):
        LogitBands("std", units="embedding").fit(ds.to_iterable_dataset())
    with pytest.raises(ValueError, match="not a stream"):
        LogitBands("auto").fit(ds.to_iterable_dataset())


PROCESS = """
import sys
from pathlib import Path
from datasets import load_from_disk
from hf_midrange.bands import LogitBands
part = load_from_disk(sys.argv[1]).shard(2, int(sys.argv[2]))
Path(sys.argv[3]).write_bytes(LogitBands().sketch(part).to_bytes())
"""


def test_processes_sketch_their_part_and_one_fits_the_whole(tmp_path):
    ds = rows(n=1001)
    ds.save_to_disk(tmp_path / "rows")
    paths = [tmp_path / f"part-{i}" for i in range(2)]
    running = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(tmp_path / "rows"), str(i), str(path)])
        for i, path in enumerate(paths)
    ]
    assert [process.wait(timeout=120) for process in running] == [0, 0]
    left, right = (BandSketch.from_bytes(path.read_bytes()) for path in paths)
    left.merge(right)
    assert LogitBands().fit_sketch(left) == LogitBands().fit(ds)


def test_sketches_refuse_what_does_not_belong_together():
    sketch = BandSketch(NAMES)
    with pytest.raises(ValueError, match="no rows"):
        LogitBands("std").fit_sketch(sketch)
    with pytest.raises(ValueError, match=r"\(n, 3\)"):
        sketch.update(np.zeros((2, 4)))
    with pytest.raises(ValueError, match="NaN or infinite"):
        sketch.update([[0.0, np.nan, 1.0]])
    with pytest.raises(ValueError, match="ids must be in 0..2"):
        sketch.update(np.zeros((1, 3)), [3])
    with pytest.raises(ValueError, match="one for each row"):
        sketch.update(np.zeros((2, 3)), [1])
    sketch.update(np.eye(3))
    with pytest.raises(ValueError, match="without class ids"):
        sketch.update(np.zeros((1, 3)), [1])
    with pytest.raises(ValueError, match="needs class ids"):
        LogitBands().fit_sketch(sketch)
    with pytest.raises(ValueError, match="different units"):
        sketch.merge(BandSketch(["a", "b", "c"]))
    with pytest.raises(ValueError, match="not a sketch"):
        LogitBands("auto").fit_sketch(sketch)
    labelled = BandSketch(NAMES)
    labelled.update(np.eye(3)[:2], [0, 1])
    with pytest.raises(ValueError, match=r"'c2' \(0 rows\)"):
        LogitBands().fit_sketch(labelled)
    with pytest.raises(ValueError, match="class ids"):
        sketch.merge(labelled)
    content = labelled.to_bytes()
    for bad in (b"", b"nonsense", content[:-7], content[: len(content) // 2]):
        with pytest.raises(ValueError, match="BandSketch"):
            BandSketch.from_bytes(bad)


def test_an_untouched_sketch_merges_as_nothing():
    full, empty = BandSketch(NAMES), BandSketch(NAMES)
    full.update(*values_and_ids(50))
    empty.merge(BandSketch.from_bytes(empty.to_bytes()))
    empty.merge(full)
    full.merge(BandSketch(NAMES))
    assert LogitBands().fit_sketch(full) == LogitBands().fit_sketch(empty)


def test_the_shards_of_an_extraction_are_fitted_where_they_lie(tmp_path):
    from hf_midrange.extraction.shards import Shard, ShardFolder

    ds = rows(n=50)
    logits = columns.matrix(ds, "logits")
    features = Features(
        {"embedding": columns.vector(4), "logits": columns.vector(3), "prediction": ds.features["label"]}
    )
    folder = ShardFolder(tmp_path, features)
    embedding = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    broken = logits.copy()
    broken[7] = np.nan
    for number, first in enumerate((0, 20, 40)):
        part = slice(first, min(first + 20, 50))
        unreadable = {7: "no image"} if not number else {}
        folder.write(Shard(number, first, embedding[part], broken[part], unreadable))
    kept = [i for i in range(50) if i != 7]
    unnamed = ds.select(kept).remove_columns("label")
    assert LogitBands("quantile").fit(tmp_path) == LogitBands("quantile").fit(unnamed)
    assert LogitBands().fit(read_shards(tmp_path, ds)) == LogitBands().fit(ds.select(kept))
    with pytest.raises(ValueError, match="read_shards"):
        LogitBands().fit(tmp_path)
    with pytest.raises(ValueError, match="hold 50 rows but the dataset has 49"):
        read_shards(tmp_path, ds.select(kept))
    (tmp_path / "shard-000001.json").unlink()
    with pytest.raises(FileNotFoundError, match="no finished shard 1"):
        read_shards(tmp_path)
    with pytest.raises(FileNotFoundError, match="no finished shard 0"):
        read_shards(tmp_path / "elsewhere")
