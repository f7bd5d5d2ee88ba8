"""Commands are killed at random moments and started again: the result is that of a run that nobody killed."""

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from support.hub_server.running import running
from support.killing import CONTEXT, Command, files
from support.tied_images import tied_images

from hf_midrange.io.datasets import read_dataset


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
    if find_spec("gradio"):
        findings = ("--findings", place / "associate")
        commands["explore"] = Command("explore", place / "curate", *findings, "--space", "me/x", *out)
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


KILLS = {
    "extract": 10,
    "bands": 4,
    "annotate": 8,
    "associate": 4,
    "curate": 4,
    "retrain": 4,
    "run": 8,
    "report": 4,
    "explore": 4,
}


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", KILLS)
def test_killed_at_any_moment(material, name, tmp_path):
    if name not in material.commands:
        pytest.skip("the explorer needs gradio")
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


def exporting(folder: str, out: str, ready) -> None:
    from datasets import load_from_disk

    from hf_midrange.explorer.marks import Exports

    exports = Exports(load_from_disk(folder), None, Path(out))
    ready.set()
    for mark in ("keep", "drop") * 50:
        exports.write({0: mark, 1: "keep"})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_the_explorer_writes_is_whole_whenever_it_is_killed(material, tmp_path):
    rng, out, seen = np.random.default_rng(0), tmp_path / "out", set()
    for _ in range(8):
        ready = CONTEXT.Event()
        process = CONTEXT.Process(target=exporting, args=(str(material.place / "curate"), str(out), ready))
        process.start()
        assert ready.wait(120)
        time.sleep(rng.uniform(0, 1.5))
        process.kill()
        process.join()
        if out.exists():
            rows = read_dataset(str(out))
            assert len(rows) == 48
            seen.add(rows["reason"][0].split(" by hand")[0])
    assert seen <= {"marked keep", "marked drop"}
    assert seen
    ready = CONTEXT.Event()
    again = CONTEXT.Process(target=exporting, args=(str(material.place / "curate"), str(out), ready))
    again.start()
    again.join(300)
    assert again.exitcode in (0, 3)
    assert read_dataset(str(out))["reason"][0].startswith("marked drop by hand")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_check_that_was_killed_leaves_no_half_baseline(material, tmp_path):
    rng, model, rows = np.random.default_rng(0), material.place / "vit", material.place / "data"
    command = Command("check", model, rows, "--save-baseline", "{out}", "--floor", "0.01")
    began = time.monotonic()
    command.finish(tmp_path / "whole", codes=(0, 1, 3))
    span = time.monotonic() - began
    for trial in range(4):
        process = command.start(tmp_path / "out")
        time.sleep(rng.uniform(0.3, 1) * span)
        process.kill()
        process.join()
        command.finish(tmp_path / "out", codes=(0, 1, 3))
        assert files(tmp_path / "out") == files(tmp_path / "whole"), trial


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


ADAPTER = """
import sys
import numpy as np, peft, torch
sys.path[:0] = sys.argv[1].split(":")
from support.trainer_parts import bert
import hf_midrange as hm
linears = [name for name, module in bert().named_modules() if isinstance(module, torch.nn.Linear)]
named = [name for name in linears if "attention" in name]
torch.manual_seed(0)
config = peft.LoraConfig(r=2, target_modules=named, init_lora_weights=False, task_type="SEQ_CLS")
head = hm.LinearHead.from_weights(np.random.default_rng(0).normal(size=(2, 16)), [0.5, -0.5])
repaired = head.merge_into(peft.get_peft_model(bert(), config))
hm.publish_model(repaired, sys.argv[2], head=head, base_model="me/base")
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_publishing_an_adapter_that_was_killed_is_done_once_started_again(tmp_path):
    pytest.importorskip("peft")
    rng = np.random.default_rng(1)
    with running(tmp_path / "hub", {ME: {"name": "me"}}) as server:
        environment = server.environment(tmp_path / "home", ME, xet=False) | {"OMP_NUM_THREADS": "1"}

        def started(repo: str) -> subprocess.Popen:
            words = [sys.executable, "-c", ADAPTER, ":".join(sys.path), repo]
            return subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True)

        def published(repo: str) -> list[str]:
            process = started(repo)
            assert process.wait(200) == 0, process.stderr.read()[-3000:]
            return server.git("models", repo, "ls-tree", "-r", "main").replace(repo, "REPO").splitlines()

        began = time.monotonic()
        whole = published("me/zero")
        span = time.monotonic() - began
        assert {line.split("\t")[1] for line in whole} >= {"adapter_config.json", "adapter_model.safetensors"}
        weights = [line for line in whole if "safetensors" in line]
        for trial in range(4):
            process = started(f"me/no-{trial}")
            time.sleep(rng.uniform(0.6, 1) * span)
            process.kill()
            process.wait()
            tree = published(f"me/no-{trial}")
            assert [line.split("\t")[1] for line in tree] == [line.split("\t")[1] for line in whole]
            assert [line for line in tree if "safetensors" in line] == weights
