"""Sources that run models, on two processes: each computes its share, and both get the rows of one process."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image, load_from_disk
from PIL import Image as pillow
from support.concept_models import SAVERS, save_vit
from support.launched import ONE_THREAD

from hf_midrange import columns
from hf_midrange.concepts import Captions, EarlyFeatures, LatentConcepts, Predictions, ZeroShot, annotate


ROWS, BATCH, SHARD = 25, 4, 6
SHARED_RUN = """
import sys
sys.path[:0] = sys.argv[4].split(":")
import datasets, torch
from accelerate import PartialState
from hf_midrange.concepts import annotate, map_steps
from hf_midrange.concepts.map_steps import Step
from test_processes import BATCH, SHARD, sources

data, models, out = sys.argv[1:4]
torch.set_num_threads(1)
map_steps.SHARD_ROWS = SHARD
measured = []
compute = Step.__call__
Step.__call__ = lambda self, batch: measured.append(len(batch.get("image", ()))) or compute(self, batch)
ds = annotate(datasets.load_from_disk(data), sources(models), batch_size=BATCH, output_dir=f"{out}/shared")
state = PartialState()
ds.save_to_disk(f"{out}/rows-{state.process_index}")
open(f"{out}/measured-{state.process_index}", "w").write(str(sum(measured)))
state.wait_for_everyone()
state.destroy_process_group()
"""


def sources(models):
    return [
        ZeroShot(["red", "green", "blue", "thing"], f"{models}/clip", share=0.3),
        ZeroShot(["red", "green", "blue", "thing"], f"{models}/siglip", share=0.3, name="siglip"),
        Captions(f"{models}/blip", min_rows=1, max_share=0.99, max_new_tokens=5),
        Captions(f"{models}/llava", min_rows=1, max_share=0.99, max_new_tokens=5, name="llava"),
        Predictions(f"{models}/vit", top=2, min_rows=1),
        EarlyFeatures(f"{models}/vit"),
        LatentConcepts(k=2),
    ]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    for name, save in {**SAVERS, "vit": save_vit}.items():
        (folder / name).mkdir()
        save(folder / name)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    rng = np.random.default_rng(0)
    pictures = [
        pillow.fromarray((rng.random((20, 20, 3)) * rng.integers(20, 256, 3)).astype(np.uint8)) for _ in range(ROWS)
    ]
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"])})
    base = Dataset.from_dict({"image": pictures, "label": np.arange(ROWS) % 2}, features=features)
    rows = {
        "embedding": (rng.normal(size=(ROWS, 5)).astype(np.float32), columns.vector(5)),
        "band": (np.ones((ROWS, 2), dtype=np.int8), columns.vector(2, "int8")),
    }
    folder = tmp_path_factory.mktemp("data") / "ds"
    columns.with_columns(base, rows).save_to_disk(folder)
    return folder


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_share_the_work_and_give_the_rows_of_one(data, models, tmp_path, monkeypatch):
    (tmp_path / "shared.py").write_text(SHARED_RUN)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    arguments = [tmp_path / "shared.py", data, models, tmp_path, os.pathsep.join(map(str, Path(__file__).parents[:2]))]
    done = subprocess.run([*launch, *arguments], env=ONE_THREAD, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[:6000]

    monkeypatch.setattr("hf_midrange.concepts.map_steps.SHARD_ROWS", SHARD)
    chosen = sources(models)
    alone = annotate(load_from_disk(data), chosen, batch_size=BATCH, output_dir=tmp_path / "alone")
    costly = sum(source.costly for source in chosen)
    # Of shards of 6, 6, 6, 6 and 1 rows the first process computes the first, third and fifth.
    assert [int((tmp_path / f"measured-{rank}").read_text()) for rank in (0, 1)] == [13 * costly, 12 * costly]
    for rank in (0, 1):
        shared = load_from_disk(tmp_path / f"rows-{rank}")
        assert shared.features == alone.features
        for name in alone.column_names:
            if name != "image":
                assert shared[name][:] == alone[name][:], name
    for path in sorted((tmp_path / "alone").glob("*.json")):
        assert (tmp_path / "shared" / path.name).read_bytes() == path.read_bytes()
    assert len(list((tmp_path / "shared").glob("*.json"))) == len(chosen)
