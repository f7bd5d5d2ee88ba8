"""Publishing against a Hub-compatible server: one process pushes, others read, in both upload modes of the client."""

import json
import subprocess

import numpy as np
import pytest
import yaml
from datasets import load_from_disk
from safetensors.numpy import load_file
from support.hub_server.running import running
from support.publish_material import NAMES, PLACES, make
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.association import load_findings


ME, YOU = "hf_" + "m" * 34, "hf_" + "y" * 34
USERS = {ME: {"name": "me", "orgs": {"lab": "admin"}}, YOU: {"name": "you"}}
METRICS = {"mean": 0.9, "worst_group": 0.8, "mean_ci": [0.88, 0.92], "worst_group_ci": [0.7, 0.87]}

PUSH = """
import json
from pathlib import Path
import hf_midrange as hm
from datasets import load_from_disk
from hf_midrange.association import load_findings
from transformers import (
    AutoImageProcessor, AutoModelForImageClassification, AutoModelForSequenceClassification, AutoTokenizer,
)
at = Path(MATERIAL)
curated, findings = load_from_disk(at / "curated"), load_findings(at / "findings")
head = hm.LinearHead.from_pretrained(at / "head")
base = AutoModelForImageClassification.from_pretrained(at / "base")
done = {}
done["dataset"] = hm.publish_dataset(
    curated, "me/x-mid", findings=findings, bands=hm.LogitBands.from_pretrained(at / "bands"),
    source="me/x", license="cc-by-4.0", max_shard_bytes=400_000,
)
base.push_to_hub("me/base", private=True)
done["model"] = hm.publish_model(
    base, "me/y", processor=AutoImageProcessor.from_pretrained(at / "base"), head=head, curated=curated,
    findings=findings, metrics=METRICS, controls={"ERM | <b>": {"mean": 0.7, "worst_group": 0.5}},
    base_model="me/base", dataset="me/x", curated_id="me/x-mid", license="apache-2.0",
)
vit = AutoModelForImageClassification.from_pretrained(at / "vit")
hm.publish_model(vit, "lab/vit", processor=AutoImageProcessor.from_pretrained(at / "vit"))
text = AutoModelForSequenceClassification.from_pretrained(at / "text")
names = hm.LinearHead.from_weights(text.classifier.weight + 1, text.classifier.bias, ("bad: no", "good | <i>"))
hm.publish_model(text, "text", processor=AutoTokenizer.from_pretrained(at / "text"), head=names)
done["head"] = hm.publish_head(head, "me/y-head", base_model="me/base", metrics=METRICS)
print(json.dumps({name: commit.oid for name, commit in done.items()}))
"""

