"""A repair offered to somebody else's model: a pull request with the card as its text, and nothing on main."""

import json

import pytest
from support.hub_server.running import running
from support.publish_material import vit_model


ME, YOU = "hf_" + "p" * 34, "hf_" + "q" * 34
USERS = {ME: {"name": "me"}, YOU: {"name": "you"}}

OWN = """
from huggingface_hub import HfApi
from transformers import AutoModelForImageClassification
model = AutoModelForImageClassification.from_pretrained(VIT)
model.push_to_hub("you/vit", private=False)
HfApi().upload_file(path_or_fileobj=b"# Mine\\n", path_in_repo="README.md", repo_id="you/vit")
HfApi().create_repo("you/rows", repo_type="dataset", private=False)
"""

PROPOSE = """
import json
import torch
from huggingface_hub import HfApi
from support.curated_rows import curated
from transformers import AutoModelForImageClassification
import hf_midrange as hm

def told(do):
    try:
        return do()
    except ValueError as error:
        return str(error)

model = AutoModelForImageClassification.from_pretrained("you/vit")
head = hm.LinearHead.from_weights(model.classifier.weight + 1, model.classifier.bias)
metrics = {"mean": 0.9, "worst_group": 0.8}
offer = lambda **more: hm.publish_model(model, "you/vit", head=head, metrics=metrics, create_pr=True, **more)
answers = {
    "private": told(lambda: offer()),
    "branch": told(lambda: offer(private=False, revision="next")),
    "missing": told(lambda: hm.publish_dataset(curated(), "you/none", create_pr=True, private=False)),
    "push": told(lambda: hm.publish_model(model, "you/vit", private=False)),
}
done = offer(private=False, commit_message="Correct the head")
answers["url"], answers["number"] = done.pr_url, done.pr_num
rows = hm.publish_dataset(curated(), "you/rows", create_pr=True, private=False)
answers["rows"] = rows.pr_num
offered = AutoModelForImageClassification.from_pretrained("you/vit", revision="refs/pr/1")
answers["offered"] = torch.equal(offered.classifier.weight, head.weight)
answers["refs"] = [ref.ref for ref in HfApi().list_repo_refs("you/vit", include_pull_requests=True).pull_requests]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module", params=["lfs", pytest.param("xet", marks=pytest.mark.slow)])
def offered(request, tmp_path_factory):
    xet, folder = request.param == "xet", tmp_path_factory.mktemp("offered")
    vit_model(folder / "vit")
    with running(folder / "hub", USERS) as server:
        owned = server.run(OWN.replace("VIT", repr(str(folder / "vit"))), folder / "owner", YOU, xet=xet)
        assert owned.returncode == 0, owned.stderr
        main = server.git("models", "you/vit", "rev-parse", "main")
        done = server.run(PROPOSE, folder / "guest", ME, xet=xet)
        assert done.returncode == 0, done.stderr
        yield server, main, json.loads(done.stdout.splitlines()[-1])


def test_the_pull_request_holds_the_repaired_model_and_main_is_untouched(offered):
    server, main, answers = offered
    assert answers["number"] == 1
    assert answers["url"].endswith("/you/vit/discussions/1")
    assert answers["offered"] is True
    assert answers["refs"] == ["refs/pr/1"]
    assert server.git("models", "you/vit", "rev-parse", "main") == main
    said = server.git("models", "you/vit", "log", "-1", "--format=%an %s", "refs/pr/1")
    assert said.strip() == "me Correct the head"
    changed = server.git("models", "you/vit", "diff", "--name-only", "main", "refs/pr/1").split()
    assert changed == ["model.safetensors"]


def test_its_text_is_the_card_and_the_owners_card_stays(offered):
    server = offered[0]
    said = json.loads((server.root / "models" / "you" / "vit.git" / "pull-1.json").read_text())
    assert said["title"] == "Correct the head"
    assert "Only classifier.weight and classifier.bias differ" in said["description"]
    assert "80.0 %" in said["description"]
    assert server.git("models", "you/vit", "show", "refs/pr/1:README.md") == "# Mine\n"


def test_a_data_set_can_be_offered_too(offered):
    server, _, answers = offered
    assert answers["rows"] == 1
    listed = server.git("datasets", "you/rows", "ls-tree", "-r", "--name-only", "refs/pr/1").split()
    assert {"README.md", "data/train-00000-of-00001.parquet"} <= {*listed}
    assert server.git("datasets", "you/rows", "ls-tree", "-r", "--name-only", "main").split() == [".gitattributes"]


def test_what_cannot_be_offered_is_refused(offered):
    answers = offered[2]
    assert "pass private=False" in answers["private"]
    assert "on the main branch" in answers["branch"]
    assert "there is no dataset you/none to open a pull request on" in answers["missing"]
    assert "a token with write access" in answers["push"]
