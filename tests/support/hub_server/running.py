"""The server in a process of its own, and roles (pusher, reader, stranger) in processes of theirs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


TESTS = Path(__file__).parents[2]
ROOT = TESTS.parent


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    root: Path

    def log(self, method: str = "", path: str = "") -> list[dict[str, Any]]:
        """Return the requests so far, those of a method and with a text in their path if given."""
        with urllib.request.urlopen(f"{self.url}/-/log") as answer:
            rows = json.load(answer)
        return [row for row in rows if row["method"].startswith(method) and path in row["path"]]

    def fail(self, *faults: dict[str, Any]) -> None:
        """Make requests fail; see `Fault`. Without arguments nothing fails any more."""
        body = json.dumps(faults).encode()
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/-/faults", data=body, method="POST")).close()

    def git(self, kind: str, repo_id: str, *args: str) -> str:
        """Return what a git command says in a repository."""
        command = ["git", "-C", str(self.root / kind / f"{repo_id}.git"), *args]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def environment(self, home: Path, token: str | None, xet: bool) -> dict[str, str]:
        """Return the environment of a fresh user of this server; both switches are read when the clients load."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "PYTEST"))}
        home.mkdir(parents=True, exist_ok=True)
        return kept | {
            "HOME": str(home),
            "HF_HOME": str(home / "hf"),
            "HF_ENDPOINT": self.url,
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "0" if xet else "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "TQDM_DISABLE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **({"HF_TOKEN": token} if token else {}),
        }

    def run(
        self,
        code: str,
        home: Path,
        token: str | None = None,
        *,
        xet: bool = False,
        ours: bool = True,
        timeout: int = 240,
    ) -> subprocess.CompletedProcess[str]:
        """Run Python code in a fresh process; without `ours`, `hf_midrange` cannot be imported there."""
        environment = self.environment(home, token, xet)
        before = os.environ.get("PYTHONPATH", "").split(os.pathsep)  # other versions of libraries, maybe
        paths = [*before, str(TESTS), *([str(ROOT)] if ours else [])]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        hidden = "" if ours else _HIDE
        command = [sys.executable, "-c", hidden + code]
        return subprocess.run(
            command, env=environment, cwd=home, capture_output=True, text=True, timeout=timeout, check=False
        )


_HIDE = """
import sys
class _Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hf_midrange":
            raise ModuleNotFoundError("No module named 'hf_midrange'", name=name)
sys.meta_path.insert(0, _Absent())
"""


@contextmanager
def running(root: Path, users: dict[str, dict[str, Any]]) -> Iterator[Server]:
    """Start the server on a free port; `users` maps a token to the fields of `User`."""
    root.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "support.hub_server.server", str(root)]
    process = subprocess.Popen(
        command,
        cwd=TESTS,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": ""},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(users))
    process.stdin.close()
    try:
        yield Server(f"http://127.0.0.1:{int(process.stdout.readline())}", root)
    finally:
        process.terminate()
        process.wait(10)
