"""Same rows, same seed, same machine: the same bytes, in whatever process."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset

from hf_midrange import columns


RUN = """
import hashlib, json, sys
from pathlib import Path
import torch
from datasets import disable_progress_bars, load_from_disk
import hf_midrange as hm
from hf_midrange.association import save_findings

disable_progress_bars()
torch.set_num_threads(1)
rows, out = load_from_disk(sys.argv[1]), Path(sys.argv[2])
bands = hm.LogitBands().fit(rows)
bands.save_pretrained(out / "bands")
ds = hm.annotate(bands.transform(rows), [hm.NGrams("text"), hm.TextStyle("text"), hm.LatentConcepts(k=4)],
                 output_dir=out / "sources")
findings = hm.associate(ds, seed=3)
save_findings(findings, out / "findings")
curated = hm.curate(ds, findings, seed=3)
head = hm.retrain_head(curated, seed=3, force=True)
head.save_pretrained(out / "head")
chosen = {name: hashlib.sha256(repr(curated[name][:]).encode()).hexdigest()
          for name in ("keep", "weight", "pseudo_group", "reason", "confounders")}
(out / "curated.json").write_text(json.dumps([chosen, hm.curation_report(curated)]))
"""


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Reviews of two classes, tied to a word that the logits use."""
    rng, n = np.random.default_rng(0), 400
    label = rng.integers(0, 2, n)
    tied = np.where(rng.random(n) < 0.9, label, 1 - label)
    words = np.array(["film", "plot", "actor", "music", "end", "scene"])
    text = [" ".join([*rng.choice(words, 6), "never" if tied[i] else "ever"]) for i in range(n)]
    embedding = np.column_stack([label, tied, np.zeros((n, 4))]) + rng.normal(0, 0.3, (n, 6))
    score = embedding @ np.array([1.0, 2.0, 0, 0, 0, 0]) - 1.5
    logits = np.column_stack([-score, score])
    names = ClassLabel(names=["bad", "good"])
    ds = columns.with_columns(
        Dataset.from_dict({"text": text}),
        {
            "label": (label, names),
            "embedding": (embedding.astype(np.float32), columns.vector(6)),
            "logits": (logits.astype(np.float32), columns.vector(2)),
            "prediction": (logits.argmax(axis=1), names),
        },
    )
    place = tmp_path_factory.mktemp("determinism")
    ds.save_to_disk(place / "rows")
    return place


def everything(place: Path, name: str, hash_seed: str, threads: str) -> dict[str, str]:
    """Run all steps in a fresh process; return file -> sha256."""
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1"}
    environment |= {"OPENBLAS_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    command = [sys.executable, "-W", "ignore", "-c", RUN, str(place / "rows"), str(place / name)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    files = sorted(path for path in (place / name).rglob("*") if path.is_file())
    return {path.relative_to(place / name).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_two_processes_give_the_same_bytes(rows):
    one = everything(rows, "one", hash_seed="1", threads="1")
    assert {"bands/bands.json", "findings/findings.parquet", "head/head.safetensors", "curated.json"} <= set(one)
    assert json.loads((rows / "one" / "curated.json").read_text())[1]["verdict"]
    assert everything(rows, "two", hash_seed="2", threads="2") == one
