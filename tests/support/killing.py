"""Starts commands in processes of their own, kills them, starts them again, and tells what is on disk.

The processes are forked from one that has imported everything and done nothing, so that a start costs a tenth of a
second instead of five.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from collections.abc import Callable, Collection
from pathlib import Path

from hf_midrange.io.folders import unfinished


CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "timm", "datasets", "sklearn.linear_model", "transformers.models.vit.modeling_vit",
     "transformers.models.vit.image_processing_vit", "transformers.models.auto.modeling_auto",
     "hf_midrange.commands.app", "hf_midrange.extraction", "hf_midrange.concepts", "hf_midrange.curation",
     "hf_midrange.head", "hf_midrange.reporting"]
)  # fmt: skip

TIMEOUT = 120
"""Seconds after which a process counts as stuck."""


FINISHED = (0, 3)
"""Exit statuses of a command that did all its work; 3: it left the model as it is."""


class Command:
    """A command line with `{out}` where the folder that it writes goes."""

    def __init__(self, *words: object) -> None:
        self.words = [str(word) for word in words]

    def start(self, out: Path) -> multiprocessing.process.BaseProcess:
        """Return the running process; what it says goes to `<out>.log`."""
        out.parent.mkdir(parents=True, exist_ok=True)
        words = [word.replace("{out}", str(out)) for word in self.words]
        process = CONTEXT.Process(target=_run, args=(words, str(out) + ".log"))
        process.start()
        return process

    def finish(self, out: Path, codes: Collection[int] = FINISHED) -> None:
        """Run to the end, which must be a good one."""
        process = self.start(out)
        process.join(TIMEOUT)
        assert process.exitcode in codes, (self.words, process.exitcode, Path(f"{out}.log").read_text()[-3000:])
        Path(f"{out}.log").unlink()

    def span(self, out: Path) -> float:
        """Return the seconds from the first sign on disk to the end."""
        process = self.start(out)
        began = _wait(lambda: has_begun(out), process)
        process.join(TIMEOUT)
        assert process.exitcode in FINISHED, Path(f"{out}.log").read_text()[-3000:]
        Path(f"{out}.log").unlink()
        return time.monotonic() - began

    def kill(self, out: Path, after: float) -> bool:
        """Start, and kill so many seconds after the first sign on disk; return whether that came before the end."""
        process = self.start(out)
        began = _wait(lambda: has_begun(out), process)
        process.join(max(0.0, began + after - time.monotonic()))
        process.kill()
        process.join(TIMEOUT)
        return process.exitcode not in FINISHED


def has_begun(out: Path) -> bool:
    """Whether a command has written anything."""
    return unfinished(out).exists() or Path(f"{out}.shards").exists()


def files(folder: Path) -> dict[str, str]:
    """Return what is in a folder, hidden files and empty folders too: path -> sha256."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
    return found


def _wait(ready: Callable[[], bool], process: multiprocessing.process.BaseProcess) -> float:
    deadline = time.monotonic() + TIMEOUT
    while not ready() and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)
    return time.monotonic()


def _run(words: list[str], log: str) -> None:
    import datasets
    import torch

    from hf_midrange.commands.app import main
    from hf_midrange.concepts import map_steps

    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    map_steps.SHARD_ROWS = 8
    main(words)
