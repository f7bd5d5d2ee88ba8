"""`hf-midrange publish`: flags, refusals in one line, and what the wheel needs to render a card."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support.curated_rows import curated

from hf_midrange.commands.app import main


ROOT = Path(__file__).parents[2]


@pytest.fixture
def no_token(monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.utils._auth._get_token_from_file", lambda: None)


def ended(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["publish", *map(str, words)])
    return end.value.code, " ".join(capsys.readouterr().err.split())


def test_something_must_be_given(capsys):
    code, told = ended(capsys, "me/x")
    assert code == 2
    assert "--dataset, --model, or both" in told


def test_refusals_are_one_line(capsys, tmp_path, no_token):
    curated().save_to_disk(tmp_path / "rows")
    curated().remove_columns("keep").save_to_disk(tmp_path / "raw")
    (tmp_path / "model").mkdir()
    for words, expected in (
        (("me/x", "--dataset", tmp_path / "rows"), "there is no token; `hf auth login`"),
        (("me/x/y", "--dataset", tmp_path / "rows"), "is not a repository id"),
        (("me/x", "--dataset", tmp_path / "raw"), "lacks the columns ['keep']"),
        (("me/x", "--dataset", tmp_path / "nothing"), "nothing"),
        (("me/x", "--model", tmp_path / "model"), "holds no config.json; `hf-midrange run` and `retrain --merge`"),
    ):
        code, told = ended(capsys, *words)
        assert code == 1
        assert told.startswith("error: ")
        assert expected in told


def test_a_token_is_never_a_flag(capsys):
    code, told = ended(capsys, "me/x", "--token", "hf_secret")
    assert code == 2
    assert "hf_secret" not in told


@pytest.mark.slow
def test_the_wheel_holds_what_cards_and_reports_are_rendered_from(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "hf_midrange").glob("*/templates/*")}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if "/templates/" in name}
        archive.extractall(tmp_path / "site")
    assert packed == templates
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from hf_midrange.publishing import ModelFacts, model_card\n"
        "import hf_midrange; assert hf_midrange.__file__.startswith(sys.argv[1])\n"
        "print(model_card(ModelFacts('me/y', 'A', 'text-classification', ('a',), {})))"
    )
    command = [sys.executable, "-P", "-c", code, str(tmp_path / "site")]
    shown = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "# me/y" in shown
