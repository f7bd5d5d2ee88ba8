"""What was published, served by other hands: olah, a mirror that knows git and LFS but not this project."""

import json
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
from datasets import load_from_disk
from safetensors.numpy import load_file
from support.curated_rows import curated
from support.hub_server.running import Server, running
from support.publish_material import vit_model
from transformers import AutoModelForImageClassification


pytestmark = pytest.mark.slow
ME = "hf_" + "o" * 34
NAMES = ("a: 'b' | <i>", "x\n---\n{{ y }}")

PUSH = """
import hf_midrange as hm
from support.curated_rows import curated
from transformers import AutoImageProcessor, AutoModelForImageClassification
hm.publish_dataset(curated(700, names=NAMES), "me/rows-mid", private=False)
model, processor = AutoModelForImageClassification.from_pretrained(VIT), AutoImageProcessor.from_pretrained(VIT)
hm.publish_model(model, "me/vit-mid", processor=processor, private=False)
"""

READ = """
import importlib.util
import json
# Without peft: with it transformers asks for an adapter, and this mirror answers 401 to what is missing.
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "peft" else found(name, *more)
from datasets import load_dataset
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification, pipeline
rows = load_dataset("me/rows-mid", split="train")
rows.save_to_disk("rows")
model = AutoModelForImageClassification.from_pretrained("me/vit-mid")
save_file(model.state_dict(), "model.safetensors")
long = load_dataset("me/rows-mid", "long", split="train")
print(json.dumps({"names": rows.features["label"].names, "long": len(long)}))
"""


@contextmanager
def olah(mirrors, folder):
    """Serve git work trees with olah, without network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    config = folder / "olah.toml"
    config.write_text(
        f'[basic]\nhost = "127.0.0.1"\nport = {port}\nmirror-netloc = "127.0.0.1:{port}"\n'
        f'mirror-lfs-netloc = "127.0.0.1:{port}"\nrepos-path = "{folder}/repos"\nmirrors-path = ["{mirrors}"]\n'
        "[accessibility]\noffline = true\n"
    )
    command = [sys.executable, "-c", "from olah.server import cli; cli()", "--config", str(config)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([*command, "--log-path", str(folder)], cwd=folder, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, (folder / "log").read_text()
                time.sleep(0.25)
        yield Server(url, folder)
    finally:
        process.terminate()
        process.wait(20)


def work_tree(server, kind, repo_id, mirrors):
    """Clone a repository of the server as olah wants it: with its large files beside the git objects."""
    target = mirrors / kind / repo_id
    subprocess.run(["git", "clone", "--quiet", str(server.root / kind / f"{repo_id}.git"), str(target)], check=True)
    for blob in (server.root / "lfs").glob("??/*"):
        place = target / ".git" / "lfs" / "objects" / blob.name[:2] / blob.name[2:4]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(blob, place)


def test_a_mirror_of_other_hands_serves_what_was_published(tmp_path):
    pytest.importorskip("olah")
    vit_model(tmp_path / "vit")
    with running(tmp_path / "hub", {ME: {"name": "me"}}) as server:
        code = PUSH.replace("NAMES", repr(NAMES)).replace("VIT", repr(str(tmp_path / "vit")))
        pushed = server.run(code, tmp_path / "pusher", ME)
        assert pushed.returncode == 0, pushed.stderr
        for kind, repo_id in (("datasets", "me/rows-mid"), ("models", "me/vit-mid")):
            work_tree(server, kind, repo_id, tmp_path / "mirrors")
    home = tmp_path / "reader"
    (tmp_path / "olah").mkdir()
    with olah(tmp_path / "mirrors", tmp_path / "olah") as mirror:
        read = mirror.run(READ, home, ours=False)
        assert read.returncode == 0, read.stderr + (tmp_path / "olah" / "log").read_text()[-3000:]
    sent = curated(700, names=NAMES)
    got = load_from_disk(home / "rows")
    assert got.features == sent.features
    assert got.to_dict() == sent.to_dict()
    assert json.loads(read.stdout.splitlines()[-1]) == {"names": list(NAMES), "long": 1400}
    base = AutoModelForImageClassification.from_pretrained(tmp_path / "vit").state_dict()
    loaded = load_file(home / "model.safetensors")
    assert set(base) == set(loaded)
    assert all(np.array_equal(base[name].numpy(), loaded[name]) for name in base)
