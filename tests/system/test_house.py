"""The house itself: what importing costs, which room may know which, and that the public names are one list."""

import ast
import os
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


CURATED = """
import sys
import hf_midrange as hm
from support.tied_rows import simulate
hm.curate(simulate())
print([name for name in sys.argv[1:] if name in sys.modules])
"""


def test_curating_prepared_columns_loads_no_deep_learning_library():
    paths = [str(ROOT), str(ROOT / "tests"), *sys.path]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CURATED, *HEAVY],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
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


LAYERS = [
    "logging", "columns", "verdicts", "input_columns", "scoring", "io", "processes", "classifier", "extraction",
    "bands", "concepts", "head", "association", "curation", "ties", "pipeline", "publishing", "reporting", "training",
    "checking", "explorer", "demo", "commands",
]  # fmt: skip
"""Files and folders of the package from the ground up: what stands lower knows nothing of what stands higher."""

PACKAGE = ROOT / "hf_midrange"
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def imported(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, in functions and for type checkers too.

    A public name of the package, imported or taken from it (`hm.curate`), is the room that it comes from.
    """
    found, tree = set(), ast.parse(path.read_text())
    roots = {"hf_midrange"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            roots |= {alias.asname for alias in node.names if alias.name == "hf_midrange" and alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in SOURCES else node.module for name in inner}
            found |= {of_name(alias.name) for alias in node.names if node.module == "hf_midrange"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in roots:
            found.add(of_name(node.attr))
    return (found & SOURCES.keys()) - {"hf_midrange"}


def of_name(name: str) -> str:
    return f"hf_midrange.{hm._HOMES.get(name, name)}"


GRAPH = {module: imported(path) for module, path in SOURCES.items() if module != "hf_midrange"}


def room(module: str) -> str:
    return module.split(".")[1]


def test_no_arrow_points_up():
    assert {room(module) for module in GRAPH} == {*LAYERS}
    height = {name: k for k, name in enumerate(LAYERS)}
    arrows = [(one, other) for one, others in GRAPH.items() for other in sorted(others) if room(one) != room(other)]
    assert [(one, other) for one, other in arrows if height[room(one)] < height[room(other)]] == []


def test_no_files_import_each_other_in_a_circle():
    left = dict(GRAPH)
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    assert {module: sorted(others & left.keys()) for module, others in left.items()} == {}


def test_no_file_is_long():
    lines = {module: len(path.read_text().splitlines()) for module, path in SOURCES.items()}
    assert {module: count for module, count in lines.items() if count > 500} == {}
