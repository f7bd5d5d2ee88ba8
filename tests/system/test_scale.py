"""Memory does not grow with the rows: columns read in blocks say what they say in memory, and peaks stay flat."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Value
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from support.wide_rows import tied_rows

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.curation import STRATEGIES
from hf_midrange.io import blocks as reading
from hf_midrange.io.blocks import (
    Entries,
    Presence,
    blocks,
    concept_table,
    discovery_half,
    finite_vectors,
    some_rows,
    varies,
)


@pytest.fixture
def in_blocks(monkeypatch):
    """Every column is read in blocks of about a hundred rows, whatever its size."""
    monkeypatch.setattr(reading, "HELD", 0)
    monkeypatch.setattr(reading, "BLOCK_BYTES", 5000)


# Columns in blocks


@pytest.mark.usefixtures("in_blocks")
@given(rows=st.lists(st.integers(0, 299), min_size=1, max_size=40), cut=st.integers(0, 300))
def test_vectors_are_indexed_like_the_array_they_stand_for(rows, cut):
    ds = tied_rows(300).select(range(300))
    whole, found = columns.matrix(ds, "embedding"), finite_vectors(ds, "embedding")
    assert isinstance(found, reading.Vectors)
    assert (found.shape, found.dtype, len(found)) == (whole.shape, whole.dtype, len(whole))
    mask = np.zeros(300, dtype=bool)
    mask[rows] = True
    for index in (np.array(rows), mask, slice(cut, None), slice(None, cut), slice(None)):
        np.testing.assert_array_equal(found[index], whole[index])
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks(found)]), whole)
    assert [first for first, _ in blocks(found)] == list(range(0, 300, 5000 // (12 * 4)))


@pytest.mark.usefixtures("in_blocks")
def test_vectors_of_selected_rows_and_what_they_refuse():
    ds = tied_rows(300)
    chosen = np.random.default_rng(0).permutation(300)[:150]
    np.testing.assert_array_equal(
        finite_vectors(ds.select(chosen), "embedding")[:], columns.matrix(ds, "embedding")[chosen]
    )
    values = columns.matrix(ds, "embedding").copy()
    values[[7, 250, 251], 3] = np.nan, np.inf, np.nan
    broken = columns.with_columns(ds, {"embedding": (values, columns.vector(12))})
    with pytest.raises(ValueError, match=r"infinite values in 3 rows \(first rows: \[7, 250, 251\]\)"):
        finite_vectors(broken, "embedding")
    with pytest.raises(KeyError, match="no column"):
        finite_vectors(ds, "nothing")
    lists = Dataset.from_dict({"v": [[1.0, 2.0]] * 200 + [[1.0]] * 200})
    with pytest.raises(ValueError, match="values in row"):
        finite_vectors(lists, "v")


@given(st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=20))
def test_presence_is_the_dense_table(rows):
    table = sparse.csr_matrix(np.array(rows, dtype=bool))
    dense, found = table.toarray().astype(np.float64), Presence(table)
    for index in (slice(1, 4), np.arange(len(rows))[::2], np.ones(len(rows), dtype=bool)):
        np.testing.assert_array_equal(found[index], dense[index])
    assert varies(found) == varies(dense) == bool(np.ptp(dense, axis=0).any())
    np.testing.assert_array_equal(concept_table(table), dense)


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=6).filter(sum),
    most=st.integers(1, 60),
    seed=st.integers(0, 5),
    weighted=st.booleans(),
)
def test_rows_are_drawn_from_every_stratum(counts, most, seed, weighted):
    strata = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    shares = np.arange(1.0, len(counts) + 1) if weighted else None
    shares = None if shares is None else shares[: strata.max() + 1]
    rows = some_rows(strata, most, seed, shares)
    assert len(np.unique(rows)) == len(rows)
    assert (np.diff(rows) > 0).all()
    np.testing.assert_array_equal(rows, some_rows(strata, most, seed, shares))
    drawn = np.bincount(strata[rows], minlength=len(counts))
    assert ((drawn > 0) == (np.array(counts) > 0)).all()
    assert len(rows) <= max(most, 0) + len(counts)
    assert len(rows) >= min(most, len(strata)) - len(counts)
    if len(strata) > most and not weighted:
        expected = most * np.array(counts) / sum(counts)
        assert (np.abs(drawn - expected) <= 1 + 1e-9).all()


@given(units=st.lists(st.integers(0, 4), min_size=1, max_size=12), megabytes=st.sampled_from(["1", "400"]))
def test_entries_are_the_columns_of_the_matrix(units, megabytes, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(reading.WORKING_SET, megabytes)
        if megabytes == "1":
            patch.setattr("hf_midrange.io.blocks.working_set", lambda: 4 * 2 * 300 * 2)  # two units at a time
        ds = tied_rows(300, classes=5)
        whole, entries = columns.matrix(ds, "logits"), Entries(ds, "logits")
        for unit in units:
            np.testing.assert_array_equal(entries[:, unit], whole[:, unit])
        np.testing.assert_array_equal(entries.highest(), whole.max(axis=0))


@pytest.mark.parametrize("text", ["none", "0", "-3", "nan"])
def test_a_working_set_is_a_positive_number(text, monkeypatch):
    monkeypatch.setenv(reading.WORKING_SET, text)
    with pytest.raises(ValueError, match="HF_MIDRANGE_WORKING_SET must be a number of megabytes"):
        reading.working_set()
    monkeypatch.setenv(reading.WORKING_SET, "2.5")
    assert reading.working_set() == 2_500_000


# Steps say the same


def told(curated):
    names = ("pseudo_group", "keep", "weight", "reason")
    return {name: curated[name][:] for name in names}, hm.curation_report(curated)


@pytest.mark.parametrize("strategy", ["auto", "view", "confounder-head"])
def test_curation_in_blocks_is_curation_in_memory(strategy, in_blocks, request):
    assert strategy in STRATEGIES
    ds = tied_rows(3000, classes=3)
    found = told(hm.curate(ds, strategy=strategy))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "HELD", 64_000_000)
        expected = told(hm.curate(ds, strategy=strategy))
    assert found == expected


def test_findings_do_not_depend_on_the_working_set(monkeypatch):
    ds = tied_rows(2000, classes=4)
    expected = hm.associate(ds).to_pandas()
    monkeypatch.setattr("hf_midrange.io.blocks.working_set", lambda: 2000)  # a unit at a time
    monkeypatch.setattr("hf_midrange.bands.fitting.working_set", lambda: 2000)
    monkeypatch.setattr(columns, "ROWS_OF_LISTS", 300)
    pd.testing.assert_frame_equal(hm.associate(ds).to_pandas(), expected, check_exact=True)


def test_concepts_are_fitted_to_rows_drawn_from_every_class_and_read_from_all(monkeypatch):
    labels = np.array([0] * 900 + [1] * 100)
    texts = [f"{'red' if row % 3 else 'blue'} thing" for row in range(1000)]
    ds = Dataset.from_dict({"text": texts, "label": labels})
    ds = ds.cast_column("label", ClassLabel(names=["a", "b"]))
    monkeypatch.setattr("hf_midrange.concepts.annotation.MOST_ROWS", 200)
    seen, learn = [], hm.NGrams.learn
    monkeypatch.setattr(hm.NGrams, "learn", lambda self, rows: (seen.append(rows["label"][:]), learn(self, rows))[1])
    found = hm.annotate(ds, [hm.NGrams("text")])
    assert [np.bincount(drawn).tolist() for drawn in seen] == [[180, 20]]
    words = columns.vocabulary(found.features, "concepts_ngrams")
    present = columns.presence(found, "concepts_ngrams")[:, words.index("red")].toarray()[:, 0]
    assert present.tolist() == ["red" in text for text in texts]


def test_clusters_look_at_rows_of_the_discovery_half_alone(monkeypatch):
    ds = tied_rows(2000)
    ds = hm.LogitBands().fit(ds).transform(ds)
    half = discovery_half(columns.labels(ds), None, 0)
    monkeypatch.setattr("hf_midrange.concepts.latent.MOST_ROWS", 600)
    fitted = hm.LatentConcepts(k=2).fit(ds)
    embedding = columns.matrix(ds, "embedding").copy()
    embedding[~half] += 100.0
    moved = columns.with_columns(ds, {"embedding": (embedding, ds.features["embedding"])})
    assert hm.LatentConcepts(k=2).fit(moved) == fitted


def weighted(count, **sizes):
    ds = tied_rows(count, **sizes)
    labels, contrary = columns.labels(ds), np.arange(count) % 10 == 0
    cells = 2 * labels + contrary
    return columns.with_columns(
        ds,
        {
            "pseudo_group": (cells, ClassLabel(num_classes=int(cells.max()) + 1)),
            "weight": (np.where(contrary, 5.0, 0.5).astype(np.float32), Value("float32")),
        },
    )


def objective(head, ds, strength=0.04 / 2):
    """Return the problem's value at a head, written down a second time."""
    x, y = columns.matrix(ds, "embedding").astype(np.float64), columns.labels(ds)
    w = np.asarray(ds["weight"][:], dtype=np.float64)
    deviation = x.std(axis=0)
    clipped = np.clip((x - x.mean(axis=0)) / deviation, -4, 4)
    raw = head.weight.double().numpy()
    weight = raw * deviation
    logits = torch.as_tensor(clipped @ weight.T + head.bias.double().numpy() + raw @ x.mean(axis=0))
    losses = torch.nn.functional.cross_entropy(logits, torch.as_tensor(y), reduction="none").numpy()
    return float((losses * w).sum() / w.sum() + strength * np.square(weight).sum())


