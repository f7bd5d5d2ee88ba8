"""The house itself: what importing costs, that the public names are one list, and that types are shipped."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hf_midrange as hm


ROOT = Path(__file__).parents[2]
LIGHT = ["associate", "curate", "curation_report", "LogitBands", "group_metrics", "annotate"]
HEAVY = ("torch", "transformers", "evaluate")


@pytest.mark.parametrize("name", [None, *LIGHT])
def test_light_names_load_no_deep_learning_library(name):
    access = f"hf_midrange.{name}; " if name else ""
    code = f"import sys, hf_midrange; {access}print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", sorted(hm._HOMES))
def test_every_public_name_is_listed_and_resolves(name):
    assert name in dir(hm)
    assert getattr(hm, name) is not None


def test_unknown_name_is_an_attribute_error_that_lists_the_names():
    with pytest.raises(AttributeError, match="asociate.*associate"):
        hm.asociate  # noqa: B018 - the access is the test


def test_type_checkers_see_the_same_names_as_python():
    tree = ast.parse((ROOT / "hf_midrange" / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    declared = {
        alias.asname: node.module.removeprefix("hf_midrange.")
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == hm._HOMES


def test_types_and_version_are_shipped():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert (ROOT / "hf_midrange" / "py.typed").is_file()
    assert project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"] == ["hf_midrange"]
    assert project["project"]["version"] == hm.__version__
