"""The example cards are what their facts render to, and say the same figures as README."""

import re
import sys
from pathlib import Path

import pytest
from huggingface_hub import DatasetCard, ModelCard


ROOT = Path(__file__).parents[2]
CARDS = ROOT / "model_cards"


@pytest.fixture(scope="module")
def rendered():
    sys.path.insert(0, str(CARDS))
    try:
        import render

        return render.rendered()
    finally:
        sys.path.remove(str(CARDS))


@pytest.mark.parametrize("name", ["dataset_card.md", "model_card.md"])
def test_rendering_again_gives_the_committed_card(rendered, name):
    assert (CARDS / name).read_text(encoding="utf-8") == rendered[name], "`python model_cards/render.py` renews it"


def test_the_hub_client_reads_them(rendered):
    data = DatasetCard(rendered["dataset_card.md"], ignore_metadata_errors=False).data
    assert [info["config_name"] for info in data.dataset_info] == ["default", "long", "findings"]
    model = ModelCard(rendered["model_card.md"], ignore_metadata_errors=False).data
    assert {result.metric_type for result in model.eval_results} == {"accuracy", "worst_group_accuracy"}


def test_figures_are_those_of_readme(rendered):
    def figures(text):
        return set(re.findall(r"\d+\.\d ± \d\.\d %", text))

    assert len(figures(rendered["model_card.md"])) == 10
    assert figures(rendered["model_card.md"]) == figures((ROOT / "README.md").read_text(encoding="utf-8"))
