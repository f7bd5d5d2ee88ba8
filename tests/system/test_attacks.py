"""What attackers and accidents tried: outputs inside inputs, closed pipes, thousands of classes, tokens that leak."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, load_from_disk
from support.commands import called
from support.hub_server.running import running
from support.tied_rows import simulate

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.commands import app as cli


TOKEN = "hf_" + "s3cr3t" * 6
COMMAND = [sys.executable, "-m", "hf_midrange.commands.app"]


@pytest.fixture
def rows(tmp_path):
    return Path(shutil.copytree(Path(__file__).parents[1] / "data" / "0.1.0" / "curated", tmp_path / "rows"))


def hashes(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    ("here", "dataset", "output"),
    [("..", "rows", "rows"), (".", ".", "."), ("..", "rows", "rows/../rows"), ("..", "alias", "rows")],
)
def test_the_input_is_never_the_output(here, dataset, output, rows, tmp_path, monkeypatch):
    (tmp_path / "alias").symlink_to(rows)
    monkeypatch.chdir(rows / here)
    before = hashes(rows)
    with pytest.raises(ValueError, match="is the dataset that is read"):
        called("associate", dataset, "--output", output, "--overwrite")
    assert hashes(rows) == before


@pytest.mark.parametrize("output", ["rows/out", "alias/out"])
def test_an_output_inside_the_input_leaves_the_input_whole(output, rows, tmp_path, monkeypatch):
    (tmp_path / "alias").symlink_to(rows)
    monkeypatch.chdir(tmp_path)
    before = hashes(rows)
    called("associate", "rows", "--output", output)
    assert hashes(rows) == before
    assert len(load_from_disk(rows)) == 120
    assert len(load_from_disk(rows / "out")) == 3


def test_an_empty_folder_that_one_stands_in_is_filled(rows, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    called("associate", "../rows", "--output", ".")
    assert len(load_from_disk(tmp_path / "here")) == 3


@pytest.mark.parametrize("words", [["associate", "rows", "--output", "found"], ["evaluate", "rows"], ["--help"]])
def test_a_reader_that_goes_away_is_no_traceback(words, rows, tmp_path):
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, *words], stdout=write, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    os.close(write)
    assert "Traceback" not in done.stderr
    assert done.returncode in (0, 1)
    if "--output" in words:  # what it was asked to write is whole
        assert len(load_from_disk(tmp_path / "found")) == 3


def many_classes(number, rows_each=2):
    rng = np.random.default_rng(0)
    n, ids = number * rows_each, np.arange(number * rows_each) % number
    logits = rng.normal(size=(n, number)).astype(np.float32)
    logits[np.arange(n), ids] += 3
    names = [f"kind {k}" for k in range(number)]
    ds = Dataset.from_dict({"label": ids}).cast_column("label", ClassLabel(names=names))
    has = rng.random((n, 2)) < 0.3
    return columns.with_columns(
        ds,
        {
            "logits": (logits, columns.vector(number)),
            "embedding": (rng.normal(size=(n, 8)).astype(np.float32), columns.vector(8)),
            "concepts_tags": (columns.concept_arrow(has, ["x", "y"]), columns.concept_list(["x", "y"])),
        },
    )


def test_three_thousand_classes_are_looked_at_and_refused_in_a_sentence():
    from hf_midrange.explorer.cards import Cards
    from hf_midrange.explorer.index import Choice, Index

    ds = many_classes(3000)
    ds = hm.LogitBands("quantile").fit(ds).transform(ds)
    findings = hm.associate(ds)
    page = hm.report(ds, findings).html
    assert len(page) < 1_000_000
    assert "2900 more groups in report.json" in page
    index = Index(ds, findings)
    choice = Choice(unit=2999)
    assert len(Cards(ds, index).rows(choice, index.side(choice, True))) == 2
    with pytest.raises(ValueError, match="and 2995 more have fewer") as refused:
        hm.curate(ds)
    assert len(str(refused.value)) < 500


def test_no_command_takes_a_token_that_others_could_read_in_the_list_of_processes():
    from typer.main import get_command

    flags = {flag for each in get_command(cli.app).commands.values() for part in each.params for flag in part.opts}
    assert len(flags) > 30
    assert {flag for flag in flags if re.search("token|secret|password", flag)} == set()


PUBLISH = """
import traceback
from datasets import load_from_disk
import hf_midrange as hm
curated = load_from_disk("rows")
print(hm.publish_dataset(curated, "me/there").commit_url)
for wrong in ("nobody/else", "me/a b"):
    try:
        hm.publish_dataset(curated, wrong)
    except ValueError as error:
        traceback.print_exc()
hm.publish_dataset(curated.select(range(50)), "me/given", token=TOKEN)
"""


def test_a_token_is_in_no_file_message_or_traceback(rows, tmp_path):
    with running(tmp_path / "hub", {TOKEN: {"name": "me"}}) as server:
        script = f"import os; os.chdir({str(tmp_path)!r})\nTOKEN = os.environ['HF_TOKEN']\n{PUBLISH}"
        done = server.run(script, tmp_path / "home", TOKEN)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Traceback") >= 2
    assert TOKEN not in done.stdout + done.stderr
    seen = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(seen) > 20
    assert [path for path in seen if TOKEN.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("strength", [0.8, 3.0])
def test_more_rows_of_the_same_tie_never_weaken_its_verdict(strength):
    order = ["none seen", "suspected", "shown"]
    said = [
        hm.curation_report(hm.curate(simulate(rows, contrary=0.1, seed=1, strength=strength)))["verdict"]
        for rows in (60, 200, 800, 5000)
    ]
    assert [order.index(verdict) for verdict in said] == sorted(order.index(verdict) for verdict in said)
    assert strength < 1 or said[-1] == "shown"


def test_a_pipe_in_place_of_a_file_hangs_nothing(rows, tmp_path):
    (tmp_path / "handed").mkdir()
    os.mkfifo(tmp_path / "handed" / ".finished.json")
    with pytest.raises(ValueError, match="is not empty"):
        called("associate", rows, "--output", tmp_path / "handed")
    (tmp_path / "gone").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="is a link to what is not there"):
        called("associate", rows, "--output", tmp_path / "gone")
