"""A machine that misbehaves: a clock that jumps, renames that fail, little memory, a small disk, workers that die."""

import errno
import itertools
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, concatenate_datasets, load_from_disk
from support.classifiers import images, timm_model
from support.commands import called
from support.killing import files
from support.tied_images import tied_images
from support.told import told

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.association import load_findings
from hf_midrange.curation import joined
from hf_midrange.extraction.shards import read_shards
from hf_midrange.io.datasets import read_dataset


pytestmark = pytest.mark.timeout(240)
OLD = Path(__file__).parents[1] / "data" / "0.1.0"


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    """Return a folder with images, a model, and what each step makes of them when nothing is in the way."""
    place = tmp_path_factory.mktemp("vit")
    tied_images(place)
    for name, words in steps(place, place).items():
        called(name, *words, "--output", place / name)
    return place


def steps(read: Path, vit: Path) -> dict[str, tuple[object, ...]]:
    """Return the words of each command, that read what the commands before wrote."""
    model = ("--model", vit / "vit")
    return {
        "extract": (vit / "data", *model, "--shard-size", 16, "--batch-size", 8),
        "bands": (read / "extract",),
        "annotate": (read / "bands", "--source", "annotations:place", "--source", f"early-features:{vit / 'vit'}"),
        "associate": (read / "annotate",),
        "curate": (read / "annotate", "--findings", read / "associate"),
        "retrain": (read / "curate", *model),
        "report": (read / "curate", "--findings", read / "associate"),
    }


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("extract", errno.ESTALE),
        ("annotate", errno.EIO),
        ("associate", errno.EBUSY),
        ("curate", errno.ESTALE),
        ("retrain", errno.EIO),
        ("report", errno.EBUSY),
    ],
)
def test_a_rename_that_fails_is_one_line_and_the_same_command_goes_on(
    name, number, vit, tmp_path, capsys, monkeypatch
):
    """As on a network file system; each rename of a command fails in turn."""
    reference, words = files(vit / name), (name, *steps(vit, vit)[name], "--output", tmp_path / "out")
    replace, left, refused = os.replace, [0], 0

    def failing(source, target, **options):
        left[0] -= 1
        if left[0] == 0:
            raise OSError(number, os.strerror(number), str(source))
        return replace(source, target, **options)

    monkeypatch.setattr(os, "replace", failing)
    monkeypatch.setattr(os, "rename", failing)
    for nth in range(1, 40):
        left[0] = nth
        code, said = told(capsys, *words)
        if left[0] > 0:  # it needed fewer renames
            break
        left[0] = 0
        if code == 0:  # a library copied instead
            assert files(tmp_path / "out") == reference
            shutil.rmtree(tmp_path / "out")
            continue
        refused += 1
        assert len([line for line in said.splitlines() if line.startswith("error")]) == 1, said
        assert "Traceback" not in said
        assert not (tmp_path / "out").exists() or not any((tmp_path / "out").iterdir()), nth
    assert refused
    assert code == 0
    assert files(tmp_path / "out") == reference


def test_a_clock_that_jumps_changes_nothing(vit, tmp_path, monkeypatch):
    jumps = itertools.cycle([0, 4e8, -4e8, 1e9, -1e9, 3e9])
    now, wall = time.time, time.strftime
    monkeypatch.setattr(time, "time", lambda: now() + next(jumps))
    monkeypatch.setattr(time, "strftime", lambda form, *at: wall(form, time.gmtime(max(0, time.time()))))
    for name, words in steps(tmp_path, vit).items():
        called(name, *words, "--output", tmp_path / name)
        for path in (tmp_path / name).rglob("*"):
            os.utime(path, (next(jumps) % 2e9, next(jumps) % 2e9))
        here, there = files(tmp_path / name), files(vit / name)
        assert {**here, ".finished.json": ""} == {**there, ".finished.json": ""}, name  # it names the inputs
    said = called("associate", tmp_path / "annotate", "--output", tmp_path / "again", "--overwrite")
    assert said.exit_code == 0


SMALL = """
import sys, resource
limit = int(sys.argv[1])
import numpy as np
import hf_midrange.association, hf_midrange.curation, hf_midrange.commands.steps, accelerate
from hf_midrange.commands.app import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + limit, used + limit))
main(sys.argv[2:])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_limit_on_memory_is_one_line_or_enough(tmp_path):
    rng, n = np.random.default_rng(0), 4000
    label = np.arange(n) % 2
    ds = Dataset.from_dict({"label": label}).cast_column("label", ClassLabel(names=["a", "b"]))
    vectors = rng.normal(size=(n, 2000)).astype(np.float32)
    logits = np.eye(2, dtype=np.float32)[label] * 2 + rng.normal(size=(n, 2)).astype(np.float32)
    parts = {"embedding": (vectors, columns.vector(2000)), "logits": (logits, columns.vector(2))}
    columns.with_columns(ds, parts).save_to_disk(tmp_path / "rows")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    said = {}
    for megabytes in (60, 3000):
        words = [sys.executable, "-c", SMALL, str(megabytes * 2**20), "curate", "rows", "--output", f"out-{megabytes}"]
        done = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        said[megabytes] = done.returncode, done.stderr
        assert done.returncode in (0, 1), done.stderr[-2000:]
        assert "Traceback" not in done.stderr
        assert (tmp_path / f"out-{megabytes}").exists() == (done.returncode == 0)
    assert said[3000][0] == 0, said
    assert said[60][0] == 1, said
    assert "memory" in said[60][1]


@pytest.fixture
def disk(tmp_path):
    """A file system of 3 MB; only root may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.mark.parametrize("name", ["bands", "annotate", "associate", "curate", "retrain", "report"])
