"""Licences of everything that is installed with the package: all let it be used and passed on under Apache-2.0."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement


ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
USED = ("demo", "explore", "metric")
"""Extras that users install; those of developers are not passed on with anything."""

PERMISSIVE = re.compile(
    r"apache|\bmit\b|\bbsd|\bisc\b|psf|python software foundation|hpnd|historical permission|zlib|unlicense"
    r"|\b0bsd\b|mpl|mozilla|cnri|public domain|cc0|mit-cmu",
    re.IGNORECASE,
)
STRONG = re.compile(r"(?<!l)gpl|affero|\bsspl|commons clause|non-?commercial", re.IGNORECASE)

def told(name: str) -> str:
    """Return all that a distribution says of its licence."""
    meta = distribution(name).metadata
    parts = [meta.get("License-Expression", ""), (meta.get("License") or "").splitlines()[:1]]
    parts += [each for each in meta.get_all("Classifier", []) if each.startswith("License ::")]
    said = " | ".join(part if isinstance(part, str) else " ".join(part) for part in parts if part)
    if said not in ("", "UNKNOWN"):
        return said
    files = [file for file in distribution(name).files or [] if "LICEN" in file.name.upper()]
    return " ".join(file.read_text()[:300] for file in files)


def everything() -> dict[str, str]:
    """Return distribution -> what it says, for the requirements and what these require, as far as it is installed."""
    extras = PROJECT["optional-dependencies"]
    left = [*PROJECT["dependencies"], *(line for extra in USED for line in extras.get(extra, []))]
    found: dict[str, str] = {}
    while left:
        requirement = Requirement(left.pop())
        wanted = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra}) for extra in requirement.extras or {""}
        )
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        # What drives graphics cards is proprietary and comes with torch alone, for those who have such a card.
        if not wanted or name in found or name.startswith(("nvidia-", "cuda-", "hf-midrange")):
            continue
        try:
            found[name] = told(name)
        except PackageNotFoundError:
            continue
        left += distribution(name).requires or []
    return found


def test_all_licences_let_the_package_be_passed_on():
    found = everything()
    assert len(found) > 30
    assert {name for name, said in found.items() if not PERMISSIVE.search(said)} == set()
    assert {name: said for name, said in found.items() if STRONG.search(said)} == {}


@pytest.mark.parametrize("group", ["dependencies", *USED])
def test_upper_bounds_stand_only_where_a_break_is_known(group):
    lines = PROJECT["dependencies"] if group == "dependencies" else PROJECT["optional-dependencies"].get(group, [])
    bounded = [line for line in lines if re.search(r"<|~=", line)]
    assert bounded == []
