"""Two writers, Ctrl-C, and a worker that dies: an error that says what to do, and a run that goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from support.classifiers import images, timm_model
from support.killing import CONTEXT, Command
from support.launched import ONE_THREAD
from support.tied_images import tied_images
from support.told import told

import hf_midrange as hm
from hf_midrange.columns import matrix
from hf_midrange.extraction.shards import read_shards
from hf_midrange.io.folders import LOCK, new_folder, only_writer


pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    place = tmp_path_factory.mktemp("vit")
    tied_images(place)
    return place


def held(folder: str, ready, done) -> None:
    with only_writer(Path(folder)):
        ready.set()
        done.wait(60)


def test_two_writers_in_one_folder(tmp_path, vit, capsys):
    ready, done = CONTEXT.Event(), CONTEXT.Event()
    process = CONTEXT.Process(target=held, args=(str(tmp_path / "out"), ready, done))
    process.start()
    assert ready.wait(60)
    try:
        wanted = rf"being written by process {process.pid} on .*wait until it has ended, or give another `output_dir`"
        with pytest.raises(ValueError, match=wanted):
            hm.extract(images(4), timm_model(), output_dir=tmp_path / "out")
        with pytest.raises(ValueError, match=wanted):
            hm.annotate(Dataset.from_dict({"a": [1, 2]}), [hm.Annotations(["a"])], output_dir=tmp_path / "out")
    finally:
        process.kill()
        process.join()
    assert (tmp_path / "out" / LOCK).is_file()  # the dead process left it, but does not hold it
    assert len(hm.extract(images(4), timm_model(), output_dir=tmp_path / "out")) == 4
    assert not (tmp_path / "out" / LOCK).exists()


def writing(place: str, ready, done) -> None:
    with new_folder(Path(place)):
        ready.set()
        done.wait(60)


def test_two_commands_with_one_output(tmp_path, vit, capsys):
    ready, done = CONTEXT.Event(), CONTEXT.Event()
    process = CONTEXT.Process(target=writing, args=(str(tmp_path / "out"), ready, done))
    process.start()
    assert ready.wait(60)
    try:
        code, said = told(capsys, "bands", vit / "data", "--output", tmp_path / "out")
        assert code == 1
        assert f"{tmp_path / 'out'} is being written by process {process.pid}" in said
        assert "another `--output`" in said
    finally:
        process.kill()
        process.join()


def contended(folder: str, log: str, rounds: int) -> None:
    for _ in range(rounds):
        try:
            with only_writer(Path(folder)):
                with open(log, "a") as file:
                    file.write(f"in {os.getpid()}\n")
                time.sleep(0.001)
                with open(log, "a") as file:
                    file.write(f"out {os.getpid()}\n")
        except ValueError:
            time.sleep(0.001)


def test_no_two_processes_are_ever_inside_at_once(tmp_path):
    log = tmp_path / "log"
    several = [CONTEXT.Process(target=contended, args=(str(tmp_path / "held"), str(log), 200)) for _ in range(4)]
    for process in several:
        process.start()
    for process in several:
        process.join(60)
        assert process.exitcode == 0
    lines = log.read_text().splitlines()
    assert len(lines) > 100
    for entered, left in zip(lines[::2], lines[1::2], strict=True):
        assert entered.split() == ["in", left.split()[1]]
        assert left.startswith("out")


def test_the_same_process_cannot_write_twice_at_once(tmp_path):
    with only_writer(tmp_path), pytest.raises(ValueError, match="by this very process"), only_writer(tmp_path):
        pass


SLEEPY = """
import sys, time
from hf_midrange.commands import app as cli
from hf_midrange.extraction import run
log = sys.argv.pop(1)
def slow(batches, bar):
    for batch in batches:
        yield batch
        open(log, "a").write("batch ")
        WAIT
run._counted = slow
cli.main()
"""
IN_A_LIBRARY = "import numpy; a = numpy.ones((9000, 9000), numpy.float32); a @ a @ a"  # many seconds without Python


@pytest.mark.parametrize("wait", ["time.sleep(0.2)", IN_A_LIBRARY], ids=["in Python", "in a library"])
def test_ctrl_c_ends_a_command_at_once_and_it_goes_on_later(wait, vit, tmp_path):
    flags = ["extract", vit / "data", "--model", vit / "vit", "--shard-size", "4", "--batch-size", "2"]
    words = [*map(str, flags), "--output", str(tmp_path / "out")]
    process = subprocess.Popen(
        [sys.executable, "-c", SLEEPY.replace("WAIT", wait), tmp_path / "log", *words],
        env=ONE_THREAD, stderr=subprocess.PIPE, text=True,
        # Where the tests were started in a shell's background, Ctrl-C is ignored by all that they start.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while not (tmp_path / "log").exists() and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, said = process.communicate(timeout=30)
    assert time.monotonic() - began < 20  # 2 on a machine with nothing else to do; the product alone takes a minute
    assert process.returncode == 130
    assert "Traceback" not in said
    assert "interrupted: what is finished is kept, and the same command goes on from there" in said
    Command(*words).finish(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").glob(".*")] == [".finished.json"]


DYING = """
import os, signal, sys
import timm, torch
from datasets import load_from_disk
import hf_midrange as hm
from hf_midrange.extraction.shards import ShardFolder

data, out, dies = sys.argv[1:]
torch.manual_seed(0)
torch.set_num_threads(1)
write = ShardFolder.write
def deadly(self, shard):
    write(self, shard)
    if dies == "yes" and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
ShardFolder.write = deadly
hm.extract(load_from_disk(data), timm.create_model("test_resnet", num_classes=3), batch_size=2, shard_size=4,
           output_dir=out)
"""


def launched(script: Path, *words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, *words]
    return subprocess.run([*map(str, command)], env=ONE_THREAD, capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_worker_that_dies_ends_the_launch_and_the_next_goes_on(tmp_path):
    images(23).save_to_disk(tmp_path / "data")
    (tmp_path / "dying.py").write_text(DYING)
    died = launched(tmp_path / "dying.py", tmp_path / "data", tmp_path / "out", "yes")
    assert died.returncode != 0
    assert "SIGKILL" in died.stderr or "-9" in died.stderr
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*.json")}
    assert (tmp_path / "out" / "shard-000001.json") in finished
    done = launched(tmp_path / "dying.py", tmp_path / "data", tmp_path / "out", "no")
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not list((tmp_path / "out").glob("*.tmp"))
    assert not (tmp_path / "out" / LOCK).exists()
    alone = hm.extract(images(23), timm_model(), batch_size=2, shard_size=4)
    np.testing.assert_allclose(matrix(read_shards(tmp_path / "out"), "logits"), matrix(alone, "logits"), atol=1e-6)


@pytest.mark.slow
def test_two_launches_in_one_folder_are_told_apart(tmp_path):
    images(23).save_to_disk(tmp_path / "data")
    (tmp_path / "dying.py").write_text(DYING)
    ready, done = CONTEXT.Event(), CONTEXT.Event()
    process = CONTEXT.Process(target=held, args=(str(tmp_path / "out"), ready, done))
    process.start()
    assert ready.wait(60)
    began = time.monotonic()
    refused = launched(tmp_path / "dying.py", tmp_path / "data", tmp_path / "out", "no")
    done.set()
    process.join()
    assert refused.returncode != 0
    assert time.monotonic() - began < 60
    assert f"being written by process {process.pid}" in refused.stderr
