"""A Hub that fails: each revision that is ever to be seen loads whole, and is the old one or the new one."""

import json

import pytest
from support.hub_server.running import running


ME = "hf_" + "f" * 34
REPO = "me/rows-mid"

SCENARIOS = """
import json, os, re, threading, time
from pathlib import Path
from support.curated_rows import curated, report
from datasets import load_dataset
from support.hub_server.running import Server
from huggingface_hub import hf_hub_download
import hf_midrange as hm

server, out, real_sleep = Server(os.environ["HF_ENDPOINT"], Path(SERVER_ROOT)), {}, time.sleep
time.sleep = lambda seconds: real_sleep(min(seconds, 0.02))  # what is waited for here is the number of tries

def publish(mark, repo="me/rows-mid", bands=None):
    rows = 2500 if mark % 2 else 1200  # more or fewer shards than before
    said = report(explanation=f"mark {mark}")
    return hm.publish_dataset(curated(rows, mark=mark, verdict=said), repo, bands=bands, max_shard_bytes=20_000)

def seen(repo="me/rows-mid"):
    card = Path(hf_hub_download(repo, "README.md", repo_type="dataset")).read_text()
    return int(re.search("mark ([0-9]+)", card)[1])

def scenario(name, mark, *faults, repo="me/rows-mid"):
    server.fail(*faults)
    try:
        publish(mark, repo)
        told = "done"
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    server.fail()
    out[name] = {"told": told, "seen": seen(repo)}

publish(1)
COMMIT, UPLOAD = {"method": "POST", "path": "/commit/main$"}, {"method": UPLOAD_METHOD, "path": UPLOAD_PATH}
scenario("one 500", 2, {**COMMIT, "status": 500})
scenario("overloaded twice", 3, {**COMMIT, "status": 503, "times": 2})
scenario("only 500s", 4, {**COMMIT, "status": 500, "times": 99})
scenario("one 412", 5, {**COMMIT, "status": 412})
scenario("one 409", 6, {**COMMIT, "status": 409})
scenario("only 412s", 7, {**COMMIT, "status": 412, "times": 99})
scenario("done, but the answer is lost", 8, {**COMMIT, "kind": "lost", "status": 502})
scenario("commit cut", 9, {**COMMIT, "kind": "cut"})
scenario("forbidden", 10, {**COMMIT, "status": 403})
scenario("upload cut", 11, {**UPLOAD, "kind": "cut", "times": 2})
scenario("upload 500", 12, {**UPLOAD, "status": 500, "times": 2})
scenario("upload refused", 13, {**UPLOAD, "status": 403, "times": 99})
SLOW = {"kind": "slow", "seconds": 0.5}
scenario("slow", 14, {**COMMIT, **SLOW}, {"method": "GET", "path": "", **SLOW})
scenario("whoami down", 15, {"method": "GET", "path": "whoami", "status": 503, "times": 2})

server.fail({**COMMIT, "kind": "slow", "seconds": 1.5})
errors = []
def thread(mark):
    try:
        publish(mark)
    except Exception as error:
        errors.append(str(error))
threads = [threading.Thread(target=thread, args=(mark,)) for mark in (20, 21)]
[t.start() for t in threads]
[t.join() for t in threads]
out["two at once"] = {"told": errors, "seen": seen()}

# A file that was unchanged at the first try, and is not any more at the second.
bands = [hm.LogitBands(rule="quantile", edges=edges).fit(curated(50)) for edges in ((0.2, 0.8), (0.3, 0.7))]
publish(30, bands=bands[0])
server.fail({**COMMIT, "kind": "slow", "seconds": 2})
before = len(server.log("POST", "/preupload/"))
first = threading.Thread(target=publish, args=(31,), kwargs={"bands": bands[0]})
first.start()
while len(server.log("POST", "/preupload/")) == before:
    real_sleep(0.02)
real_sleep(0.5)
publish(32, bands=bands[1])
first.join()
edges = hm.LogitBands.from_pretrained("me/rows-mid").edges
out["unchanged and then not"] = {"told": "done", "seen": [seen(), list(edges)]}

server.fail({**COMMIT, "status": 500, "times": 99})
try:
    publish(1, "me/new-mid")
except Exception as error:
    told = str(error)
server.fail()
try:
    load_dataset("me/new-mid")
    first = "loaded"
except Exception as error:
    first = type(error).__name__
publish(2, "me/new-mid")
out["first time"] = {"told": told, "loads": first, "seen": seen("me/new-mid")}
print(json.dumps(out))
"""

