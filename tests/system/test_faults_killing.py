"""Commands are killed at random moments and started again: the result is that of a run that nobody killed."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.hub_server.running import running
from support.killing import Command, files
from support.tied_images import tied_images


@dataclass(frozen=True)
class Material:
    """What the commands read, what they gave when left alone, and how long that took."""

    place: Path
    commands: dict[str, Command]
    spans: dict[str, float]

    def reference(self, name: str) -> dict[str, str]:
        return everything(self.place / name)


def everything(out: Path) -> dict[str, dict[str, str]]:
    """Return the output and the shards beside it."""
    return {"out": files(out), "shards": files(Path(f"{out}.shards"))}




@pytest.fixture(scope="module")
def material(tmp_path_factory):
    place = tmp_path_factory.mktemp("killing")
    tied_images(place)
    out, vit = ("--output", "{out}"), ("--model", place / "vit")
    early = ("--source", f"early-features:{place / 'vit'}", "--source", "annotations:place")
    commands = {
        "extract": Command("extract", place / "data", *vit, "--shard-size", 4, "--batch-size", 2, *out),
        "bands": Command("bands", place / "extract", *out),
        "annotate": Command("annotate", place / "bands", *early, *out),
        "associate": Command("associate", place / "annotate", *out),
        "curate": Command("curate", place / "annotate", "--findings", place / "associate", *out),
        "retrain": Command("retrain", place / "curate", *vit, "--merge", *out),
        "run": Command("run", place / "data", *vit, "--batch-size", 2, *early, *out),
        "report": Command("report", place / "curate", "--findings", place / "associate", *out),
    }
    spans = {name: command.span(place / name) for name, command in commands.items()}
    return Material(place, commands, spans)


def killed_and_restarted(material: Material, name: str, share: float, out: Path) -> None:
    """Kill after a share of the time that the command takes, then run it to the end."""
    before = files(material.place / "data")
    command, after = material.commands[name], share * material.spans[name]
    while not command.kill(out, after):  # it was faster this time
        subprocess.run(["rm", "-r", str(out), f"{out}.shards"], capture_output=True, check=False)
        after *= 0.7
    finished = {path: path.stat().st_mtime_ns for path in Path(f"{out}.shards").glob("*.json")}
    command.finish(out)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished, "a finished shard was computed again"
    assert everything(out) == material.reference(name)
    assert files(material.place / "data") == before


@pytest.mark.parametrize(
    ("name", "share"),
    [("extract", 0.5), ("annotate", 0.6), ("curate", 0.4), ("retrain", 0.9), ("run", 0.3), ("run", 0.95)],
)
def test_a_command_that_was_killed_is_started_again(material, name, share, tmp_path):
    killed_and_restarted(material, name, share, tmp_path / "out")


KILLS = {"extract": 10, "bands": 4, "annotate": 8, "associate": 4, "curate": 4, "retrain": 4, "run": 8, "report": 4}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", KILLS)
def test_killed_at_any_moment(material, name, tmp_path):
    rng = np.random.default_rng(list(KILLS).index(name))
    for trial in range(KILLS[name]):
        killed_and_restarted(material, name, rng.uniform(0, 1.05), tmp_path / str(trial))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_again_and_again(material, tmp_path):
    rng, command, out = np.random.default_rng(0), material.commands["run"], tmp_path / "out"
    for _ in range(6):
        command.kill(out, rng.uniform(0, 0.5) * material.spans["run"])
    command.finish(out)
    assert everything(out) == material.reference("run")


PUBLISH = "import sys; from hf_midrange.commands.app import main; main(sys.argv[1:])"
ME = "hf_" + "k" * 34


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_publishing_that_was_killed_is_done_once_started_again(material, tmp_path):
    rng = np.random.default_rng(0)
    with running(tmp_path / "hub", {ME: {"name": "me"}}) as server:
        environment = server.environment(tmp_path / "home", ME, xet=False) | {"TMPDIR": str(tmp_path / "tmp")}
        (tmp_path / "tmp").mkdir()

        def started(repo: str) -> subprocess.Popen:
            words = [sys.executable, "-c", PUBLISH, "publish", repo, "--dataset", str(material.place / "curate")]
            return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

        def published(repo: str) -> tuple[str, str]:
            process = started(repo)
            assert process.wait(120) == 0, process.stderr.read()
            tree = server.git("datasets", repo, "ls-tree", "-r", "main")
            return tree.replace(repo, "REPO"), server.git("datasets", repo, "log", "--format=%s", "main")

        began = time.monotonic()
        _, history = published("me/zero")
        span = time.monotonic() - began
        for trial in range(1, 5):
            process = started(f"me/no-{trial}")
            time.sleep(rng.uniform(0.4, 1) * span)
            process.kill()
            process.wait()
            tree, log = published(f"me/no-{trial}")
            read = server.git("datasets", f"me/no-{trial}", "show", "main:README.md")
            reference = server.git("datasets", "me/zero", "show", "main:README.md")
            assert read.replace(f"me/no-{trial}", "REPO") == reference.replace("me/zero", "REPO")
            names = [line.split("\t")[1] for line in tree.splitlines()]
            assert names == server.git("datasets", "me/zero", "ls-tree", "-r", "--name-only", "main").splitlines()
            assert log.splitlines() in (history.splitlines(), [history.splitlines()[0], *history.splitlines()])
        assert json.loads(json.dumps(names))
        assert not list((tmp_path / "tmp").iterdir())
