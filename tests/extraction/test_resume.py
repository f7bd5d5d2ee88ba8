"""Shards on disk: a killed run goes on, another run is refused, and processes share the work without a trace."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset, Image, load_from_disk
from support.classifiers import as_table, images, timm_model
from support.launched import ONE_THREAD

import hf_midrange as hm
from hf_midrange.columns import matrix


SLOW_RUN = """
import sys, time, timm, torch
from datasets import load_from_disk
import hf_midrange as hm

data, out = sys.argv[1:]
torch.manual_seed(0)
model = timm.create_model("test_resnet", num_classes=3)
model.register_forward_hook(lambda *_: time.sleep(0.1))
hm.extract(load_from_disk(data), model, batch_size=2, shard_size=4, output_dir=out)
"""

SHARED_RUN = """
import sys, timm, torch
import numpy as np
from accelerate import PartialState
from datasets import load_from_disk
import hf_midrange as hm
from hf_midrange.columns import matrix

data, out = sys.argv[1:]
torch.manual_seed(0)
torch.set_num_threads(1)
ds, model = load_from_disk(data), timm.create_model("test_resnet", num_classes=3)
arguments = {"batch_size": 3, "shard_size": 4}
results = {
    "memory": hm.extract(ds, model, **arguments),
    "disk": hm.extract(ds, model, output_dir=f"{out}/disk", **arguments),
    "stream": hm.extract(ds.to_iterable_dataset(), model, output_dir=f"{out}/stream", **arguments),
}
state = PartialState()
for name, result in results.items():
    logits = [row["logits"] for row in result] if name == "stream" else matrix(result, "logits")
    np.save(f"{out}/{name}-{state.num_processes}-{state.process_index}.npy", np.asarray(logits, np.float32))
state.wait_for_everyone()
state.destroy_process_group()
"""


def finished(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("shard-*.json"))


def run_until_killed(data: Path, out: Path, shards: int) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW_RUN, data, out], env=ONE_THREAD, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(finished(out)) < shards and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_a_killed_run_goes_on_and_recomputes_no_finished_shard(tmp_path):
    images(23).save_to_disk(tmp_path / "data")
    ds, out, model = load_from_disk(tmp_path / "data"), tmp_path / "out", timm_model()
    run_until_killed(tmp_path / "data", out, shards=2)
    kept = {path: path.stat().st_mtime_ns for path in out.glob("shard-*") if path.suffix == ".json"}
    assert 2 <= len(kept) < 6

    rows = []
    model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    result = hm.extract(ds, model, batch_size=2, shard_size=4, output_dir=out)
    assert sum(rows) == 23 - 4 * len(kept) + 1  # one row of the first batch runs alone, too
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(out.glob("*.tmp"))
    uninterrupted = hm.extract(ds, timm_model(), batch_size=2, shard_size=4)
    for name in ("embedding", "logits"):
        np.testing.assert_allclose(matrix(result, name), matrix(uninterrupted, name), atol=1e-6)


@pytest.mark.parametrize("stream", [False, True])
def test_a_finished_run_computes_nothing(tmp_path, stream):
    ds, model = images(), timm_model()
    data = ds.to_iterable_dataset() if stream else ds
    first = hm.extract(data, model, shard_size=10, output_dir=tmp_path)
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran again"))
    again = hm.extract(data, model, shard_size=10, output_dir=tmp_path)
    tables = [as_table(first), as_table(again)] if stream else [first, again]
    np.testing.assert_array_equal(*(matrix(table, "logits") for table in tables))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "record lost", "record broken"])
def test_a_damaged_shard_is_computed_again(tmp_path, damage):
    ds = images()
    expected = matrix(hm.extract(ds, timm_model(), shard_size=10, output_dir=tmp_path), "logits").copy()
    table, record = tmp_path / "shard-000001.arrow", tmp_path / "shard-000001.json"
    content = bytearray(table.read_bytes())
    if damage == "truncated":
        table.write_bytes(content[:-100])
    elif damage == "flipped":
        content[len(content) // 2] ^= 1
        table.write_bytes(content)
    elif damage == "record lost":
        record.unlink()
    else:
        record.write_text("{")
    again = hm.extract(ds, timm_model(), shard_size=10, output_dir=tmp_path)
    np.testing.assert_array_equal(matrix(again, "logits"), expected)


def other_weights():
    model = timm_model()
    with torch.no_grad():
        model.bn1.running_mean[0] += 1e-3
    return model


@pytest.mark.parametrize(
    ("named", "change"),
    [
        ("model", {"model": other_weights}),
        ("data", {"ds": images(seed=1)}),
        ("shard_size", {"options": {"shard_size": 5}}),
        ("dtype", {"options": {"dtype": "bfloat16"}}),
        ("preprocessing", {"options": {"processor": lambda image: torch.zeros(3, 8, 8)}}),
        ("data", {"options": {"run_id": "mine"}}),
    ],
)
def test_another_run_is_refused_and_overwrite_starts_again(tmp_path, named, change):
    hm.extract(images(), timm_model(), shard_size=10, output_dir=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    ds, model = change.get("ds", images()), change.get("model", timm_model)()
    options = {"shard_size": 10, "output_dir": tmp_path, **change.get("options", {})}
    with pytest.raises(ValueError, match=rf"another run \({named}: .*overwrite=True"):
        hm.extract(ds, model, **options)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / "notes.txt").write_text("mine")
    result = hm.extract(ds, model, overwrite=True, **options)
    fresh = hm.extract(ds, model, **{**options, "output_dir": None})
    np.testing.assert_array_equal(matrix(result, "logits"), matrix(fresh, "logits"))
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_stream_is_refused_by_its_first_shard(tmp_path):
    hm.extract(images().to_iterable_dataset(), timm_model(), shard_size=10, output_dir=tmp_path)
    with pytest.raises(ValueError, match="another run .data: 'first shard"):
        hm.extract(images(seed=1).to_iterable_dataset(), timm_model(), shard_size=10, output_dir=tmp_path)


def test_a_run_id_names_the_rows_of_a_stream(tmp_path):
    stream, arguments = images().to_iterable_dataset(), {"shard_size": 10, "output_dir": tmp_path}
    hm.extract(stream, timm_model(), run_id="day 1", **arguments)
    hm.extract(stream, timm_model(), run_id="day 1", **arguments)
    with pytest.raises(ValueError, match="day 1.*day 2"):
        hm.extract(stream, timm_model(), run_id="day 2", **arguments)


def test_a_folder_with_a_foreign_manifest_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps([1]))
    with pytest.raises(ValueError, match="no whole manifest of an extraction"):
        hm.extract(images(), timm_model(), output_dir=tmp_path)


def launch_two_processes(script: Path, data: Path, out: Path) -> None:
    """Two gloo processes; `accelerate launch --cpu --num_processes 2` itself starts only one unless MPI is there."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        script,
        data,
        out,
    ]
    done = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_two_processes_give_the_bits_of_one(tmp_path):
    images(23).save_to_disk(tmp_path / "data")
    (tmp_path / "shared.py").write_text(SHARED_RUN)
    launch_two_processes(tmp_path / "shared.py", tmp_path / "data", tmp_path)

    ds, folder = load_from_disk(tmp_path / "data"), tmp_path / "alone"
    alone = hm.extract(ds, timm_model(), batch_size=3, shard_size=4, output_dir=folder)
    saved = sorted(tmp_path.glob("*.npy"))
    assert [path.stem for path in saved] == [f"{kind}-2-{r}" for kind in ("disk", "memory", "stream") for r in (0, 1)]
    for path in saved:
        np.testing.assert_array_equal(np.load(path), matrix(alone, "logits"), err_msg=path.name)
    for path in sorted(folder.glob("shard-*.arrow")):
        for kind in ("disk", "stream"):
            assert (tmp_path / kind / path.name).read_bytes() == path.read_bytes(), (kind, path.name)


