"""The server: one port, two origins (127.0.0.1 for the API, localhost for blobs), a thread per connection."""

from __future__ import annotations

import json
import re
import secrets
import sys
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.hub_server import api, content
from support.hub_server.cas import ChunkStore
from support.hub_server.faults import Fault, Faults, Log
from support.hub_server.storage import Repo, Storage


@dataclass(frozen=True)
class User:
    """Whom a token belongs to, and what it may do."""

    name: str
    role: str = "write"
    orgs: dict[str, str] = field(default_factory=dict)

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and (namespace == self.name or self.orgs.get(namespace) in ("write", "admin"))

    def may_read(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.orgs


class Hub:
    """Everything that requests share."""

    def __init__(self, root: Path, users: dict[str, User]) -> None:
        self.storage, self.chunks = Storage(root), ChunkStore(root / "xet")
        self.users, self.faults, self.log = users, Faults(), Log()
        self.key, self._cas = secrets.token_hex(8), {True: secrets.token_hex(8), False: secrets.token_hex(8)}
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def blob_url(self) -> str:
        return f"http://localhost:{self.port}"

    def signed(self, path: str) -> str:
        return self.blob_url + content.signed_path(path, self.key)

    def cas_token(self, write: bool) -> str:
        return self._cas[write]

    def size_of(self, sha256: str) -> int | None:
        """Return the size of a large file that was uploaded in either way."""
        path = self.storage.blob_path(sha256)
        if path.is_file():
            return path.stat().st_size
        found = self.chunks.verified(sha256)
        return None if found is None else len(found)


ROUTES = [(method, re.compile(pattern), answer) for method, pattern, answer in [*api.ROUTES, *content.ROUTES]]


class Request(BaseHTTPRequestHandler):
    """One request; routes answer through its methods."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    match: dict[str, str]
    query: dict[str, str]
    body: bytes
    user: User | None
    bearer: str

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def log_message(self, *args: object) -> None:
        pass

    def _serve(self) -> None:
        parts = urlsplit(self.path)
        self.bare_path, self.fault = parts.path, None
        self.query = {key: values[-1] for key, values in parse_qs(parts.query, keep_blank_values=True).items()}
        self.bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user = self.hub.users.get(self.bearer)
        if parts.path.startswith("/-/"):
            self.body = self._read_body()
            return self._control(parts.path)
        self.fault = self.hub.faults.take(self.command, parts.path)
        if self.fault and self._went_wrong(self.fault):
            return None
        self.body = self._read_body()
        if self.bearer and self.user is None and not parts.path.startswith("/cas/") and not self._is_blob_origin():
            return self.refuse(401, "Invalid credentials in Authorization header")
        for method, pattern, answer in ROUTES:
            found = pattern.fullmatch(parts.path)
            if method == self.command and found:
                self.match = {key: unquote(value) for key, value in found.groupdict().items() if value is not None}
                return answer(self)
        return self.refuse(404, "no such route")

    def _went_wrong(self, fault: Fault) -> bool:
        """Act on a fault that comes before the answer; return whether the request is over."""
        if fault.kind == "slow":
            time.sleep(fault.seconds)
        elif fault.kind == "cut":
            self.rfile.read(min(int(self.headers.get("Content-Length") or 0) // 2, 4096))
            self.close_connection = True
            self._note("cut")
            self.connection.shutdown(2)
            return True
        elif fault.kind == "status":
            self.body = self._read_body()
            self.fault = None
            self.refuse(fault.status, "injected failure")
            return True
        return False

    def _control(self, path: str) -> None:
        if path == "/-/faults":
            self.hub.faults.set(json.loads(self.body))
            return self.json({})
        return self.json(self.hub.log.rows())

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def body_json(self) -> dict[str, Any]:
        return json.loads(self.body)

    def body_form(self) -> dict[str, list[str]]:
        if "json" in self.headers.get("Content-Type", ""):
            return self.body_json()
        return parse_qs(self.body.decode())

    def _is_blob_origin(self) -> bool:
        return self.headers.get("Host", "").startswith("localhost")

    def from_blob_origin(self) -> bool:
        """Refuse what is not signed, asked of the API's origin, or carries a credential; return whether to go on."""
        if self.headers.get("Authorization"):
            self.refuse(400, "a credential reached the blob origin")
        elif not self._is_blob_origin() or self.query.get("key") != self.hub.key:
            self.refuse(403, "not a signed address")
        else:
            return True
        return False

    @property
    def kind(self) -> str:
        """The kind of repository that an API route names, or a web address begins with."""
        return self.match.get("kind") or (self.match.get("prefix") or "models/").rstrip("/")

    def readable(self, revision: str | None = None) -> tuple[Repo | None, str]:
        """Return the repository and commit asked for; None after refusing the request."""
        repo = self.hub.storage.repo(self.kind, self.match["id"])
        namespace = self.match["id"].split("/")[0]
        hidden = repo is not None and self.hub.storage.private(repo)
        if repo is None or (hidden and not (self.user and self.user.may_read(namespace))):
            status = 404 if self.user else 401
            self.refuse(status, "Repository not found", code="RepoNotFound")
            return None, ""
        wanted = revision or self.match.get("rev") or "main"
        sha = repo.resolve(wanted)
        if sha is None:
            self.refuse(404, f"Invalid rev id: {wanted}", code="RevisionNotFound")
            return None, ""
        return repo, sha

    def writable(self, revision: str | None = None) -> tuple[Repo | None, str]:
        """Return what `readable` does, to those who may write."""
        repo, sha = self.readable(revision)
        if repo is not None and not (self.user and self.user.may_write(self.match["id"].split("/")[0])):
            self.refuse(403, "You don't have write access to this repository")
            return None, ""
        return repo, sha

    @property
    def proposes(self) -> bool:
        """Whether the request belongs to a pull request, which whoever can read may open."""
        asked = self.query.get("create_pr", "").lower() in ("1", "true")
        return asked or self.match.get("rev", "").startswith("refs/pr/") or "discussions" in self.bare_path

    def proposable(self, revision: str | None = None) -> tuple[Repo | None, str]:
        """Return what `writable` does; of a pull request, to every reader with a name."""
        if not (self.proposes and self.user):
            return self.writable(revision)
        # The client's Xet mode asks for a token to write to revision "None", which the pull request will make.
        return self.readable("main" if self.match.get("rev") == "None" else revision)

    def byte_range(self, size: int) -> tuple[int, int] | None:
        found = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not found or not any(found.groups()):
            return None
        if not found[1]:
            return max(0, size - int(found[2])), size - 1
        return int(found[1]), min(int(found[2] or size - 1), size - 1)

    def json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.bytes(json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})}, status)

    def refuse(self, status: int, message: str, code: str = "", headers: dict[str, str] | None = None) -> None:
        told = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **(headers or {})}
        told = {name: value.replace("\n", " ").encode("ascii", "replace").decode() for name, value in told.items()}
        self.json({"error": message}, status, told)

    def ranged(self, whole: bytes, headers: dict[str, str]) -> None:
        headers = {"Accept-Ranges": "bytes", **headers}
        wanted = self.byte_range(len(whole))
        if wanted is None:
            return self.bytes(whole, headers)
        first, last = wanted
        if first >= len(whole):
            return self.bytes(b"", {**headers, "Content-Range": f"bytes */{len(whole)}"}, 416)
        headers["Content-Range"] = f"bytes {first}-{last}/{len(whole)}"
        return self.bytes(whole[first : last + 1], headers, 206)

    def bytes(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        fault = self.fault
        if fault and fault.kind == "lost":
            content, status = b"{}", fault.status
        self._note(status)
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            cut = fault is not None and fault.kind == "half"
            self.wfile.write(content[: len(content) // 2] if cut else content)
            if cut:
                self.close_connection = True

    def _note(self, status: object) -> None:
        self.hub.log.add(
            method=self.command,
            path=self.bare_path,
            origin="blobs" if self._is_blob_origin() else "api",
            user=self.user.name if self.user else None,
            credential=bool(self.bearer),
            status=status,
            bytes=len(getattr(self, "body", b"")),
        )


def serve(root: Path, users: dict[str, User]) -> None:
    """Serve until the process ends; print the port first."""
    hub = Hub(root, users)
    handler = type("Bound", (Request,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.port = server.server_address[1]
    sys.stdout.write(f"{hub.port}\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    known = {token: User(**facts) for token, facts in json.loads(sys.stdin.read()).items()}
    serve(Path(sys.argv[1]), known)