READ = """
import json
from pathlib import Path
import numpy as np
from datasets import load_dataset
from huggingface_hub import HfApi, snapshot_download
from safetensors.torch import save_file
from transformers import AutoModelForImageClassification, pipeline
out = Path("read")
load_dataset("me/x-mid", split="train").save_to_disk(out / "default")
load_dataset("me/x-mid", "long", split="train").save_to_disk(out / "long")
load_dataset("me/x-mid", "findings", split="train", revision=COMMITS["dataset"]).save_to_disk(out / "findings")
stream = load_dataset("me/x-mid", split="train", streaming=True)
first = next(iter(stream))
kinds = {name: type(value).__name__ for name, value in first.items()}
model = AutoModelForImageClassification.from_pretrained("me/y", revision=COMMITS["model"])
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, out / "model.safetensors")
picture = first["image"]
for repo, kind in (("me/x-mid", "dataset"), ("me/y", "model"), ("me/y-head", "model")):
    snapshot_download(repo, repo_type=kind)
answers = {
    "stream": {"rows": sum(1 for _ in stream), "reason": stream.features["reason"].id, "kinds": kinds},
    "class": type(model).__name__,
    "labels": model.config.id2label,
    "timm": pipeline("image-classification", model="me/y")(picture),
    "vit": pipeline("image-classification", model="lab/vit")(picture),
    "text": pipeline("text-classification", model="me/text")("a good film"),
    "checksums": [
        str(HfApi().verify_repo_checksums(repo, repo_type=kind).mismatches)
        for repo, kind in (("me/x-mid", "dataset"), ("me/y", "model"), ("me/y-head", "model"))
    ],
}
try:
    import hf_midrange
except ModuleNotFoundError:
    answers["without us"] = True

import sys
sys.meta_path.pop(0)  # from here on this package is there
import hf_midrange as hm
from huggingface_hub import hf_hub_download
model = hm.apply_head("me/y-head")
save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, "applied.safetensors")
rows = load_dataset("me/x-mid", split="train")
answers["ours"] = [hm.curation_report(rows)["verdict"], len(hm.LogitBands.from_pretrained("me/x-mid").names)]
base = AutoModelForImageClassification.from_pretrained("me/base")
hm.retrain_head(rows, base).save_pretrained("head")
rows[0]["image"].save("image.png")
for repo, kind in (("me/x-mid", "dataset"), ("me/y", "model"), ("me/y-head", "model")):
    card = Path(hf_hub_download(repo, "README.md", repo_type=kind)).read_text()
    exec(card.split("```python\\n")[1].split("```")[0])
print(json.dumps(answers))
"""

STRANGER = """
from datasets import load_dataset
from huggingface_hub import hf_hub_download
for token in (False, True):  # anonymous, and the token of someone else
    for load in (
        lambda: load_dataset("me/x-mid", token=token), lambda: hf_hub_download("me/y", "config.json", token=token)
    ):
        try:
            load()
            print("loaded")
        except Exception as error:
            print(type(error).__name__)
"""


@pytest.fixture(scope="session")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    make(folder)
    return folder


@pytest.fixture(scope="module", params=["lfs", pytest.param("xet", marks=pytest.mark.slow)])
def published(request, material, tmp_path_factory):
    """The server after one process has pushed and another, without this package, has read everything."""
    xet, homes = request.param == "xet", tmp_path_factory.mktemp("homes")
    with running(tmp_path_factory.mktemp("hub"), USERS) as server:
        push = PUSH.replace("MATERIAL", repr(str(material))).replace("METRICS", repr(METRICS))
        pushed = server.run(push, homes / "pusher", ME, xet=xet)
        assert pushed.returncode == 0, pushed.stderr
        commits = json.loads(pushed.stdout.splitlines()[-1])
        read = server.run(READ.replace("COMMITS", repr(commits)), homes / "reader", ME, xet=xet, ours=False)
        assert read.returncode == 0, read.stderr
        server_facts = {
            "server": server,
            "xet": xet,
            "homes": homes,
            "commits": commits,
            "answers": json.loads(read.stdout.splitlines()[-1]),
            "read": homes / "reader" / "read",
            "said": [pushed, read],
        }
        yield server_facts


def card_of(published, kind, repo_id):
    return published["server"].git(kind, repo_id, "show", "main:README.md")


def front_matter(card):
    return yaml.safe_load(card.split("---\n")[1])


def test_the_upload_mode_is_the_one_asked_for(published):
    server = published["server"]
    assert bool(server.log("POST", "/cas/v1/xorbs")) == published["xet"]
    assert bool(server.log("PUT", "/upload/")) == (not published["xet"])
    assert all(row["status"] < 500 for row in server.log())
    assert not any(row["credential"] for row in server.log(path="/blobs/"))


def test_each_publication_is_one_commit_on_a_sound_repository(published):
    server = published["server"]
    for kind, repo_id in (
        ("datasets", "me/x-mid"),
        ("models", "me/y"),
        ("models", "me/text"),
        ("models", "me/y-head"),
    ):
        assert server.git(kind, repo_id, "rev-list", "--count", "main").strip() == "2"
        assert server.git(kind, repo_id, "fsck", "--strict") == ""
    assert server.git("datasets", "me/x-mid", "rev-parse", "main").strip() == published["commits"]["dataset"]
    assert published["answers"]["checksums"] == ["[]"] * 3


