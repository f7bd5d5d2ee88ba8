"""A command that finished does nothing when it is given again; one that differs in anything does the work."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from support.commands import called

from hf_midrange.commands import outputs
from hf_midrange.io.datasets import write_dataset
from hf_midrange.io.folders import AlreadyFinishedError, unfinished


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder that words on the command line are relative to, with rows in it."""
    monkeypatch.chdir(tmp_path)
    write_rows("rows", 0)
    return tmp_path


def write_rows(name: str, seed: int) -> None:
    shutil.rmtree(name, ignore_errors=True)
    write_dataset(
        Dataset.from_dict({"place": np.random.default_rng(seed).choice(["a", "b"], 40).tolist()}), Path(name)
    )


def annotate(*words):
    return called("annotate", "rows", "--source", "annotations:place", *words)


def state(folder: str) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*")}


def test_the_very_same_command_says_that_it_has_finished(here):
    annotate("--output", "out")
    before = state("out")
    with pytest.raises(AlreadyFinishedError, match="out was made before"):
        annotate("--output", "out")
    (here / "c.yaml").write_text("dataset: rows\nsource: ['annotations:place']\n")
    with pytest.raises(AlreadyFinishedError):  # the same parameters, given in another way
        called("annotate", "--config=c.yaml", "--output=out")
    assert state("out") == before
    annotate("--output", "out", "--overwrite")
    assert state("out") != before


def test_what_a_kill_after_the_end_left_is_cleared_by_the_next_start(here):
    annotate("--output", "out")
    before = state("out")
    (unfinished(here / "out") / "work" / "shards").mkdir(parents=True)
    (unfinished(here / "out") / ".in-use").write_text("")
    with pytest.raises(AlreadyFinishedError):
        annotate("--output", "out")
    assert state("out") == before
    assert not unfinished(here / "out").exists()


def test_a_file_that_is_missing_from_the_output_is_noticed(here):
    annotate("--output", "out")
    next((here / "out" / "sources").iterdir()).unlink()
    with pytest.raises(ValueError, match="not empty"):
        annotate("--output", "out")


def refused(*words) -> None:
    """The command is not taken for the one that finished: it would do the work, where the output were empty."""
    with pytest.raises(ValueError, match="not empty"):
        called(*words)


def test_rows_that_a_yaml_file_names_may_not_change(here):
    (here / "c.yaml").write_text("dataset: rows\nsource: ['annotations:place']\n")
    called("annotate", "--config", "c.yaml", "--output", "out")
    write_rows("rows", 1)
    refused("annotate", "--config", "c.yaml", "--output", "out")


@pytest.mark.parametrize("given", [["--config", "d.yaml"], ["--config=d.yaml"]])
def test_a_value_in_a_yaml_file_may_not_change(here, given):
    (here / "d.yaml").write_text("on-error: raise\n")
    annotate("--output", "out", *given)
    (here / "d.yaml").write_text("on-error: skip\n")
    refused("annotate", "rows", "--source", "annotations:place", "--output", "out", *given)


def test_a_number_that_is_part_of_the_outputs_name_counts(here, monkeypatch):
    monkeypatch.setattr(outputs, "_running", FixedContext({"seed": 2}))
    one = outputs._key()
    monkeypatch.setattr(outputs, "_running", FixedContext({"seed": 21}))
    assert outputs._key() != one


class FixedContext:
    """A command with these parameters that writes a folder called 1."""

    def __init__(self, parameters):
        self.params, self.command, self.name = {**parameters, "output": Path("1")}, self, "curate"

    def get(self):
        return self


def key(monkeypatch, **parameters):
    monkeypatch.setattr(outputs, "_running", FixedContext(parameters))
    return outputs._key()


@pytest.mark.parametrize("named", ["model", "early-features:model", "zero-shot:imagenet:model"])
def test_weights_that_are_named_anywhere_may_not_change(here, named, monkeypatch):
    (here / "model").mkdir()
    (here / "model" / "weights").write_text("1")
    one = key(monkeypatch, source=[named])
    assert key(monkeypatch, source=[named]) == one
    (here / "model" / "weights").write_text("2")
    assert key(monkeypatch, source=[named]) != one


def test_another_version_does_it_again(here, monkeypatch):
    one = key(monkeypatch, seed=1)
    monkeypatch.setattr(outputs, "__version__", "99")
    assert key(monkeypatch, seed=1) != one
