"""Folders that are whole or absent, also those that came from someone else, with links and lists of their making."""

import json
from pathlib import Path

import pytest

from hf_midrange.io.folders import (
    LOCK,
    AlreadyFinishedError,
    new_folder,
    only_writer,
    scratch_folder,
    unfinished,
    written_once,
)


@pytest.fixture
def victim(tmp_path):
    """A folder that no output has anything to do with."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "file").write_text("precious")
    return tmp_path / "victim"


def write(place, text="new", **options):
    with new_folder(place, **options) as new:
        (new.folder / "file").write_text(text)


def test_nothing_is_in_place_before_all_is(tmp_path):
    with new_folder(tmp_path / "out") as new:
        (new.folder / "file").write_text("new")
        assert not (tmp_path / "out" / "file").exists()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_an_error_leaves_nothing(tmp_path):
    def fail(new):
        (new.folder / "file").write_text("new")
        raise KeyError

    with pytest.raises(KeyError), new_folder(tmp_path / "out") as new:
        fail(new)
    assert not (tmp_path / "out").exists()


def test_a_key_tells_what_was_made_before(tmp_path):
    write(tmp_path / "out", key="a")
    with pytest.raises(AlreadyFinishedError):
        write(tmp_path / "out", key="a")
    with pytest.raises(ValueError, match="not empty"):
        write(tmp_path / "out", key="b")
    write(tmp_path / "out", "newer", key="a", overwrite=True)
    assert (tmp_path / "out" / "file").read_text() == "newer"


def test_overwriting_deletes_nothing_else(tmp_path):
    write(tmp_path / "out")
    (tmp_path / "out" / "mine").write_text("kept")
    write(tmp_path / "out", "newer", overwrite=True)
    assert {path.name: path.read_text() for path in (tmp_path / "out").iterdir()} == {"file": "newer", "mine": "kept"}


@pytest.mark.parametrize("handed", ["moved.json", "link"])
def test_what_a_folder_from_someone_else_says_of_unfinished_work_is_not_read(tmp_path, victim, handed):
    """The files of 0.1.0, whose names and links were trusted."""
    (tmp_path / "out").mkdir()
    if handed == "link":
        (tmp_path / "out" / ".unfinished").symlink_to(victim)
        (tmp_path / "out" / ".in-use").symlink_to(victim / "file")
    else:
        (tmp_path / "out" / ".unfinished").mkdir()
        (tmp_path / "out" / ".unfinished" / "moved.json").write_text(json.dumps([str(victim)]))
    with pytest.raises(ValueError, match="not empty"):
        write(tmp_path / "out")
    write(tmp_path / "out", overwrite=True)
    assert [path.name for path in victim.iterdir()] == ["file"]
    assert (victim / "file").read_text() == "precious"


def test_a_link_beside_the_place_is_not_followed(tmp_path, victim):
    unfinished(tmp_path / "out").mkdir()
    for name in ("new", "work", "inputs"):
        (unfinished(tmp_path / "out") / name).symlink_to(victim)
    write(tmp_path / "out")
    unfinished(tmp_path / "other").symlink_to(victim)
    with pytest.raises(ValueError, match="is a link"):
        write(tmp_path / "other")
    assert [path.name for path in victim.iterdir()] == ["file"]
    assert (victim / "file").read_text() == "precious"


def test_an_empty_folder_is_filled_and_an_unfinished_one_goes_on(tmp_path):
    (tmp_path / "out").mkdir()
    (unfinished(tmp_path / "out") / "work").mkdir(parents=True)
    (unfinished(tmp_path / "out") / "work" / "step").write_text("done")
    (unfinished(tmp_path / "out") / "new").mkdir()
    with new_folder(tmp_path / "out") as new:
        assert (new.work / "step").read_text() == "done"
        assert not any(new.folder.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_error_keeps_work_to_go_on_with(tmp_path):
    def fail(new):
        new.work.mkdir()
        (new.work / "step").write_text("done")
        raise KeyError

    with pytest.raises(KeyError), new_folder(tmp_path / "out") as new:
        fail(new)
    assert [path.name for path in unfinished(tmp_path / "out").iterdir()] == ["work"]
    write(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_lock_that_is_a_link_is_refused(tmp_path, victim):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / LOCK).symlink_to(victim / "file")
    with pytest.raises(ValueError, match="is a link"), only_writer(tmp_path / "out"):
        pass
    assert (victim / "file").read_text() == "precious"


def test_a_link_inside_a_filled_folder_is_replaced_and_not_written_through(tmp_path, victim):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "sub").symlink_to(victim)
    with new_folder(tmp_path / "out", overwrite=True) as new:
        (new.folder / "sub").mkdir()
        (new.folder / "sub" / "file").write_text("new")
    assert (victim / "file").read_text() == "precious"
    assert (tmp_path / "out" / "sub" / "file").read_text() == "new"


def test_temporary_folders_of_others_are_left_alone(tmp_path, victim, monkeypatch):
    """Another user may make folders with links beside ours, where all share one folder for temporary files."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    trap = tmp_path / "hf-midrange-x"
    trap.mkdir()
    (trap / LOCK).symlink_to(victim / "file")
    (tmp_path / "hf-midrange-y").symlink_to(victim)
    (victim / LOCK).write_text("")
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o77 == 0
        assert not any(folder.iterdir())
    assert not folder.exists()
    assert (victim / "file").read_text() == "precious"
    assert (trap / LOCK).is_symlink()


def test_closing_the_file_of_a_lock_does_not_give_it_up(tmp_path):
    with only_writer(tmp_path):
        (tmp_path / LOCK).read_bytes()
        with pytest.raises(ValueError, match="being written by this very process"), only_writer(tmp_path):
            pass


def test_what_is_written_once_is_not_written_again(tmp_path):
    def make(part: Path) -> None:
        part.mkdir()
        calls.append(part)

    calls = []
    (tmp_path / "step.part").mkdir()  # of a process that died
    (tmp_path / "step.part" / "half").write_text("")
    for _ in range(2):
        written_once(tmp_path / "step", make)
    assert len(calls) == 1
    assert not any((tmp_path / "step").iterdir())