def test_rows_come_back_as_they_were(published, material):
    sent, got = load_from_disk(material / "curated"), load_from_disk(published["read"] / "default")
    assert got.column_names == sent.column_names
    assert got.data.schema.types == sent.data.schema.types
    for name in ("label", "group", "place", "pseudo_group"):
        assert got.features[name] == sent.features[name]
    # Who made a column is told, but not in which folder of the machine that was.
    made_by = columns.facts(sent.features, "logits")
    assert columns.facts(got.features, "logits") == {**made_by, "model": "base"}
    assert len(published["server"].git("datasets", "me/x-mid", "ls-tree", "--name-only", "main", "data/").split()) > 1
    plain = [name for name in sent.column_names if name != "image"]
    assert got.select_columns(plain).data.table.equals(sent.select_columns(plain).data.table.combine_chunks()) or (
        got.select_columns(plain).to_dict() == sent.select_columns(plain).to_dict()
    )
    for k in range(0, len(sent), 50):
        assert np.array_equal(np.asarray(got[k]["image"]), np.asarray(sent[k]["image"]))
    assert hm.curation_report(got) == hm.curation_report(sent)


def test_streaming_needs_no_download_and_keeps_the_features(published, material):
    stream, sent = published["answers"]["stream"], load_from_disk(material / "curated")
    assert stream["rows"] == len(sent)
    assert json.loads(stream["reason"]) == hm.curation_report(sent)
    assert set(stream["kinds"]) == set(sent.column_names)