WRAPPED_RUN = """
import sys, torch
sys.path.insert(0, sys.argv[1])
import numpy as np
from accelerate import PartialState
from support.classifiers import bert, texts, tokenizer
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.nn.parallel import DistributedDataParallel
from transformers.models.bert.modeling_bert import BertLayer
import hf_midrange as hm
from hf_midrange.columns import matrix

torch.set_num_threads(1)
state = PartialState(cpu=True)
ds, tok, cpu = texts(23, pair=True), tokenizer(), torch.device("cpu")
tok.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]

def logits(model):
    return matrix(hm.extract(ds, model, tok, batch_size=3, shard_size=4), "logits")

plain = logits(bert())
for original in (True, False):
    spread = FullyShardedDataParallel(bert(), device_id=cpu, use_orig_params=original)
    np.testing.assert_array_equal(logits(spread), plain)
np.testing.assert_array_equal(logits(DistributedDataParallel(bert())), plain)
nested = FullyShardedDataParallel(bert(), device_id=cpu, auto_wrap_policy=ModuleWrapPolicy({BertLayer}))
sharded = bert()
fully_shard(sharded)
for refused in (nested, sharded):
    try:
        logits(refused)
    except ValueError as error:
        assert "spread over processes (FSDP)" in str(error), error
    else:
        raise AssertionError("not refused")
state.wait_for_everyone()
state.destroy_process_group()
"""


def test_models_of_several_processes_give_the_logits_of_the_plain_one(tmp_path):
    (tmp_path / "wrapped.py").write_text(WRAPPED_RUN)
    launch_two_processes(tmp_path / "wrapped.py", Path(__file__).parents[1], tmp_path)


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match="2 processes were launched but accelerate's state knows of 1"):
        hm.extract(images(3), timm_model())


def test_image_files_that_were_replaced_are_another_run(tmp_path):
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    for path, image in zip(paths, images(4)["image"], strict=True):
        image.save(path)
    ds = Dataset.from_dict({"image": paths}).cast_column("image", Image())
    first = hm.extract(ds, timm_model(), output_dir=tmp_path / "out")
    again = hm.extract(ds, timm_model(), output_dir=tmp_path / "out")
    np.testing.assert_array_equal(matrix(first, "logits"), matrix(again, "logits"))
    images(4, seed=1)["image"][2].save(paths[2])
    with pytest.raises(ValueError, match=r"another run \(data: "):
        hm.extract(ds, timm_model(), output_dir=tmp_path / "out")
