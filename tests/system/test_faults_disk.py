"""Disks that are full, folders that cannot be written, and files that changed."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.classifiers import images, timm_model
from support.killing import files
from support.tied_images import tied_images
from support.told import told

import hf_midrange as hm
from hf_midrange.columns import matrix
from hf_midrange.extraction.shards import read_shards
from hf_midrange.io.datasets import read_dataset, write_dataset
from hf_midrange.io.files import DamagedFileError


pytestmark = pytest.mark.timeout(90)




@pytest.fixture
def small_disk(tmp_path):
    """A file system of 400 kB; only root may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", place], capture_output=True)
    if mounted.returncode:
        pytest.skip("no right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def read_only(tmp_path):
    """A folder that cannot be written; for root, permissions are no obstacle, a read-only mount is."""
    place = tmp_path / "read-only"
    place.mkdir()

    def shut() -> Path:
        if os.geteuid():
            place.chmod(0o555)
        elif subprocess.run(["mount", "--bind", "-o", "ro", place, place], capture_output=True).returncode:
            pytest.skip("no right to mount a folder")
        return place

    yield place, shut
    if os.geteuid():
        place.chmod(0o755)
    else:
        subprocess.run(["umount", place], capture_output=True)


@pytest.fixture(scope="module")
def vit(tmp_path_factory):
    place = tmp_path_factory.mktemp("vit")
    tied_images(place)
    return place


def test_a_full_disk_says_what_to_do_and_the_same_call_goes_on(small_disk):
    ds, model = images(23), timm_model()
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(385_000))
    with pytest.raises(OSError, match=r"disk is full.*free some space and run the same") as error:
        hm.extract(ds, model, batch_size=2, shard_size=4, output_dir=small_disk / "out")
    assert "shard-" in error.value.filename
    finished = {path: path.stat().st_mtime_ns for path in (small_disk / "out").glob("*.json")}
    assert len(finished) > 1
    assert not list((small_disk / "out").glob("*.tmp"))
    ballast.unlink()
    result = hm.extract(ds, model, batch_size=2, shard_size=4, output_dir=small_disk / "out")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    expected = hm.extract(ds, model, batch_size=2, shard_size=4)
    np.testing.assert_array_equal(matrix(result, "logits"), matrix(expected, "logits"))


def test_a_command_on_a_full_disk_is_one_line_and_leaves_nothing_half(small_disk, vit, capsys):
    (small_disk / "ballast").write_bytes(bytes(395_000))
    words = ("annotate", vit / "data", "--source", "annotations:place", "--output", small_disk / "out")
    code, said = told(capsys, *words)
    assert code == 1
    assert "disk is full" in said
    assert len(said.splitlines()) == 1
    assert not (small_disk / "out").exists()
    (small_disk / "ballast").unlink()
    assert told(capsys, *words) == (0, "")


def test_a_read_only_folder_is_refused_before_work(read_only, vit, capsys):
    _, shut = read_only
    place, model = shut(), timm_model()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model ran"))
    with pytest.raises(OSError, match="cannot be written"):
        hm.extract(images(4), model, output_dir=place)
    with pytest.raises(OSError, match="cannot be written"):
        hm.extract(images(4), model, output_dir=place / "out")
    code, said = told(capsys, "bands", vit / "data", "--output", place / "out")
    assert code == 1
    assert "cannot be written" in said


def test_a_data_set_in_a_read_only_folder_is_read(read_only, vit, tmp_path, capsys):
    place, shut = read_only
    subprocess.run(["cp", "-r", vit / "data", place / "data"], check=True)
    shut()
    words = ("annotate", place / "data", "--source", "thumbnail", "--output", tmp_path / "out")
    assert told(capsys, *words)[0] == 0
    assert set(files(place / "data")) == set(files(vit / "data"))


def damaged(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "truncated":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[len(content) // 2] ^= 4
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_a_damaged_shard_is_named_where_it_is_read(how, tmp_path):
    ds = images()
    hm.extract(ds, timm_model(), shard_size=10, output_dir=tmp_path)
    damaged(tmp_path / "shard-000001.arrow", how)
    with pytest.raises(DamagedFileError, match=r"shard-000001\.arrow is not what was written.*delete it.*again"):
        read_shards(tmp_path)
    with pytest.raises(DamagedFileError, match=r"shard-000001\.arrow"):
        hm.LogitBands("quantile").fit(tmp_path)
    again = hm.extract(ds, timm_model(), shard_size=10, output_dir=tmp_path)
    np.testing.assert_array_equal(matrix(read_shards(tmp_path), "logits"), matrix(again, "logits"))


def test_the_outputs_of_an_extraction_that_is_not_finished_are_refused(tmp_path):
    hm.extract(images(), timm_model(), shard_size=10, output_dir=tmp_path)
    last = max(tmp_path.glob("shard-*.json"))
    last.unlink()
    with pytest.raises(FileNotFoundError, match="holds 20 of 23 rows: .*not finished"):
        read_shards(tmp_path)


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_the_next_command_names_a_damaged_file(how, vit, tmp_path, capsys):
    write_dataset(read_dataset(str(vit / "data")), tmp_path / "ds")
    damaged(tmp_path / "ds" / "data-00000-of-00001.arrow", how)
    code, said = told(capsys, "bands", tmp_path / "ds", "--output", tmp_path / "out")
    assert code == 1
    assert "data-00000-of-00001.arrow is not what was written" in said
    assert "write the dataset again" in said
    assert not (tmp_path / "out").exists()


def test_a_missing_file_of_a_data_set_is_named(vit, tmp_path):
    write_dataset(read_dataset(str(vit / "data")), tmp_path / "ds")
    (tmp_path / "ds" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(FileNotFoundError, match=r"data-00000.*is missing; write the dataset again"):
        read_dataset(str(tmp_path / "ds"))


@pytest.mark.parametrize("how", ["truncated", "flipped"])
def test_measured_rows_that_were_damaged_are_measured_again(how, vit, tmp_path):
    ds = read_dataset(str(vit / "data"))
    first = hm.annotate(ds, [hm.EarlyFeatures(str(vit / "vit"))], output_dir=tmp_path)["view_early_features"][:]
    (path,) = tmp_path.glob("*/shard-*.arrow")
    content = path.read_bytes()
    damaged(path, how)
    again = hm.annotate(ds, [hm.EarlyFeatures(str(vit / "vit"))], output_dir=tmp_path)
    assert path.read_bytes() == content
    assert again["view_early_features"][:] == first
