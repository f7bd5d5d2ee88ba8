"""The routes of file contents: downloads, LFS uploads, and the Xet chunk store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from support.hub_server.api import ID, KIND, REV


if TYPE_CHECKING:
    from support.hub_server.server import Request

WEB = rf"/(?P<prefix>(?:datasets|spaces)/)?{ID}"


def resolve(request: Request) -> None:
    repo, sha = request.readable()
    if repo is None:
        return None
    entry = repo.entry(sha, request.match["path"])
    headers = {"X-Repo-Commit": sha}
    if entry is None:
        return request.refuse(404, "Entry not found", code="EntryNotFound", headers=headers)
    headers["ETag"] = f'"{entry.etag}"'
    if entry.lfs is None:
        return request.bytes(repo.blob(entry.oid), headers)
    headers |= {"X-Linked-ETag": f'"{entry.etag}"', "X-Linked-Size": str(entry.content_size)}
    recipe = request.hub.chunks.recipe(entry.etag)
    if recipe is not None:
        kind = request.kind
        token = f"{request.hub.url}/api/{kind}/{request.match['id']}/xet-read-token/{sha}"
        headers |= {"X-Xet-Hash": recipe.file_hash, "Link": f'<{token}>; rel="xet-auth"'}
    headers["Location"] = request.hub.signed(f"/blobs/{entry.etag}")
    return request.bytes(b"", headers, status=302)


def lfs_batch(request: Request) -> None:
    repo, _ = request.readable(revision="main")  # whoever can read may send what a pull request is to hold
    if repo is None:
        return None
    if request.user is None:
        return request.refuse(401, "Unauthorized")
    answers = []
    for asked in request.body_json()["objects"]:
        answer = {"oid": asked["oid"], "size": asked["size"]}
        if request.hub.size_of(asked["oid"]) is None:
            upload = {"href": request.hub.signed(f"/upload/{asked['oid']}"), "header": {}}
            verify = {"href": f"{request.hub.url}/lfs-verify", "header": {}}
            answer["actions"] = {"upload": upload, "verify": verify}
        answers.append(answer)
    return request.json({"transfer": "basic", "objects": answers})


def lfs_verify(request: Request) -> None:
    asked = request.body_json()
    if request.hub.size_of(asked["oid"]) != asked["size"]:
        return request.refuse(404, "the object is not there or has another size")
    return request.json({})


def upload(request: Request) -> None:
    if not request.from_blob_origin():
        return None
    if not request.hub.storage.put_blob(request.match["oid"], request.body):
        return request.refuse(400, "the content has another sha256")
    return request.bytes(b"", {"ETag": f'"{request.match["oid"]}"'})


def blob(request: Request) -> None:
    if not request.from_blob_origin():
        return None
    path = request.hub.storage.blob_path(request.match["oid"])
    content = path.read_bytes() if path.is_file() else request.hub.chunks.verified(request.match["oid"])
    if content is None:
        return request.refuse(404, "no such object")
    return request.ranged(content, {"ETag": f'"{request.match["oid"]}"'})


def xet_token(request: Request) -> None:
    write = request.match["mode"] == "write"
    repo, _ = request.proposable() if write else request.readable()
    if repo is None:
        return None
    token, expires = request.hub.cas_token(write), int(time.time()) + 3600
    headers = {
        "X-Xet-Cas-Url": f"{request.hub.blob_url}/cas",
        "X-Xet-Access-Token": token,
        "X-Xet-Token-Expiration": str(expires),
    }
    body = {"accessToken": token, "exp": expires, "casUrl": headers["X-Xet-Cas-Url"]}
    return request.json(body, headers=headers)


def put_xorb(request: Request) -> None:
    if request.bearer != request.hub.cas_token(write=True):
        return request.refuse(401, "a write token of this store is needed")
    return request.json({"was_inserted": request.hub.chunks.put_xorb(request.match["hash"], request.body)})


def put_shard(request: Request) -> None:
    if request.bearer != request.hub.cas_token(write=True):
        return request.refuse(401, "a write token of this store is needed")
    try:
        request.hub.chunks.put_shard(request.body)
    except KeyError as error:
        return request.refuse(400, f"xorb {error} was never uploaded")
    return request.json({"result": 1})


def reconstruction(request: Request) -> None:
    if request.bearer not in (request.hub.cas_token(False), request.hub.cas_token(True)):
        return request.refuse(401, "a token of this store is needed")
    recipe = request.hub.chunks.recipe(request.match["hash"])
    if recipe is None:
        return request.refuse(404, "no such file")
    first, last = request.byte_range(recipe.size) or (0, recipe.size - 1)
    if first >= recipe.size:
        return request.refuse(416, "beyond the end")
    return request.json(request.hub.chunks.reconstruction(recipe, first, last, request.hub.signed("/xorbs/{}")))


def xorb(request: Request) -> None:
    if not request.from_blob_origin():
        return None
    path = request.hub.chunks.xorbs / request.match["hash"]
    return request.ranged(path.read_bytes(), {}) if path.is_file() else request.refuse(404, "no such xorb")


def signed_path(path: str, key: str) -> str:
    """Return a path with the key that makes it a signed address."""
    return f"{path}?key={key}"


ROUTES = [
    ("GET", rf"{WEB}/resolve/{REV}/(?P<path>.+)", resolve),
    ("HEAD", rf"{WEB}/resolve/{REV}/(?P<path>.+)", resolve),
    ("POST", rf"{WEB}\.git/info/lfs/objects/batch", lfs_batch),
    ("POST", r"/lfs-verify", lfs_verify),
    ("PUT", r"/upload/(?P<oid>[0-9a-f]{64})", upload),
    ("GET", r"/blobs/(?P<oid>[0-9a-f]{64})", blob),
    ("HEAD", r"/blobs/(?P<oid>[0-9a-f]{64})", blob),
    ("GET", rf"{KIND}/{ID}/xet-(?P<mode>read|write)-token/{REV}", xet_token),
    ("POST", r"/cas/v1/xorbs/default/(?P<hash>[0-9a-f]{64})", put_xorb),
    ("POST", r"/cas/v1/shards", put_shard),
    ("GET", r"/cas/v1/reconstructions/(?P<hash>[0-9a-f]{64})", reconstruction),
    ("GET", r"/xorbs/(?P<hash>[0-9a-f]{64})", xorb),
]
