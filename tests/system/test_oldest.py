"""The lower bounds of pyproject.toml are those that `make test-oldest` runs on."""

import importlib
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version


ROOT = Path(__file__).parents[2]
LINES = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
PINNED = {line.split("==")[0]: Version(line.split("==")[1]) for line in LINES if "==" in line}
OURS = LINES[: LINES.index("# not ours")]


def lower_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["metric"]]
    requirements = [Requirement(line) for line in lines]
    return {r.name: Version(next(s.version for s in r.specifier if s.operator == ">=")) for r in requirements}


@pytest.mark.parametrize("name", [line.split("==")[0] for line in OURS if "==" in line])
def test_the_oldest_version_is_the_lower_bound(name):
    assert PINNED[name] == lower_bounds()[name]


def test_the_libraries_of_the_ecosystem_are_all_listed():
    assert {"accelerate", "datasets", "evaluate", "huggingface-hub", "timm", "transformers"} <= PINNED.keys()


def test_libraries_are_all_old_or_all_new():
    """One of the old among the new would test neither."""
    import transformers

    found = {name: Version(version(name)) for name in PINNED.keys() & lower_bounds().keys()}
    if Version(transformers.__version__) == PINNED["transformers"]:
        assert found == {name: PINNED[name] for name in found}
        assert importlib.import_module("datasets").__version__ == str(PINNED["datasets"])
    else:
        assert all(found[name] >= PINNED[name] for name in found)
