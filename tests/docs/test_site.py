"""The pages hang together: all of them in the navigation, every name and column on one of them, no dead link."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

import hf_midrange as hm
from hf_midrange import columns


ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {"reference/python.md", "reference/commands.md", "pictures/digit_dominoes.png"}
PAGES = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def listed(part):
    if isinstance(part, str):
        return [part]
    parts = part.values() if isinstance(part, dict) else part
    return [page for each in parts for page in listed(each)]


def test_every_page_is_in_the_navigation_and_every_entry_is_a_page():
    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    assert sorted(listed(navigation)) == sorted(PAGES | {page for page in GENERATED if page.endswith(".md")})


@pytest.mark.parametrize("page", sorted(PAGES))
def test_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", (DOCS / page).read_text())
    inner = [link for link in links if not link.startswith("http")]
    lost = [link for link in inner if not ((DOCS / page).parent / link).exists()]
    places = [((DOCS / page).parent / link).resolve() for link in lost]
    assert [str(place.relative_to(DOCS)) for place in places if str(place.relative_to(DOCS)) not in GENERATED] == []


def test_code_in_other_files_is_there():
    for page in PAGES:
        for path in re.findall(r'--8<-- "(.*?)"', (DOCS / page).read_text()):
            assert (ROOT / path).is_file(), f"{page}: {path}"


def test_every_public_name_is_in_the_reference():
    pytest.importorskip("mkdocs")
    spec = importlib.util.spec_from_file_location("reference", DOCS / "reference.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    page = reference.python_page()
    assert {line.rsplit(".", 1)[1] for line in page.splitlines() if line.startswith(":::")} == set(hm.__all__)
    assert set(re.findall(r"^## (\S+)", reference.commands_page(), flags=re.MULTILINE)) >= {"run", "demo", "curate"}


def test_every_column_has_a_line():
    text = (DOCS / "columns.md").read_text()
    described = set(re.findall(r"`(\w+)`", text))
    own = [value for name, value in vars(columns).items() if name.isupper() and isinstance(value, str)]
    assert [name for name in own if not name.endswith("_") and name not in described] == []


def test_every_key_of_the_curation_report_has_a_line():
    from support.tied_rows import simulate

    described = set(re.findall(r"`(\w+)`", (DOCS / "columns.md").read_text()))
    report = hm.curation_report(hm.curate(simulate()))
    assert sorted(set(report) - described) == []


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_are_short(example):
    assert len(example.read_text().splitlines()) <= 40
