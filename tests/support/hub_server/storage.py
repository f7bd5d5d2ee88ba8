"""Repositories as bare git repositories, large files as objects by their sha256."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path


LARGE = (".parquet", ".safetensors", ".bin", ".arrow", ".png", ".jpg", ".h5", ".msgpack")
ATTRIBUTES = "".join(f"*{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LARGE)
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {size}\n"


class Conflict(Exception):
    """The branch moved, or a name is taken."""


@dataclass(frozen=True)
class Entry:
    """One file or folder of a tree; `lfs` is (sha256, size of the content) of a large file."""

    path: str
    kind: str
    oid: str
    size: int
    lfs: tuple[str, int] | None = None

    @property
    def etag(self) -> str:
        return self.lfs[0] if self.lfs else self.oid

    @property
    def content_size(self) -> int:
        return self.lfs[1] if self.lfs else self.size


class Repo:
    """One bare git repository."""

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, threading.RLock()

    def git(self, *args: str, data: bytes = b"", **environment: str) -> bytes:
        command = ["git", "-C", str(self.path), *args]
        env = os.environ | {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull} | environment
        done = subprocess.run(command, input=data, capture_output=True, env=env)
        if done.returncode:
            raise Conflict(done.stderr.decode())
        return done.stdout

    def create(self, owner: str) -> None:
        self.path.mkdir(parents=True)
        self.git("init", "--quiet", "--bare", "--initial-branch=main", ".")
        self.commit("refs/heads/main", None, {".gitattributes": ATTRIBUTES.encode()}, [], "initial commit", owner)

    def resolve(self, revision: str) -> str | None:
        try:
            found = self.git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except Conflict:
            return None
        return found.decode().strip()

    def blob(self, oid: str) -> bytes:
        # Nothing packs these repositories, so each object is a file: reading it is a hundred times faster than git.
        return zlib.decompress(self._object(oid).read_bytes()).split(b"\0", 1)[1]

    def write_blob(self, content: bytes) -> str:
        whole = b"blob %d\0" % len(content) + content
        oid = hashlib.sha1(whole).hexdigest()
        self._object(oid).parent.mkdir(exist_ok=True)
        self._object(oid).write_bytes(zlib.compress(whole))
        return oid

    def _object(self, oid: str) -> Path:
        return self.path / "objects" / oid[:2] / oid[2:]

    def tree(self, sha: str, path: str = "", recursive: bool = False) -> list[Entry]:
        """Return the entries below `path`, folders included."""
        place = f"{sha}:{path}" if path else sha
        try:
            listed = self.git("ls-tree", "-l", "-z", *(["-r", "-t"] if recursive else []), place).decode()
        except Conflict:
            return []
        prefix = f"{path}/" if path else ""
        return [self._entry(line, prefix) for line in listed.split("\0") if line]

    def entry(self, sha: str, path: str) -> Entry | None:
        listed = self.git("ls-tree", "-l", "-z", sha, "--", path).decode()
        found = [self._entry(line, "") for line in listed.split("\0") if line]
        return found[0] if found and found[0].kind == "blob" else None

    def _entry(self, line: str, prefix: str) -> Entry:
        facts, name = line.split("\t", 1)
        _, kind, oid, size = facts.split()
        if kind != "blob":
            return Entry(prefix + name, kind, oid, 0)
        return Entry(prefix + name, kind, oid, int(size), self._pointer(oid) if int(size) < 200 else None)

    def _pointer(self, oid: str) -> tuple[str, int] | None:
        lines = self.blob(oid).decode(errors="replace").split("\n")
        if not lines[0].startswith("version https://git-lfs"):
            return None
        return lines[1].removeprefix("oid sha256:"), int(lines[2].removeprefix("size "))

    def commit(
        self,
        ref: str,
        parent: str | None,
        files: dict[str, bytes],
        deleted: list[str],
        message: str,
        author: str,
    ) -> str:
        """Make one commit on top of `parent`, which must still be what `ref` points to; return its sha."""
        with self.lock, tempfile.TemporaryDirectory() as scratch:
            index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
            if parent is not None:
                self.git("read-tree", parent, **index)
            lines = [f"0 {'0' * 40}\t{path}" for path in deleted]
            for path, content in files.items():
                lines.append(f"100644 {self.write_blob(content)}\t{path}")
            self.git("update-index", "-z", "--index-info", data="".join(f"{x}\0" for x in lines).encode(), **index)
            tree = self.git("write-tree", **index).decode().strip()
            who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in
                   (("NAME", author), ("EMAIL", f"{author}@example.invalid"))}  # fmt: skip
            parents = ["-p", parent] if parent else []
            sha = self.git("commit-tree", tree, *parents, "-m", message, **who).decode().strip()
            self.git("update-ref", ref, sha, parent or "0" * 40)
            return sha

    def refs(self, kind: str) -> dict[str, str]:
        listed = self.git("for-each-ref", "--format=%(refname) %(objectname)", f"refs/{kind}").decode()
        return {name.removeprefix(f"refs/{kind}/"): sha for name, sha in map(str.split, listed.splitlines())}

    def history(self, sha: str) -> list[tuple[str, str, str]]:
        log = self.git("log", "--format=%H%x00%an%x00%s", sha).decode()
        return [tuple(line.split("\0")) for line in log.splitlines()]  # type: ignore[misc]


class Storage:
    """All repositories and large files below one folder."""

    def __init__(self, root: Path) -> None:
        self.root, self.lock = root, threading.RLock()
        self._repos: dict[tuple[str, str], Repo] = {}

    def repo(self, kind: str, repo_id: str) -> Repo | None:
        with self.lock:
            path = self.root / kind / f"{repo_id}.git"
            if not path.is_dir():
                return None
            return self._repos.setdefault((kind, repo_id), Repo(path))

    def create(self, kind: str, repo_id: str, private: bool) -> bool:
        with self.lock:
            if self.repo(kind, repo_id) is not None:
                return False
            repo = Repo(self.root / kind / f"{repo_id}.git")
            repo.create(repo_id.split("/")[0])
            (repo.path / "hub.json").write_text(json.dumps({"private": private}))
            return True

    def private(self, repo: Repo) -> bool:
        return bool(json.loads((repo.path / "hub.json").read_text())["private"])

    def blob_path(self, sha256: str) -> Path:
        return self.root / "lfs" / sha256[:2] / sha256

    def put_blob(self, sha256: str, content: bytes) -> bool:
        """Store a large file; return False if its content is not what its name says."""
        if hashlib.sha256(content).hexdigest() != sha256:
            return False
        path = self.blob_path(sha256)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{threading.get_ident()}")
        draft.write_bytes(content)
        draft.rename(path)
        return True