HISTORY = """
import json, os
from pathlib import Path
from datasets import load_dataset
from support.hub_server.running import Server
server = Server(os.environ["HF_ENDPOINT"], Path("."))
seen = {}
for sha in COMMITS:
    if len(seen) == 4:
        server.fail({"method": "GET", "path": "/blobs/", "kind": "half"})
    parts = []
    for config in ("default", "long") if len(seen) % 4 == 0 else ("default",):
        for _ in range(2):
            try:
                rows = load_dataset("me/rows-mid", config, split="train", revision=sha)
                break
            except Exception as error:
                parts.append(type(error).__name__)
        parts.append(sorted(set(rows["weight"])))
        parts.append(len(rows))
    seen[sha] = parts
print(json.dumps(seen))
"""


@pytest.fixture(scope="module", params=["lfs", pytest.param("xet", marks=pytest.mark.slow)])
def after(request, tmp_path_factory):
    """The server after all scenarios, and what each gave."""
    xet, root = request.param == "xet", tmp_path_factory.mktemp("hub")
    with running(root, {ME: {"name": "me"}}) as server:
        upload = ("POST", "/cas/v1/xorbs/") if xet else ("PUT", "/upload/")
        code = SCENARIOS.replace("UPLOAD_METHOD", repr(upload[0])).replace("UPLOAD_PATH", repr(upload[1]))
        home = tmp_path_factory.mktemp("home")
        done = server.run(code.replace("SERVER_ROOT", repr(str(root))), home, ME, xet=xet)
        assert done.returncode == 0, done.stderr
        yield server, home, json.loads(done.stdout.splitlines()[-1]), done


PASSING = {
    "one 500": 2,
    "overloaded twice": 3,
    "one 412": 5,
    "one 409": 6,
    "done, but the answer is lost": 8,
    "commit cut": 9,
    "upload cut": 11,
    "upload 500": 12,
    "slow": 14,
    "whoami down": 15,
}


def test_what_passes_is_tried_again(after):
    _, _, out, _ = after
    for name, mark in PASSING.items():
        assert out[name] == {"told": "done", "seen": mark}, name


def test_what_does_not_pass_is_told_and_changes_nothing(after):
    _, _, out, _ = after
    for name, before, words in (
        ("only 500s", 3, "after 6 tries"),
        ("only 412s", 6, "after 6 tries"),
        ("forbidden", 9, "write access"),
        ("upload refused", 12, ""),
    ):
        assert out[name]["seen"] == before, name
        assert out[name]["told"].startswith("PublishError: cannot commit to me/rows-mid"), out[name]
        assert words in out[name]["told"]


def test_two_publications_at_once_both_arrive_one_after_the_other(after):
    server, _, out, _ = after
    assert out["two at once"]["told"] == []
    assert out["two at once"]["seen"] in (20, 21)
    injected = {"one 412", "only 412s"}
    assert len([row for row in server.log("POST", "/commit/") if row["status"] == 412]) > len(injected) + 5


def test_what_was_unchanged_at_the_first_try_is_sent_at_the_second_if_need_be(after):
    _, _, out, _ = after
    assert out["unchanged and then not"]["seen"] in ([31, [0.2, 0.8]], [32, [0.3, 0.7]])


def test_a_first_publication_that_fails_leaves_nothing_that_loads(after):
    _, _, out, _ = after
    assert "cannot commit" in out["first time"]["told"]
    assert out["first time"]["loads"] in ("EmptyDatasetError", "DataFilesNotFoundError")
    assert out["first time"]["seen"] == 2


def test_every_revision_that_was_ever_there_loads_whole(after, tmp_path):
    server, _, _, _ = after
    commits = server.git("datasets", REPO, "rev-list", "main").split()[:-1]  # all but the empty first one
    assert len(commits) >= len(PASSING) + 2
    done = server.run(HISTORY.replace("COMMITS", repr(commits)), tmp_path, ME, ours=False)
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    assert len(seen) == len(commits)
    for parts in seen.values():
        (mark,), rows, *long = [part for part in parts if not isinstance(part, str)]
        assert rows == (2500 if mark % 2 else 1200)
        assert long in ([], [[mark], 2 * rows])
    assert server.git("datasets", REPO, "fsck", "--strict") == ""


def test_no_failure_shows_the_token(after):
    _, _, out, done = after
    assert ME not in json.dumps(out) + done.stdout + done.stderr
