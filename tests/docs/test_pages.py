"""What the documentation prints is run: examples by themselves, the blocks of a page one after the other."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from datasets import load_from_disk
from support.reader_folder import striped

import hf_midrange as hm


ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
PAGES = [ROOT / "docs" / "start.md", *sorted((ROOT / "docs" / "how-to").glob("*.md"))]
OUTPUTS = ROOT / "docs" / "outputs"
NOT_RUN = re.compile(r"<!-- not run here: [^>]+ -->\n```.*?```", re.DOTALL)

pytestmark = pytest.mark.slow


def blocks(page):
    """The blocks of a page that are run, with code that lies in other files put in."""
    found = re.findall(r"```(python|bash)\n(.*?)```", NOT_RUN.sub("", page.read_text()), flags=re.DOTALL)
    own = [(kind, code) for kind, code in found if '"examples/' not in code]  # examples run by themselves
    return [(kind, re.sub(r'--8<-- "(.*?)"', lambda at: (ROOT / at[1]).read_text(), code)) for kind, code in own]


def masked(text):
    """A text without its figures and spaces, which differ between machines."""
    return re.sub(r"-?[\d.]+", "#", " ".join(text.split()))


def ran(words, folder):
    env = os.environ | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, env=env)
    assert done.returncode in (0, 3), f"{words}\n{done.stdout}\n{done.stderr}"  # 3: nothing to show
    return done.stdout


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_ends_as_the_page_says(example, tmp_path):
    printed = ran([sys.executable, str(example)], tmp_path)
    shown = OUTPUTS / f"{example.stem}.txt"
    if shown.is_file():
        assert masked(shown.read_text()) in masked(printed)


def given(reader, page):
    """What a page's blocks take for granted."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    model = AutoModelForImageClassification.from_pretrained(reader / "me" / "my-classifier")
    processor = AutoImageProcessor.from_pretrained(reader / "me" / "my-classifier")
    names = {"hm": hm, "dataset": load_from_disk(reader / "my-images"), "model": model, "processor": processor}
    names |= {"train": striped(240, 3), "test": striped(60, 4)}
    if page.stem in ("start", "verdicts", "report", "hub"):
        ds = hm.extract(names["dataset"], model, processor)
        ds = hm.annotate(hm.LogitBands().fit(ds).transform(ds), [hm.Thumbnail(), hm.ImageProperties()])
        names["findings"] = hm.associate(ds)
        names["curated"] = hm.curate(ds, names["findings"])
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_blocks_of_a_page_run(page, reader, monkeypatch):
    monkeypatch.chdir(reader)
    names = given(reader, page)
    if page.stem == "hub":
        names["curated"].save_to_disk("repaired/curated")
    elif Path("repaired").exists():
        shutil.rmtree("repaired")
    for kind, code in blocks(page):
        if kind == "python":
            exec(compile(code, str(page), "exec"), names)
            continue
        for line in code.splitlines():
            words = shlex.split(line)
            if words[0] == "hf-midrange":
                ran([sys.executable, "-m", "hf_midrange.commands.app", *words[1:]], reader)