def test_rows_that_are_drawn_stand_for_all():
    """Each pseudo-group keeps its weight, so the head drawn is near the best one, and no other rows count."""
    ds = weighted(20_000)
    whole = hm.retrain_head(ds)
    best = objective(whole, ds)
    for seed in range(3):
        drawn = hm.retrain_head(ds, max_rows=4000, seed=seed)
        assert not torch.equal(drawn.weight, whole.weight)
        assert best - 1e-4 <= objective(drawn, ds) <= best + 3e-3
    again = hm.retrain_head(ds, max_rows=4000, seed=2)
    assert torch.equal(drawn.weight, again.weight)
    few = hm.retrain_head(ds, max_rows=60, seed=0)
    assert objective(few, ds) > best + 0.01  # so that the bound above can fail
    assert torch.equal(hm.retrain_head(ds, max_rows=20_000).weight, whole.weight)
    with pytest.raises(ValueError, match="`max_rows` must be at least 1"):
        hm.retrain_head(ds, max_rows=0)


# Memory


PATH = os.pathsep.join(map(str, Path(__file__).parents[:2]))
GROWTH = """
import json, sys, threading, warnings
from importlib import import_module
from pathlib import Path
sys.path[:0] = sys.argv[1].split(":")
warnings.simplefilter("ignore")
import datasets, numpy as np, torch
datasets.disable_progress_bars()
import hf_midrange as hm
from hf_midrange.publishing.dataset import Content, write_files
from hf_midrange.reporting import report
from support.wide_rows import rows_on_disk

for name in ("curation.views", "concepts.latent", "concepts.annotation"):
    import_module("hf_midrange." + name).MOST_ROWS = 4000  # the sample is held, of up to 100,000 rows

folder, count = Path(sys.argv[2]), int(sys.argv[3])
ds = rows_on_disk(folder / "rows.arrow", count, 1024, 2)
peaks, made = {}, {}

def private():  # of this process alone, in MB: pages of mapped files are the system's, which drops them at need
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) / 1000

def step(name, make):
    done = threading.Event()
    peaks[name] = private()
    def watch():
        while not done.wait(0.005):
            peaks[name] = max(peaks[name], private())
    watcher = threading.Thread(target=watch)
    watcher.start()
    made[name] = make()
    done.set()
    watcher.join()

def parity(batch):
    return [["even" if value > 0 else "odd"] for value, *_ in batch["embedding"]]

hm.retrain_head(hm.curate(ds.select(range(500))), force=True)  # libraries are loaded and warm
step("fit", lambda: hm.LogitBands().fit(ds))
step("transform", lambda: made["fit"].transform(ds))
step("embedding bands", lambda: hm.LogitBands("quantile", units="embedding").fit(ds))
step("annotate", lambda: hm.annotate(made["transform"], [parity]))
step("clusters as concepts", lambda: hm.annotate(made["transform"], [hm.LatentConcepts(k=3)]))
step("associate", lambda: hm.associate(made["annotate"]))
step("curate", lambda: hm.curate(made["annotate"], made["associate"]))
step("retrain", lambda: hm.retrain_head(made["curate"], force=True, max_rows=2000))
content = Content.of(made["curate"], findings=made["associate"])
(folder / "published").mkdir()
step("publish", lambda: write_files(content, "me/rows", folder / "published"))
print(json.dumps(peaks))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks are read from /proc")
def test_peaks_are_flat_in_the_number_of_rows(tmp_path):
    """At 8 times the rows no step needs what the embeddings of the additional rows take."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", reading.WORKING_SET: "32"}
    counts, peaks = (8000, 64_000), []
    for count in counts:
        folder = tmp_path / str(count)
        folder.mkdir()
        command = [sys.executable, "-c", GROWTH, PATH, folder, str(count)]
        done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True, timeout=800)
        assert done.returncode == 0, done.stderr[-4000:]
        peaks.append(json.loads(done.stdout.splitlines()[-1]))
    embeddings = (counts[1] - counts[0]) * 1024 * 4 / 1e6  # 229 MB
    growth = {name: round(peaks[1][name] - peaks[0][name]) for name in peaks[0]}
    assert {name: more for name, more in growth.items() if more > embeddings / 2} == {}