def test_a_full_disk_loses_nothing_whichever_step_meets_it(name, vit, disk, capsys):
    words = (name, *steps(vit, vit)[name], "--output", disk / "out")
    ballast, before, refused = disk / "ballast", {each: files(vit / each) for each in steps(vit, vit)}, 0
    for free in (0, 4, 16, 64, 256):
        ballast.write_bytes(b"")
        room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        ballast.write_bytes(bytes(max(0, room - free * 1024)))
        code, said = told(capsys, *words)
        ballast.unlink()
        if code == 0:
            break
        refused += 1
        assert "Traceback" not in said
        assert "disk is full" in said or "No space left" in said
        assert not (disk / "out").exists()
    assert refused
    if code:
        assert told(capsys, *words)[0] == 0
    assert files(disk / "out") == files(vit / name)
    assert {each: files(vit / each) for each in before} == before


SPAWNED = """
import os, signal, sys
import numpy as np
def main():
    import torch
    import timm
    from datasets import load_from_disk
    import hf_midrange as hm
    from hf_midrange import columns
    torch.multiprocessing.set_start_method("spawn")
    torch.manual_seed(0)
    torch.set_num_threads(1)
    ds = load_from_disk(sys.argv[1])
    model = timm.create_model("test_resnet", num_classes=3)
    here = columns.matrix(hm.extract(ds, model, batch_size=4), "logits")
    there = columns.matrix(hm.extract(ds, model, batch_size=4, num_workers=2), "logits")
    print("same" if np.array_equal(here, there) else "other")
if __name__ == "__main__":
    main()
"""

DYING = """
import os, signal, sys
import torch, timm
from datasets import load_from_disk
import hf_midrange as hm
from hf_midrange.extraction import inputs
torch.manual_seed(0)
torch.set_num_threads(1)
read = inputs.Preparation.__call__
def deadly(self, first, values):
    if first >= 8 and torch.utils.data.get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, first, values)
inputs.Preparation.__call__ = deadly
try:
    model = timm.create_model("test_resnet", num_classes=3)
    hm.extract(load_from_disk(sys.argv[1]), model, batch_size=2, shard_size=4, num_workers=2, output_dir=sys.argv[2])
except RuntimeError as error:
    print("orker" in str(error), error)
"""


