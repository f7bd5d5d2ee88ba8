"""The `evaluate` module: loaded as a folder, without network, and equal to `group_metrics`."""

import ast
import doctest
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.hub_server.running import running

import hf_midrange as hm


WORST_GROUP_ACCURACY = Path(__file__).parents[2] / "metrics" / "worst_group_accuracy"
FILES = ("README.md", "app.py", "requirements.txt", "worst_group_accuracy.py")
SOURCE = WORST_GROUP_ACCURACY / "worst_group_accuracy.py"


@pytest.fixture(scope="module")
def metric(tmp_path_factory):
    import evaluate

    return evaluate.load(str(WORST_GROUP_ACCURACY), cache_dir=str(tmp_path_factory.mktemp("metrics")))


@settings(max_examples=40)
@given(st.data())
def test_figures_are_those_of_group_metrics(metric, data):
    n = data.draw(st.integers(1, 40))
    predictions, references = (data.draw(arrays.arrays(np.int64, n, elements=st.integers(0, 2))) for _ in range(2))
    groups = data.draw(arrays.arrays(np.int64, n, elements=st.integers(0, 4)))
    names = data.draw(st.one_of(st.none(), st.just(["a", "b: c", '"d"', "<e>", "f"])))
    count = 5 if names else int(groups.max()) + 1
    shares = data.draw(st.one_of(st.none(), st.lists(st.floats(0.01, 1), min_size=count, max_size=count)))
    options = {"group_names": names, "train_group_shares": shares, "confidence": data.draw(st.floats(0.5, 0.999))}
    expected = hm.group_metrics(predictions, references, groups, **options)
    found = metric.compute(predictions=predictions, references=references, groups=groups, **options)
    assert found["worst_group_name"] == expected["worst_group_name"]
    assert found["groups"].keys() == expected["groups"].keys()
    for name, row in expected["groups"].items():
        assert found["groups"][name] == pytest.approx(row, abs=1e-12)
    for name in expected.keys() - {"groups", "worst_group_name"}:
        assert found[name] == pytest.approx(expected[name], abs=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": [0, 5], "group_names": ["a"]}, "run from 0 to 5 but there are 1"),
        ({"groups": [-1, 0]}, "run from -1 to 0"),
        ({"groups": [0, 1], "train_group_shares": [1.0]}, "1 shares for 2 groups"),
    ],
)
def test_wrong_groups_are_refused(metric, options, message):
    with pytest.raises(ValueError, match=message):
        metric.compute(predictions=[0, 1], references=[0, 1], **options)


def test_rows_added_in_batches_are_scored_together(metric):
    for rows in ([0, 0], [1, 1]):
        metric.add_batch(predictions=[0, 1], references=[0, rows[0]], groups=rows)
    assert metric.compute()["groups"]["0"]["n"] == 2


@pytest.mark.parametrize("file", [SOURCE, WORST_GROUP_ACCURACY / "README.md"], ids=["module", "card"])
def test_examples_give_what_they_say(metric, file, monkeypatch):
    import evaluate

    monkeypatch.chdir(WORST_GROUP_ACCURACY.parent)
    text = metric.inputs_description if file == SOURCE else file.read_text()
    examples = doctest.DocTestParser().get_doctest(text, {"evaluate": evaluate}, file.name, str(file), 0)
    assert len(examples.examples) >= 5
    result = doctest.DocTestRunner().run(examples)
    assert result.failed == 0


def test_the_module_stands_by_itself_and_is_read_as_evaluate_reads():
    imports = [node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert all(len(node.names) == 1 for node in imports)
    names = [node.module if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    modules = {str(name).split(".")[0] for name in names}
    assert modules == {"datasets", "evaluate", "numpy", "scipy"}
    needed = {line.split(">")[0] for line in (WORST_GROUP_ACCURACY / "requirements.txt").read_text().split()}
    assert needed == modules - {"datasets"}  # which evaluate brings


@pytest.mark.slow
def test_it_loads_where_there_is_no_network_and_no_hf_midrange(tmp_path):
    code = (
        "import sys; sys.modules['hf_midrange'] = None; import evaluate;"
        f"m = evaluate.load({str(WORST_GROUP_ACCURACY)!r});"
        "print(m.compute(predictions=[1, 0], references=[1, 1], groups=[0, 1])['worst_group_name'])"
    )
    env = {**os.environ, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout.strip() == "1", done.stderr


def test_the_card_is_that_of_a_space():
    card = huggingface_hub.RepoCard.load(WORST_GROUP_ACCURACY / "README.md", ignore_metadata_errors=False)
    facts = yaml.safe_load(card.data.to_yaml())
    assert (facts["sdk"], facts["app_file"], facts["tags"]) == ("gradio", "app.py", ["evaluate", "metric"])
    assert facts["sdk_version"].startswith("3.")  # `launch_gradio_widget` uses `gradio.inputs`, which 4 has not
    assert {path.name for path in WORST_GROUP_ACCURACY.iterdir() if path.is_file()} == {*FILES}


def test_the_space_starts(monkeypatch):
    """Run app.py as a Space does, with a stand-in for gradio that has the three names `evaluate` uses."""
    started = []

    class Interface:
        def __init__(self, fn, title, article, **options):
            self.facts = (fn, title, article)

        def launch(self):
            started.append(self.facts)

    gradio = SimpleNamespace(
        Interface=Interface,
        inputs=SimpleNamespace(Dataframe=lambda **_: None),
        outputs=SimpleNamespace(Textbox=lambda **_: None),
    )
    monkeypatch.setitem(sys.modules, "gradio", gradio)
    monkeypatch.syspath_prepend(str(WORST_GROUP_ACCURACY))
    monkeypatch.delitem(sys.modules, "worst_group_accuracy", raising=False)
    exec(compile((WORST_GROUP_ACCURACY / "app.py").read_text(), "app.py", "exec"), {"__name__": "__main__"})
    ((compute, title, article),) = started
    assert "worst_group_accuracy" in title
    assert article.lstrip().startswith("# Metric Card")
    import pandas as pd

    table = pd.DataFrame({"predictions": [0, 1], "references": [0, 0], "groups": [0, 1]})
    assert compute(table)["worst_group"] == 0.0


LOAD = """
import evaluate
metric = evaluate.load("me/worst_group_accuracy")
assert metric.compute(predictions=[0, 1, 1], references=[0, 1, 0], groups=[0, 0, 1])["worst_group"] == 0.0
"""


def test_the_published_module_is_loaded_by_evaluate_without_this_package(tmp_path):
    token = "hf_" + "m" * 34
    with running(tmp_path / "hub", {token: {"name": "me"}}) as server:
        code = (
            "from huggingface_hub import HfApi; api = HfApi(); "
            "api.create_repo('me/worst_group_accuracy', repo_type='space', space_sdk='gradio'); "
            f"api.upload_folder(repo_id='me/worst_group_accuracy', repo_type='space', "
            f"folder_path={str(WORST_GROUP_ACCURACY)!r}, ignore_patterns='__pycache__/*')"
        )
        pushed = server.run(code, tmp_path / "pusher", token)
        assert pushed.returncode == 0, pushed.stderr
        loaded = server.run(LOAD, tmp_path / "reader", ours=False)
        assert loaded.returncode == 0, loaded.stderr
