"""What is beside the code says what the code and pyproject.toml say."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement

import hf_midrange as hm


ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IN_CONDA = {"torch": "pytorch", "huggingface-hub": "huggingface_hub"}


def recipe():
    text = (ROOT / "conda" / "meta.yaml").read_text()
    version = re.search(r'set version = "(.*?)"', text)[1]
    plain = text.replace("{{ version }}", version).replace("{{ PYTHON }}", "python")
    return yaml.safe_load(re.sub(r"{%.*%}", "", plain))


def test_the_conda_recipe_needs_what_the_package_needs():
    needed = {Requirement(one) for one in PROJECT["dependencies"]}
    ours = {f"{IN_CONDA.get(one.name, one.name)} {one.specifier}" for one in needed}
    assert set(recipe()["requirements"]["run"]) == ours | {f"python {PROJECT['requires-python']}"}
    assert recipe()["package"]["version"] == PROJECT["version"] == hm.__version__


def test_the_citation_has_the_version():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == hm.__version__


def test_workflows_call_make_targets_or_the_same_script():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for path in (ROOT / ".github" / "workflows").glob("*.yml"):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
        for command in commands:
            for words in re.findall(r"\bmake ([a-z -]+)", command):
                assert set(words.split()) <= targets, f"{path.name}: {command}"
        assert any("make " in command or ".ci/run" in command for command in commands), path.name


def test_the_hook_and_the_example_of_a_workflow_call_check_as_it_is(capsys):
    import shlex

    import typer

    from hf_midrange.commands.app import app

    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["entry"] == "hf-midrange check"
    steps = yaml.safe_load((ROOT / "examples" / "check.yml").read_text())["jobs"]["check"]["steps"]
    words = shlex.split(next(step["run"] for step in steps if "hf-midrange check" in step.get("run", "")))
    known = {flag for option in typer.main.get_command(app).commands["check"].params for flag in option.opts}
    assert {word for word in words if word.startswith("--")} <= known


def test_env_says_what_a_bug_report_needs():
    words = [sys.executable, "-m", "hf_midrange.commands.app", "env"]
    told = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    for name in ("hf-midrange", "Python", "torch", "transformers", "accelerator"):
        assert name in told
    assert "pytest" not in told
    assert str(Path.home()) not in told


def test_verbosity_is_that_of_the_environment():
    code = "import hf_midrange as hm; print(hm.logging.get_verbosity())"

    def said(level):
        words = [sys.executable, "-c", code]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env={"HF_MIDRANGE_VERBOSITY": level})
        return done.stdout.strip(), done.stderr

    assert said("error")[0] == "40"
    assert said("info")[0] == "20"
    assert "should be one of debug" in said("loud")[1]
