"""The JSON routes: who am I, repositories, trees, commits, branches and tags."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING, Any

import yaml
from support.hub_server.storage import LARGE, POINTER, Conflict, Entry, Repo


if TYPE_CHECKING:
    from support.hub_server.server import Request

ID = r"(?P<id>[\w.-]+/[\w.-]+)"
KIND = r"/api/(?P<kind>models|datasets|spaces)"
REV = r"(?P<rev>[^/]+)"
TIME = "2026-01-01T00:00:00.000000Z"


def whoami(request: Request) -> None:
    if request.user is None:
        return request.refuse(401, "Invalid user token.")
    name = request.user.name
    orgs = [{"name": org, "roleInOrg": role} for org, role in request.user.orgs.items()]
    token = {"accessToken": {"displayName": "test", "role": request.user.role}}
    return request.json({"type": "user", "name": name, "fullname": name, "orgs": orgs, "auth": token})


def create_repo(request: Request) -> None:
    asked = request.body_json()
    if request.user is None:
        return request.refuse(401, "Unauthorized")
    owner = asked.get("organization") or request.user.name
    if not request.user.may_write(owner):
        return request.refuse(403, "You don't have the rights to create a repository there")
    kind, full = f"{asked.get('type') or 'model'}s", f"{owner}/{asked['name']}"
    private = asked.get("private", asked.get("visibility") == "private")
    url = f"{request.hub.url}/{'' if kind == 'models' else f'{kind}/'}{full}"
    if not request.hub.storage.create(kind, full, bool(private)):
        return request.json({"error": "You already created this repo", "url": url, "id": full, "name": full}, 409)
    return request.json({"url": url, "name": full, "id": full})


def validate_yaml(request: Request) -> None:
    content = request.body_json()["content"]
    found = re.match(r"\s*---[\r\n]+(.*?)[\r\n]+---([\r\n]|$)", content, flags=re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else {}
    except yaml.YAMLError as error:
        return request.json({"errors": [{"message": str(error)}], "warnings": []}, 400)
    errors = card_errors(metadata)
    return request.json({"errors": errors, "warnings": []}, 400 if errors else 200)


def card_errors(metadata: Any) -> list[dict[str, str]]:
    """The checks of the Hub that a card most easily fails."""
    if not isinstance(metadata, dict):
        return [{"message": "metadata is no mapping"}]
    errors = []
    for key in ("tags", "datasets", "task_categories", "source_datasets", "metrics"):
        value = metadata.get(key, [])
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            errors.append({"message": f'"{key}" must be a list of strings'})
    if not re.fullmatch(r"[a-z0-9.+-]+", str(metadata.get("license", "mit"))):
        errors.append({"message": '"license" must be one of the known licences'})
    if "model-index" in metadata and not all("name" in m and "results" in m for m in metadata["model-index"]):
        errors.append({"message": '"model-index" needs a name and results'})
    return errors


def repo_info(request: Request) -> None:
    repo, sha = request.readable()
    if repo is None:
        return None
    files = [entry for entry in repo.tree(sha, recursive=True) if entry.kind == "blob"]
    siblings: list[dict[str, Any]] = [{"rfilename": entry.path} for entry in files]
    if "blobs" in request.query:
        for sibling, entry in zip(siblings, files, strict=True):
            sibling |= {"size": entry.content_size, "blobId": entry.oid}
            if entry.lfs:
                sibling["lfs"] = {"sha256": entry.lfs[0], "size": entry.lfs[1], "pointerSize": entry.size}
    repo_id = request.match["id"]
    return request.json(
        {
            "_id": "0" * 24,
            "id": repo_id,
            "modelId": repo_id,
            "sha": sha,
            "author": repo_id.split("/")[0],
            "lastModified": TIME,
            "createdAt": TIME,
            "private": request.hub.storage.private(repo),
            "gated": False,
            "disabled": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": siblings,
            "cardData": _card(repo, sha),
            "usedStorage": sum(entry.content_size for entry in files),
        }
    )


def _card(repo: Repo, sha: str) -> Any:
    entry = repo.entry(sha, "README.md")
    text = repo.blob(entry.oid).decode() if entry else ""
    found = re.match(r"\s*---\n(.*?)\n---\n", text, flags=re.DOTALL)
    return yaml.safe_load(found[1]) if found else {}


def tree(request: Request) -> None:
    repo, sha = request.readable()
    if repo is None:
        return None
    path = request.match.get("path") or ""
    entries = repo.tree(sha, path, recursive=request.query.get("recursive", "").lower() == "true")
    if path and not entries:
        return request.refuse(404, f"{path} does not exist", code="EntryNotFound", headers={"X-Repo-Commit": sha})
    return request.json([_listed(request, entry) for entry in entries])


def paths_info(request: Request) -> None:
    repo, sha = request.readable()
    if repo is None:
        return None
    paths = request.body_form().get("paths", [])
    entries = [repo.entry(sha, path) for path in paths]
    return request.json([_listed(request, entry) for entry in entries if entry is not None])


def _listed(request: Request, entry: Entry) -> dict[str, Any]:
    if entry.kind == "tree":
        return {"type": "directory", "path": entry.path, "oid": entry.oid, "size": 0}
    listed: dict[str, Any] = {"type": "file", "path": entry.path, "oid": entry.oid, "size": entry.content_size}
    if entry.lfs:
        listed["lfs"] = {"oid": entry.lfs[0], "size": entry.lfs[1], "pointerSize": entry.size}
        recipe = request.hub.chunks.recipe(entry.lfs[0])
        if recipe is not None:
            listed["xetHash"] = recipe.file_hash
    return listed


def preupload(request: Request) -> None:
    repo, sha = request.proposable()
    if repo is None:
        return None
    answers = []
    for file in request.body_json()["files"]:
        entry = repo.entry(sha, file["path"])
        large = file["path"].endswith(LARGE) and file["size"] > 0
        answer = {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
        answers.append(answer | ({"oid": entry.etag} if entry else {}))
    return request.json({"files": answers, "commitOid": sha})


def commit(request: Request) -> None:
    repo, _ = request.proposable()
    if repo is None:
        return None
    lines = [json.loads(line) for line in request.body.decode().splitlines() if line.strip()]
    header = next(line["value"] for line in lines if line["key"] == "header")
    revision, title = request.match["rev"], header["summary"]
    with repo.lock:
        pull = None
        if request.proposes and not revision.startswith("refs/pr/"):
            pull = _open_pull(request, repo, title, header.get("description", ""))
            revision = f"refs/pr/{pull}"
        ref = revision if revision.startswith("refs/") else f"refs/heads/{revision}"
        head = repo.resolve(ref)
        if head is None:
            return request.refuse(404, f"Invalid rev id: {revision}", code="RevisionNotFound")
        if header.get("parentCommit") not in (None, head):
            return request.refuse(412, "A commit has happened since. Please refresh and try again.")
        try:
            files, deleted = _changes(request, repo, head, lines)
        except LookupError as error:
            return request.refuse(400, str(error))
        try:
            sha = repo.commit(ref, head, files, deleted, title, request.user.name)
        except Conflict as error:
            return request.refuse(409, str(error))
    url = f"{request.hub.url}/{request.match['id']}"
    if request.kind != "models":
        url = url.replace(request.hub.url, f"{request.hub.url}/{request.kind}", 1)
    opened = {} if pull is None else {"pullRequestUrl": f"{url}/discussions/{pull}"}
    return request.json(
        {"success": True, "commitOid": sha, "commitUrl": f"{url}/commit/{sha}", "hookOutput": "", **opened}
    )


def _open_pull(request: Request, repo: Repo, title: str, description: str) -> int:
    """Make the reference of a new pull request, and note what it says; return its number."""
    number = 1 + len(repo.refs("pr"))
    repo.git("update-ref", f"refs/pr/{number}", str(repo.resolve("refs/heads/main")), "0" * 40)
    said = {"title": title, "description": description, "author": request.user.name}
    (repo.path / f"pull-{number}.json").write_text(json.dumps(said))
    return number


def open_discussion(request: Request) -> None:
    repo, _ = request.proposable(revision="main")
    if repo is None:
        return None
    asked = request.body_json()
    return request.json({"num": _open_pull(request, repo, asked["title"], asked.get("description", ""))})


def discussion(request: Request) -> None:
    repo, _ = request.readable(revision="main")
    if repo is None:
        return None
    number = int(request.match["number"])
    path = repo.path / f"pull-{number}.json"
    if not path.is_file():
        return request.refuse(404, f"no discussion {number}", code="EntryNotFound")
    said = json.loads(path.read_text())
    where = {"name": request.match["id"], "type": request.kind.removesuffix("s")}
    return request.json(
        {
            "num": number,
            "title": said["title"],
            "status": "open",
            "isPullRequest": True,
            "author": {"name": said["author"]},
            "createdAt": TIME,
            "repo": where,
            "events": [],
            "filesWithConflicts": [],
            "changes": {"base": "refs/heads/main"},
        }
    )


def _changes(request: Request, repo: Repo, head: str, lines: list[dict]) -> tuple[dict[str, bytes], list[str]]:
    files: dict[str, bytes] = {}
    deleted: list[str] = []
    for line in lines:
        value = line["value"]
        if line["key"] == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "lfsFile":
            size = request.hub.size_of(value["oid"])
            if size is None:
                raise LookupError(f"{value['path']}: object {value['oid']} was never uploaded")
            files[value["path"]] = POINTER.format(oid=value["oid"], size=size).encode()
        elif line["key"] == "deletedFile":
            if repo.entry(head, value["path"]) is None:
                raise LookupError(f"A file with this name doesn't exist: {value['path']}")
            deleted.append(value["path"])
        elif line["key"] == "deletedFolder":
            deleted += [
                entry.path for entry in repo.tree(head, value["path"].rstrip("/"), True) if entry.kind == "blob"
            ]
    return files, deleted


def make_ref(request: Request) -> None:
    repo, sha = request.writable(revision="main")
    if repo is None:
        return None
    asked = request.body_json() if request.body else {}
    kind = "heads" if request.match["ref"] == "branch" else "tags"
    name = request.match["name"] if kind == "heads" else asked["tag"]
    start = repo.resolve(asked["startingPoint"]) if asked.get("startingPoint") else sha
    if kind == "tags":
        start = repo.resolve(request.match["name"])
    try:
        repo.git("update-ref", f"refs/{kind}/{name}", str(start), "0" * 40)
    except Conflict:
        return request.refuse(409, f"Reference already exists: {name}")
    return request.json({})


def refs(request: Request) -> None:
    repo, _ = request.readable(revision="main")
    if repo is None:
        return None
    listed = {
        answer: [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": sha} for n, sha in repo.refs(kind).items()]
        for answer, kind in (("branches", "heads"), ("tags", "tags"), ("pullRequests", "pr"))
    }
    return request.json({**listed, "converts": []})


def commits(request: Request) -> None:
    repo, sha = request.readable()
    if repo is None:
        return None
    rows = [
        {"id": commit, "title": title, "message": "", "authors": [{"user": author}], "date": TIME}
        for commit, author, title in repo.history(sha)
    ]
    return request.json(rows)


ROUTES = [
    ("GET", r"/api/whoami-v2", whoami),
    ("POST", r"/api/repos/create", create_repo),
    ("POST", r"/api/validate-yaml", validate_yaml),
    ("GET", rf"{KIND}/{ID}/refs", refs),
    ("GET", rf"{KIND}/{ID}(/revision/{REV})?", repo_info),
    ("GET", rf"{KIND}/{ID}/tree/{REV}(/(?P<path>.+))?", tree),
    ("POST", rf"{KIND}/{ID}/paths-info/{REV}", paths_info),
    ("POST", rf"{KIND}/{ID}/preupload/{REV}", preupload),
    ("POST", rf"{KIND}/{ID}/commit/{REV}", commit),
    ("GET", rf"{KIND}/{ID}/commits/{REV}", commits),
    ("POST", rf"{KIND}/{ID}/discussions", open_discussion),
    ("GET", rf"{KIND}/{ID}/discussions/(?P<number>\d+)", discussion),
    ("POST", rf"{KIND}/{ID}/(?P<ref>branch|tag)/(?P<name>[^/]+)", make_ref),
]