def test_the_long_form_says_each_logit_in_words(published, material):
    sent, long = load_from_disk(material / "curated"), load_from_disk(published["read"] / "long")
    bands = hm.LogitBands.from_pretrained(material / "bands")
    assert len(long) == 2 * len(sent)
    for k in (0, 1, 333, 1199):
        row, source, unit = long[k], sent[k // 2], k % 2
        assert row["row"] == k // 2
        assert (row["label"], row["unit"]) == (NAMES[source["label"]], NAMES[unit])
        assert row["logit"] == source["logits"][unit]
        assert row["quantile"] == source["quantile"][unit]
        assert row["band"] == bands.names[source["band"][unit]]
        assert (row["kept"], row["weight"], row["reason"]) == (source["keep"], source["weight"], source["reason"])
        assert any(PLACES[source["place"]] in word for word in row["concepts"])
        assert np.array_equal(np.asarray(row["image"]), np.asarray(source["image"]))


def test_the_findings_are_a_configuration(published, material):
    sent, got = load_findings(material / "findings"), load_from_disk(published["read"] / "findings")
    assert got.features == sent.features
    assert got["concept"] == sent["concept"]
    np.testing.assert_array_equal(got["odds_ratio"], sent["odds_ratio"])
    kept = json.loads(published["server"].git("datasets", "me/x-mid", "show", "main:findings.json"))
    assert kept["tested"] > 0
    assert str(material) not in json.dumps(kept)


def test_the_model_is_the_same_but_for_its_head(published, material):
    model = AutoModelForImageClassification.from_pretrained(material / "base")
    base = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    head = load_file(material / "head" / "head.safetensors")
    got = load_file(published["read"] / "model.safetensors")
    assert published["answers"]["class"] == "TimmWrapperForImageClassification"
    assert list(published["answers"]["labels"].values()) == NAMES
    assert set(got) == set(base)
    changed = {name for name in base if not np.array_equal(base[name], got[name])}
    assert changed == {"timm_model.fc.weight", "timm_model.fc.bias"}
    np.testing.assert_array_equal(got["timm_model.fc.weight"], head["weight"])
    np.testing.assert_array_equal(got["timm_model.fc.bias"], head["bias"])


def test_pipelines_answer_as_the_model_does_here(published, material):
    answers = published["answers"]
    assert answers["without us"]
    head = hm.LinearHead.from_pretrained(material / "head")
    model = head.merge_into(AutoModelForImageClassification.from_pretrained(material / "base"))
    processor = AutoImageProcessor.from_pretrained(material / "base")
    picture = load_from_disk(material / "curated")[0]["image"]
    here = pipeline("image-classification", model=model, image_processor=processor)(picture)
    assert [row["label"] for row in answers["timm"]] == [row["label"] for row in here]
    assert [row["score"] for row in answers["timm"]] == pytest.approx([row["score"] for row in here], abs=1e-6)
    for task in ("timm", "vit"):
        assert {row["label"] for row in answers[task]} == set(NAMES)
        assert sum(row["score"] for row in answers[task]) == pytest.approx(1, abs=1e-5)
    assert answers["text"][0]["label"] in ("bad: no", "good | <i>")


def test_cards_say_what_is_known(published, material):
    metadata = front_matter(card_of(published, "datasets", "me/x-mid"))
    assert metadata["license"] == "cc-by-4.0"
    assert metadata["source_datasets"] == ["me/x"]
    names = [f for f in metadata["dataset_info"][0]["features"] if f["name"] == "label"][0]["dtype"]["class_label"]
    assert list(names["names"].values()) == NAMES
    assert [config["config_name"] for config in metadata["configs"]] == ["default", "long", "findings"]
    card = card_of(published, "models", "me/y")
    metadata = front_matter(card)
    assert (metadata["base_model"], metadata["license"]) == ("me/base", "apache-2.0")
    values = {m["type"]: m["value"] for m in metadata["model-index"][0]["results"][0]["metrics"]}
    assert values == {"accuracy": 0.9, "worst_group_accuracy": 0.8}
    results = published["server"].git("models", "me/y", "show", "main:.eval_results/me_x.yaml")
    entries = yaml.safe_load(results)
    assert {entry["dataset"]["task_id"]: entry["value"] for entry in entries} == values
    assert "Only timm_model.fc.weight and timm_model.fc.bias differ" in card
    assert hm.curation_report(load_from_disk(material / "curated"))["verdict"] in card


def test_the_head_alone_gives_the_same_model_rows_give_the_same_head_and_snippets_run(published, material):
    home = published["homes"] / "reader"
    assert published["answers"]["ours"] == [hm.curation_report(load_from_disk(material / "curated"))["verdict"], 3]
    applied, whole = load_file(home / "applied.safetensors"), load_file(published["read"] / "model.safetensors")
    assert all(np.array_equal(applied[name], whole[name]) for name in whole)
    again, sent = load_file(home / "head" / "head.safetensors"), load_file(material / "head" / "head.safetensors")
    np.testing.assert_allclose(again["weight"], sent["weight"], rtol=0, atol=1e-6)
    pinned = json.loads(published["server"].git("models", "me/y-head", "show", "main:base.json"))
    assert pinned["base_revision"] == published["server"].git("models", "me/base", "rev-parse", "main").strip()


def test_others_see_nothing(published):
    done = published["server"].run(STRANGER, published["homes"] / "stranger", YOU, xet=published["xet"], ours=False)
    assert done.stdout.split() == ["DatasetNotFoundError", "RepositoryNotFoundError"] * 2, done.stderr
    asked = [row["user"] for row in published["server"].log("HEAD", "me/y/resolve/main/config.json")]
    assert None in asked
    assert "you" in asked


def test_no_token_is_left_anywhere(published):
    for done in published["said"]:
        assert ME not in done.stdout + done.stderr
    for folder in (published["server"].root, published["homes"]):
        found = subprocess.run(["grep", "-rl", ME, str(folder)], capture_output=True, text=True)
        assert found.stdout == ""