def script(text: str, *words: object) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    path = Path(str(words[0])).with_name("script.py")
    path.write_text(text)
    return subprocess.run(
        [sys.executable, path, *map(str, words)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_workers_that_are_spawned_give_the_same_rows(tmp_path):
    images(12).save_to_disk(tmp_path / "data")
    done = script(SPAWNED, tmp_path / "data")
    assert done.stdout.splitlines()[-1:] == ["same"], done.stderr[-3000:]


def test_a_worker_that_dies_ends_the_call_which_goes_on_later(tmp_path):
    images(23).save_to_disk(tmp_path / "data")
    done = script(DYING, tmp_path / "data", tmp_path / "out")
    assert done.stdout.startswith("True"), done.stdout + done.stderr[-3000:]
    finished = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("shard-*.json")}
    ds = load_from_disk(tmp_path / "data")
    hm.extract(ds, timm_model(), batch_size=2, shard_size=4, output_dir=tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(read_shards(tmp_path / "out")) == 23


def test_rows_that_name_addresses_ask_nobody(monkeypatch):
    """`socket` is shut, and the message is not that of a connection that failed."""
    import socket

    def asked(*words, **options):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setattr(socket, "getaddrinfo", asked)
    cells = [{"bytes": None, "path": f"http://127.0.0.1:9/{k}.png"} for k in range(3)]
    kept = images(3).select_columns(["image"]).cast_column("image", Image(decode=False))["image"][:]
    ds = Dataset.from_dict({"image": [*cells, *kept]}, features=Features({"image": Image()}))
    with pytest.raises(ValueError, match="row 0 .*it is an address, which is not fetched"):
        hm.extract(ds, timm_model())
    with pytest.raises(ValueError, match="row 0 .*it is an address, which is not fetched"):
        hm.annotate(ds, [hm.Thumbnail()])
    with pytest.warns(UserWarning, match="3 of 6 rows"):
        assert len(hm.annotate(ds, [hm.Thumbnail()], on_error="skip")) == 3


@pytest.mark.parametrize("name", ["../secret/data.arrow", "/etc/data.arrow", "linked.arrow"])
def test_a_saved_dataset_that_names_files_elsewhere_is_refused(name, tmp_path):
    import json

    Dataset.from_dict({"a": [1, 2]}).save_to_disk(tmp_path / "secret")
    Dataset.from_dict({"a": [3, 4]}).save_to_disk(tmp_path / "handed")
    state = tmp_path / "handed" / "state.json"
    facts = json.loads(state.read_text())
    state.write_text(json.dumps({**facts, "_data_files": [{"filename": name}]}))
    (tmp_path / "handed" / "linked.arrow").symlink_to(tmp_path / "secret" / "data-00000-of-00001.arrow")
    with pytest.raises(ValueError, match="which does not lie beside it"):
        read_dataset(str(tmp_path / "handed"))


def test_a_parquet_file_that_blows_up_is_refused_by_what_it_claims(tmp_path):
    file = tmp_path / "bomb.parquet"
    with pq.ParquetWriter(file, pa.schema([("label", pa.int64())]), compression="zstd") as writer:
        part = pa.table({"label": np.zeros(5_500_000, dtype=np.int64)})
        for _ in range(4):
            writer.write_table(part)
    assert file.stat().st_size < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="claims 22,000,000 values, more than 100 a byte"):
        read_dataset(str(file))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000
    shutil.copytree(OLD / "findings", tmp_path / "findings")
    shutil.copy(file, tmp_path / "findings" / "findings.parquet")
    (tmp_path / "findings" / "provenance.json").write_text("{}")
    with pytest.raises(ValueError, match="claims 22,000,000 values"):
        load_findings(tmp_path / "findings")


def test_a_safetensors_file_cannot_claim_more_than_it_holds(tmp_path):
    shutil.copytree(OLD / "head", tmp_path / "head")
    file = tmp_path / "head" / "head.safetensors"
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length].decode()
    for told_length, claimed in ((2**62, header), (None, header.replace('"shape":[2,4]', '"shape":[200000000,4]'))):
        bent = claimed.encode()
        file.write_bytes((told_length or len(bent)).to_bytes(8, "little") + bent + content[8 + length :])
        with pytest.raises(ValueError, match=r"head\.safetensors"):
            hm.LinearHead.from_pretrained(tmp_path / "head")


def test_curations_are_put_together_with_their_reports(vit):
    curated = load_from_disk(vit / "curate")
    other = hm.curate(load_from_disk(vit / "annotate"), seed=1)
    with pytest.raises(ValueError, match="aligned"):
        concatenate_datasets([curated, other])
    whole = joined([curated, other])
    report = hm.curation_report(whole)
    assert len(whole) == report["rows"] == 96
    assert report["strength"] == min(hm.curation_report(part)["strength"] for part in (curated, other))
    assert [part["seed"] for part in report["parts"]] == [0, 1]
    assert whole["weight"][:] == [*curated["weight"], *other["weight"]]
    hm.retrain_head(whole)
    assert "rows_here" not in report
    assert hm.curation_report(curated.select(range(10)))["rows_here"] == 10
    with pytest.raises(ValueError, match="'embedding' is not the same in all curations"):
        joined([curated, other.cast_column("embedding", columns.vector(16))])


@pytest.mark.slow
def test_a_hundred_thousand_concepts_and_ten_thousand_classes():
    rng, n = np.random.default_rng(0), 800
    label = np.arange(n) % 2
    words = [f"word {k}" for k in range(100_000)]
    present = rng.random((n, len(words))) < 0.01
    ds = Dataset.from_dict({"label": label}).cast_column("label", ClassLabel(names=["a", "b"]))
    logits = rng.normal(size=(n, 2)).astype(np.float32)
    parts = {
        "logits": (logits, columns.vector(2)),
        "concepts_words": (columns.concept_arrow(present, words), columns.concept_list(words)),
    }
    ds = columns.with_columns(ds, parts)
    bands = hm.LogitBands("quantile").fit(ds)
    assert len(hm.associate(bands.transform(ds))) < 100
    names = [f"kind {k}" for k in range(10_000)]
    wide = Dataset.from_dict({"label": np.arange(2000)}).cast_column("label", ClassLabel(names=names))
    parts = {
        "logits": (rng.normal(size=(2000, 10_000)).astype(np.float32), columns.vector(10_000)),
        "concepts_words": (
            columns.concept_arrow(rng.random((2000, 2)) < 0.3, ["x", "y"]),
            columns.concept_list(["x", "y"]),
        ),
    }
    wide = columns.with_columns(wide, parts)
    assert len(hm.associate(hm.LogitBands("quantile").fit(wide).transform(wide))) < 1000
