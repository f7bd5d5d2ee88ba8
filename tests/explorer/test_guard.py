"""The explorer takes orders only with its token and for its own host; pages that are open at once lose nothing."""

import asyncio
import json
from contextlib import contextmanager

import pytest
from datasets import load_from_disk
from support.report_material import images

import hf_midrange as hm
from hf_midrange.explorer.guard import Guard
from hf_midrange.explorer.marks import marks_in


TOKEN = "aT0ken"
WRITE = "Write the edited data set"


def answered(path, hosts=(b"127.0.0.1:7860",), kind="http", token=TOKEN):
    """Return the status that a request gets, and the path below the root at which the app behind the guard sees it."""
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope["path"].removeprefix(scope["root_path"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message):
        sent.append(message)

    scope = {"type": kind, "path": path, "headers": [(b"host", host) for host in hosts]}
    asyncio.run(Guard(app, token)(scope, None, send))
    return sent[0].get("status", sent[0]["type"]), seen


@pytest.mark.parametrize("host", [b"127.0.0.1", b"localhost:7860", b"LOCALHOST:80", b"[::1]:7860", b"[::1]"])
def test_the_own_names_of_this_machine_are_let_through(host):
    assert answered(f"/{TOKEN}/config", [host]) == (200, ["/config"])


@pytest.mark.parametrize(
    "hosts", [[b"evil.example"], [b"127.0.0.1.evil.example:7860"], [b"localhost", b"evil.example"], [], [b""]]
)
def test_other_names_are_refused_even_with_the_token(hosts):
    assert answered(f"/{TOKEN}/config", hosts) == (403, [])


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/queue/join", f"/{TOKEN}x/config", f"/x/{TOKEN}/", "//"])
def test_nothing_is_told_without_the_token(path):
    assert answered(path) == (401, [])
    assert answered(path, kind="websocket") == ("websocket.close", [])


@pytest.mark.parametrize(("token", "hosts"), [(TOKEN, [b"localhost"]), ("", [b"me-look.hf.space"])])
def test_files_are_taken_from_nobody(token, hosts):
    prefix = f"/{token}" if token else ""
    assert answered(f"{prefix}/gradio_api/upload", hosts, token=token) == (403, [])
    assert answered(f"{prefix}/gradio_api/upload_progress", hosts, token=token) == (403, [])
    assert answered(f"{prefix}/config", hosts, token=token) == (200, ["/config"])


@contextmanager
def explored(ds, findings, folder):
    """Yield a client of a running explorer without the token, and the path that has it."""
    pytest.importorskip("gradio")
    import httpx

    app = hm.explore(ds, findings, output_dir=folder, block=False)
    try:
        with httpx.Client(base_url=app.local_url.rsplit("/", 2)[0], timeout=60) as client:
            yield client, f"/{app.local_url.rsplit('/', 2)[1]}"
    finally:
        app.close()


class Page:
    """One open page: a session of the explorer, driven as the browser drives it."""

    def __init__(self, client, prefix, name):
        self.client, self.prefix, self.name = client, prefix, name
        config = client.get(f"{prefix}/config").json()
        self.calls = config["dependencies"]
        self.buttons = {part["id"]: part["props"].get("value") for part in config["components"]}
        self.labels = {part["id"]: part["props"].get("label") for part in config["components"]}

    def press(self, number, values=()):
        body = {"data": list(values), "fn_index": number, "session_hash": self.name}
        joined = self.client.post(f"{self.prefix}/gradio_api/queue/join", json=body)
        assert joined.status_code == 200, joined.text
        with self.client.stream("GET", f"{self.prefix}/gradio_api/queue/data?session_hash={self.name}") as lines:
            for line in lines.iter_lines():
                said = json.loads(line.removeprefix("data: ") or "{}")
                if said.get("msg") == "process_completed":
                    assert said["success"], said
                    return said["output"]["data"]
        raise AssertionError("no answer")

    def number_of(self, button):
        return next(
            call["id"] for call in self.calls for target, _ in call["targets"] if self.buttons[target] == button
        )

    def look(self):
        first = next(call for call in self.calls if ["load"] == [event for _, event in call["targets"]])
        starts = [self.buttons[part] for part in first["inputs"]]
        self.shown = self.press(first["id"], starts)

    def mark(self, slot, word):
        calls = [call["id"] for call in self.calls if self.labels.get(next(iter(call["inputs"]), None)) == "Mark"]
        return self.press(calls[slot], [word, None, None])


@pytest.fixture(scope="module")
def rows():
    ds = images(120)
    findings = hm.associate(ds)
    return hm.curate(ds, findings, strategy="group"), findings


def test_orders_without_the_token_or_for_another_host_do_nothing(rows, tmp_path):
    with explored(*rows, tmp_path / "edited") as (client, prefix):
        number = Page(client, prefix, "mine").number_of(WRITE)
        order = {"data": [None], "fn_index": number, "session_hash": "theirs"}
        assert client.post("/gradio_api/queue/join", json=order).status_code == 401
        assert client.get("/config").status_code == 401
        foreign = {"host": "evil.example"}
        assert client.post(f"{prefix}/gradio_api/queue/join", json=order, headers=foreign).status_code == 403
        assert client.get(f"{prefix}/", headers=foreign).status_code == 403
        sent = client.post(f"{prefix}/gradio_api/upload", files={"files": b"anything"})
        assert sent.status_code == 403
        assert not (tmp_path / "edited").exists()
        assert client.get("/").text == "Open the address that explore printed: it ends in a token.\n"
        Page(client, prefix, "mine").press(number, [None])
        assert (tmp_path / "edited").is_dir()


def test_two_open_pages_lose_no_mark_and_a_page_loaded_again_has_them(rows, tmp_path):
    with explored(*rows, tmp_path / "edited") as (client, prefix):
        one, two = (Page(client, prefix, name) for name in ("one", "two"))
        one.look()
        one.mark(0, "drop")
        two.look()
        two.mark(1, "mislabelled")
        one.press(one.number_of(WRITE), [None])
        both = marks_in(load_from_disk(tmp_path / "edited"))
        assert sorted(both.values()) == ["drop", "mislabelled"]
        again = Page(client, prefix, "again")
        again.look()
        again.press(again.number_of(WRITE), [None])
        assert marks_in(load_from_disk(tmp_path / "edited")) == both


def test_in_a_space_each_reader_has_marks_of_their_own(rows, tmp_path, monkeypatch):
    pytest.importorskip("gradio")
    from copy import deepcopy

    from hf_midrange.explorer.app import first_marks
    from hf_midrange.explorer.marks import Exports

    exports = Exports(rows[0], None, tmp_path)
    shared = first_marks(exports)
    assert deepcopy(shared) is shared
    monkeypatch.setenv("SPACE_ID", "me/look")
    own = first_marks(exports)
    assert deepcopy(own) is not own


def test_the_token_is_new_each_time_and_never_short(rows, tmp_path):
    seen = set()
    for _ in range(2):
        with explored(*rows, tmp_path / "edited") as (_, prefix):
            seen.add(prefix)
    assert len(seen) == 2
    assert min(map(len, seen)) > 30
