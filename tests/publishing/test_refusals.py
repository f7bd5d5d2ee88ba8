"""Bad input is refused before anything is uploaded, with words that say what would work."""

import json
import traceback

import pytest
from huggingface_hub.errors import OfflineModeIsEnabled
from support.hub_server.running import running

from hf_midrange.publishing.repository import PublishError, passes, redacted, retried


ME, READER, LIMITED = "hf_" + "w" * 34, "hf_" + "r" * 34, "hf_" + "l" * 34
USERS = {
    ME: {"name": "me", "orgs": {"lab": "admin", "club": "read"}},
    READER: {"name": "me", "role": "read"},
    LIMITED: {"name": "me", "role": "fineGrained"},
}

CODE = """
import json, os, re
from pathlib import Path
from support.curated_rows import curated, report
from support.hub_server.running import Server
from huggingface_hub import HfApi
from support.publish_material import text_model, vit_model
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification
import hf_midrange as hm

server, out, api = Server(os.environ["HF_ENDPOINT"], Path(".")), {}, HfApi()
WRITING = re.compile("/commit/|/preupload/|/branch/|/upload/|create$|batch$")
writes = lambda: [row for row in server.log() if WRITING.search(row["path"]) and row["status"] == 200]

def refused(name, do):
    before = len(writes())
    try:
        do()
        told = "done"
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
    out[name] = [told, len(writes()) - before]

rows = curated()
publish = lambda repo, **more: hm.publish_dataset(more.pop("rows", rows), repo, **more)
for bad in ("a/b/c", "bad id", "-x", "me/..", ""):
    refused(f"id {bad}", lambda: publish(bad))
refused("foreign", lambda: publish("you/x"))
refused("org reader", lambda: publish("club/x"))
refused("spoilt token", lambda: publish("me/x", token="hf_secret part"))
refused("line break", lambda: publish("me/x", token="hf_secret\\n"))
refused("unknown token", lambda: publish("me/x", token="hf_" + "u" * 34))
refused("reader", lambda: publish("me/x", token=READER))
refused("limited", lambda: publish("me/x", token=LIMITED))
token = os.environ.pop("HF_TOKEN")
refused("no token", lambda: publish("me/x"))
os.environ["HF_TOKEN"] = token
refused("not curated", lambda: publish("me/x", rows=rows.remove_columns("keep")))

api.create_repo("me/open", repo_type="dataset", private=False)
refused("public", lambda: publish("me/open"))
refused("public wanted", lambda: publish("me/open", private=False))
refused("public branch", lambda: publish("me/open", revision="next"))
api.create_repo("me/csv", repo_type="dataset", private=True)
api.upload_file(path_or_fileobj=b"a,b", path_in_repo="rows.csv", repo_id="me/csv", repo_type="dataset")
refused("other data", lambda: publish("me/csv"))
publish("me/rows")
refused("other classes", lambda: publish("me/rows", rows=curated(names=("left", "right"))))
refused("same again", lambda: publish("me/rows"))
refused("branch", lambda: publish("me/rows", revision="v2", rows=curated(9)))
refused("bare name", lambda: publish("rows"))
publish("me/bands", bands=hm.LogitBands(rule="quantile").fit(rows))
with_bands = api.list_repo_files("me/bands", repo_type="dataset")
publish("me/bands", rows=curated(2000), max_shard_bytes=100_000)
out["shards"] = [with_bands, api.list_repo_files("me/bands", repo_type="dataset")]

text_model(Path("text"))
vit_model(Path("vit"))
text = AutoModelForSequenceClassification.from_pretrained("text")
vit = AutoModelForImageClassification.from_pretrained("vit")
hm.publish_model(text, "me/text")
head = hm.LinearHead.from_model(vit)
refused("other architecture", lambda: hm.publish_model(vit, "me/text"))
named = hm.LinearHead.from_weights(text.classifier.weight, text.classifier.bias, ("a", "b"))
refused("other labels", lambda: hm.publish_model(text, "me/text", head=named))
hm.publish_model(vit, "me/vit")
refused("head over model", lambda: hm.publish_head(head, "me/text", base_model="me/vit"))
hm.publish_head(head, "me/head", base_model="me/vit")
refused("model over head", lambda: hm.publish_model(vit, "me/head"))
narrow = hm.LinearHead.from_weights([[1.0]] * 2, [0, 0])
refused("head of another", lambda: hm.publish_head(narrow, "me/h2", base_model="me/vit"))
refused("no base", lambda: hm.publish_head(head, "me/h2", base_model="me/nothing"))
refused("short revision", lambda: hm.publish_head(head, "me/h2", base_model="me/vit", base_revision="main"))
refused("torch module", lambda: hm.publish_model(vit.classifier, "me/x"))
refused("processor", lambda: hm.publish_model(vit, "me/x", processor=len))
refused("class names", lambda: hm.publish_model(text, "me/x", curated=curated(names=("a", "b", "c"))))
refused("metrics", lambda: hm.publish_model(vit, "me/x", metrics={"mean": 1.0}))
refused("base id", lambda: hm.publish_model(vit, "me/x", base_model="https://evil/x y"))
api.upload_file(path_or_fileobj=b"{}", path_in_repo="pytorch_model.bin.index.json", repo_id="me/vit")
metrics = {"mean": 1.0, "worst_group": 0.5}
refused("stale weights", lambda: hm.publish_model(vit, "me/vit", metrics=metrics, dataset="me/x"))
calm = curated(verdict=report("none seen", "no sign"))
hm.publish_model(vit, "me/calm", curated=calm, head=head)
out["calm"] = Path(api.hf_hub_download("me/calm", "README.md")).read_text()
out["left"] = api.list_repo_files("me/vit")
out["branches"] = [api.list_repo_commits("me/rows", repo_type="dataset", revision=r)[0].title for r in ("main", "v2")]
out["counts"] = [len(api.list_repo_commits("me/rows", repo_type="dataset", revision=r)) for r in ("main", "v2")]
print(json.dumps(out))
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    with running(tmp_path_factory.mktemp("hub"), USERS) as server:
        code = CODE.replace("READER", repr(READER)).replace("LIMITED", repr(LIMITED))
        done = server.run(code, tmp_path_factory.mktemp("home"), ME)
        assert done.returncode == 0, done.stderr
        for secret in (*USERS, "hf_secret"):
            assert secret not in done.stdout + done.stderr
        return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *(
            (f"id {bad}", "is not a repository id, such as 'me/waterbirds-mid'")
            for bad in ("a/b/c", "bad id", "-x", "me/..", "")
        ),
        ("foreign", "a token with write access to this place is needed"),
        ("org reader", "a token with write access to this place is needed"),
        ("spoilt token", "characters that no token has"),
        ("line break", "characters that no token has"),
        ("unknown token", "`hf auth login`"),
        ("reader", "a token with write access to this place is needed"),
        ("limited", "a token with write access to this place is needed"),
        ("no token", "`hf auth login` stores one"),
        ("not curated", "lacks the columns ['keep']"),
        ("public", "pass private=False (--public)"),
        ("public branch", "pass private=False (--public)"),
        ("other data", "rows.csv"),
        ("other classes", "has the classes ['no', 'yes'], this one ['left', 'right']"),
        ("other architecture", "its architectures is ['BertForSequenceClassification']"),
        ("other labels", "its id2label is"),
        ("head over model", "does not hold a head"),
        ("model over head", "does not hold a transformers model"),
        ("no base", "cannot find the base model"),
        ("head of another", "retrain a head from this model's own embeddings"),
        ("short revision", "40 hexadecimal digits"),
        ("torch module", "takes a transformers model, not Linear"),
        ("processor", "has no `save_pretrained`"),
        ("class names", "3 class names"),
        ("metrics", "lack ['worst_group']"),
        ("base id", "must be a Hub id"),
    ],
)
def test_refused_before_anything_is_written(told, name, words):
    message, writes = told[name]
    assert words in message
    assert writes == 0


def test_what_is_allowed_is_done(told):
    for name in ("public wanted", "branch", "bare name", "same again", "stale weights"):
        assert told[name][0] == "done", name
    assert told["branches"] == ["Publish curated data set"] * 2
    assert told["counts"] == [2, 3]  # publishing the same again made no commit


def test_a_model_without_a_tie_is_published_as_what_it_is(told):
    assert "sure reason to change it" in told["calm"]
    assert "corrected" not in told["calm"]


def test_files_of_an_earlier_publication_go_with_the_commit_that_replaces_them(told):
    before, after = told["shards"]
    assert {"bands.json", "data/train-00000-of-00001.parquet", "long/train-00000-of-00001.parquet"} <= set(before)
    assert [name for name in after if "of-00001" in name or name == "bands.json"] == []
    assert {name.partition("-of-")[0] for name in after} >= {"data/train-00001", "long/train-00001"}


def test_files_that_speak_of_other_weights_go(told):
    assert "pytorch_model.bin.index.json" not in told["left"]
    assert {"model.safetensors", "config.json", ".eval_results/me_x.yaml"} <= set(told["left"])


def test_only_failures_that_pass_are_tried_again():
    tries = []

    def ask():
        tries.append(1)
        if len(tries) < 3:
            raise ConnectionError("no route")
        return "answer"

    assert retried(ask, "ask", "hf_t", [0.001] * 3) == "answer"
    assert len(tries) == 3
    tries.clear()
    with pytest.raises(PublishError, match="cannot ask after 2 tries: no route") as caught:
        retried(ask, "ask", "hf_t", [0.001])
    assert len(tries) == 2
    assert caught.value.__cause__ is None
    assert not passes(OfflineModeIsEnabled("off"))
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE is set"):
        retried(lambda: (_ for _ in ()).throw(OfflineModeIsEnabled("off")), "ask", "hf_t")


def test_messages_hold_no_token():
    assert redacted("sent hf_abc to x", "hf_abc") == "sent <token> to x"
    secret = "hf_" + "a" * 20
    with pytest.raises(PublishError, match="<token>") as caught:
        retried(lambda: (_ for _ in ()).throw(RuntimeError(f"bad {secret}")), "ask", secret, [])
    assert secret not in "".join(traceback.format_exception(caught.value))
