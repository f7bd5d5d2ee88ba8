"""Several processes: the rows of one process for any number of rows, and nodes without a shared disk."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features
from hypothesis import given
from hypothesis import strategies as st
from support.launched import ONE_THREAD
from support.streams import FEATURES, network, picture, pixels

import hf_midrange as hm
from hf_midrange import processes
from hf_midrange.association import provenance
from hf_midrange.columns import matrix
from hf_midrange.processes import Share


BATCH, SHARD = 2, 3
COUNTS = (1, 2, 3, 4, 5, 6, 7, 11, 12, 13)
"""Numbers of rows: fewer than processes, and every remainder of processes x batch and of processes x shard."""

TOGETHER = """
import sys
sys.path[:0] = sys.argv[1].split(":")
import numpy as np, torch
from accelerate import PartialState
from test_processes import COUNTS, associated, every_way, repaired

torch.set_num_threads(1)
out = sys.argv[2]
found = {name: values for rows in COUNTS for name, values in every_way(rows, out).items()}
state = PartialState()
found |= repaired() | associated()
np.savez(f"{out}/found-{state.process_index}.npz", **found)
state.wait_for_everyone()
state.destroy_process_group()
"""

NODES = """
import sys
sys.path[:0] = sys.argv[1].split(":")
import numpy as np, torch
from accelerate import PartialState
from datasets.distributed import split_dataset_by_node
import hf_midrange as hm
from test_processes import BATCH, NODE_ROWS, SHARD, rows
from support.streams import network, pixels, stream

torch.set_num_threads(1)
out = sys.argv[2]
state = PartialState(cpu=True)
rank, sizes = state.process_index, {"batch_size": BATCH, "shard_size": SHARD}
own = hm.extract(rows(NODE_ROWS), network(), pixels, output_dir=f"{out}/node-{rank}", shared=False, **sizes)
numbers = [row["row"] for row in own.remove_columns("image")]
part = split_dataset_by_node(stream(6, 5, 4, 7), rank, state.num_processes)
result = hm.extract(part, network(), pixels, output_dir=f"{out}/part-{rank}", **sizes)
logits = np.asarray([row["logits"] for row in result], np.float32)
try:
    hm.extract(part, network(), pixels, output_dir=f"{out}/one", **sizes)
    refused = "no"
except ValueError as error:
    refused = str(error)
np.savez(f"{out}/found-{rank}.npz", numbers=numbers, logits=logits, refused=refused)
state.wait_for_everyone()
state.destroy_process_group()
"""
NODE_ROWS = 31
HERE = os.pathsep.join(map(str, Path(__file__).parents[:2]))


def rows(count):
    features = Features({**FEATURES, "row": ClassLabel(num_classes=100)})
    values = {"image": [picture(row) for row in range(count)], "label": np.arange(count) % 3, "row": np.arange(count)}
    return Dataset.from_dict(values, features=features)


def every_way(count, out):
    """Return the logits of so many rows, extracted into memory, onto disk, and as a stream."""
    sizes, data = {"batch_size": BATCH, "shard_size": SHARD}, rows(count)
    stream = hm.extract(
        data.to_iterable_dataset(), network(), pixels, output_dir=f"{out}/stream-{count}", run_id="stream", **sizes
    )
    written = hm.extract(data, network(), pixels, output_dir=f"{out}/{count}", **sizes)
    return {
        f"{count} in memory": matrix(hm.extract(data, network(), pixels, **sizes), "logits"),
        f"{count} on disk": matrix(written, "logits"),
        f"{count} streamed": np.asarray([row["logits"] for row in stream], dtype=np.float32),
    }


def repaired():
    """Return what the steps after extraction give; each process does them by itself."""
    from support.wide_rows import tied_rows

    ds = tied_rows()
    curated = hm.curate(ds)
    head = hm.retrain_head(curated, force=True)
    return {"weight": np.asarray(curated["weight"][:]), "head": head.weight.numpy()}


def associated(distributed=True):
    """Return findings of units that the processes divide; of three, one process has more than the other."""
    from support.wide_rows import tied_rows

    found = hm.associate(tied_rows(900, classes=3), distributed=distributed)
    facts = provenance(found)
    kept = {name: facts[name] for name in ("tested", "not_tested", "power", "observed_cuts")}
    return {"findings": np.array(json.dumps([found.to_dict(), kept]))}


def launched(script, count, folder):
    (folder / "launched.py").write_text(script)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(count)]
    command = [*launch, str(folder / "launched.py"), HERE, str(folder)]
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-6000:]
    return [np.load(folder / f"found-{rank}.npz") for rank in range(count)]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_bits_of_one_for_any_number_of_rows(tmp_path):
    (tmp_path / "alone").mkdir()
    alone = {name: values for count in COUNTS for name, values in every_way(count, tmp_path / "alone").items()}
    alone |= repaired() | associated()
    for count in COUNTS:
        assert len(alone[f"{count} on disk"]) == count
    assert alone["findings"] == associated(distributed=False)["findings"]
    assert json.loads(str(alone["findings"]))[0]["unit"]
    for found in launched(TOGETHER, 2, tmp_path):
        assert set(found.files) == set(alone)
        for name, values in alone.items():
            np.testing.assert_array_equal(found[name], values, err_msg=name)
    for count in COUNTS:  # each shard was computed by one process, once
        records = sorted((tmp_path / str(count)).glob("shard-*.json"))
        assert [json.loads(path.read_text())["first"] for path in records] == list(range(0, count, SHARD))


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_four_nodes_with_folders_of_their_own_are_merged_by_their_manifests(tmp_path):
    found = launched(NODES, 4, tmp_path)
    shards = -(-NODE_ROWS // SHARD)
    folders = [tmp_path / f"node-{rank}" for rank in range(4)]
    for rank, folder in enumerate(folders):
        numbers = sorted(int(path.stem.removeprefix("shard-")) for path in folder.glob("shard-*.arrow"))
        assert numbers == list(range(rank, shards, 4))
        own = [row for number in numbers for row in range(number * SHARD, min((number + 1) * SHARD, NODE_ROWS))]
        assert found[rank]["numbers"].tolist() == own
        assert "`output_dir` of its own" in str(found[rank]["refused"])

    merged = hm.merge_shards(folders, tmp_path / "merged")
    passes = []
    model = network()
    model.register_forward_hook(lambda *_: passes.append(1))
    sizes = {"batch_size": BATCH, "shard_size": SHARD}
    result = hm.extract(rows(NODE_ROWS), model, pixels, output_dir=merged, **sizes)
    expected = hm.extract(rows(NODE_ROWS), network(), pixels, **sizes)
    assert not passes
    assert result["row"][:] == list(range(NODE_ROWS))
    np.testing.assert_array_equal(matrix(result, "logits"), matrix(expected, "logits"))

    parts = np.concatenate([part["logits"] for part in found])
    whole = hm.extract(rows(22), network(), pixels, batch_size=BATCH, shard_size=SHARD)
    np.testing.assert_allclose(parts, matrix(whole, "logits"), atol=1e-6)  # a file a node: parts follow one another


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Folders as two nodes would have written them, one after the other."""
    folder = tmp_path_factory.mktemp("nodes")
    for rank in range(2):
        mine = pytest.MonkeyPatch()
        mine.setattr("hf_midrange.extraction.run.is_mine", lambda number, rank=rank: number % 2 == rank)
        sizes = {"batch_size": BATCH, "shard_size": SHARD}
        own = hm.extract(rows(11), network(), pixels, output_dir=folder / str(rank), shared=False, **sizes)
        assert own["row"][:] == [row for row in range(11) if row // SHARD % 2 == rank]
        mine.undo()
    return folder


def test_a_merge_can_be_done_again_and_refuses_what_is_missing(nodes, tmp_path):
    merged = hm.merge_shards([nodes / "0", nodes / "1"], tmp_path / "merged")
    before = {path.name: path.read_bytes() for path in merged.iterdir()}
    hm.merge_shards([nodes / "1", nodes / "0", nodes / "1"], merged)
    assert {path.name: path.read_bytes() for path in merged.iterdir()} == before
    with pytest.raises(FileNotFoundError, match="2 of 4 shards, the first number 1, are in none of"):
        hm.merge_shards([nodes / "0"], tmp_path / "half")
    with pytest.raises(ValueError, match="no folders"):
        hm.merge_shards([], tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no manifest.json"):
        hm.merge_shards([nodes / "0", tmp_path / "nothing"], tmp_path / "half")


def test_a_merge_refuses_other_runs_and_damaged_shards(nodes, tmp_path):
    other = tmp_path / "other"
    hm.extract(rows(7), network(), pixels, output_dir=other, batch_size=BATCH, shard_size=SHARD)
    with pytest.raises(ValueError, match="hold different extractions .*rows: 11 there, 7 now"):
        hm.merge_shards([nodes / "0", other], tmp_path / "merged")
    hm.merge_shards([nodes / "0", nodes / "1"], tmp_path / "copy")
    damaged = tmp_path / "copy" / "shard-000001.arrow"
    content = damaged.read_bytes()
    damaged.unlink()  # it is a link to the node's own file
    damaged.write_bytes(content[:-20] + bytes(20))
    with pytest.raises(ValueError, match="shard-000001.arrow is not what was written"):
        hm.merge_shards([tmp_path / "copy"], tmp_path / "merged")
    assert not (tmp_path / "merged" / "manifest.json").exists()


@given(items=st.lists(st.integers()), processes=st.integers(1, 9))
def test_shares_are_all_of_the_work_and_alike(items, processes):
    parts = [Share(number, processes).part(items) for number in range(processes)]
    assert [item for part in parts for item in part] == items
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_processes_that_share_a_folder_have_one_leader(tmp_path, monkeypatch):
    places = [("host", str(tmp_path / name)) for name in ("a", "b", "a", "c")]

    class State:
        num_processes, process_index = 4, 0

    monkeypatch.setattr(processes, "join_processes", lambda: State)
    monkeypatch.setattr(processes, "gathered", lambda _: places)
    monkeypatch.setattr(processes.socket, "gethostname", lambda: "host")
    leading = []
    for State.process_index, (_, folder) in enumerate(places):
        leading.append(processes.leads_folder(tmp_path / folder, alone=False))
    assert leading == [True, True, False, True]
    with pytest.raises(ValueError, match="an `output_dir` of its own"):
        processes.leads_folder(tmp_path / "a", alone=True)


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps", None])
def test_the_device_is_any_accelerator_that_torch_knows_or_the_cpu(kind, monkeypatch):
    found = kind and torch.device(kind)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: found)
    assert processes.device() == torch.device(kind or "cpu")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert processes.device() == torch.device("cpu")
