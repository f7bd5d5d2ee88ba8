"""Render the example cards from the facts beside them, or first renew the facts from what the demo wrote.

python model_cards/render.py
hf-midrange demo && python model_cards/render.py --demo outputs/demo
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

from hf_midrange.io.files import from_json
from hf_midrange.publishing import DatasetFacts, ModelFacts, Score, dataset_card, model_card


HERE = Path(__file__).parent
DATASET, MODEL = "me/digit-dominoes-mid", "me/lite0-dominoes-mid"
OURS = "hf_midrange"


def rendered(folder: Path = HERE) -> dict[str, str]:
    """Return file name -> text of both cards."""
    data = json.loads((folder / "dataset_card.json").read_text(encoding="utf-8"))
    model = json.loads((folder / "model_card.json").read_text(encoding="utf-8"))
    return {
        "dataset_card.md": dataset_card(from_json(DatasetFacts, data)),
        "model_card.md": model_card(from_json(ModelFacts, model)),
    }


def renew_facts(demo: Path) -> None:
    """Write the facts of both cards from the folder that `hf-midrange demo` wrote."""
    from datasets import load_from_disk
    from transformers import AutoModelForImageClassification

    import hf_midrange as hm
    from hf_midrange.association.findings import read_findings
    from hf_midrange.publishing.dataset import Content, write_files
    from hf_midrange.publishing.model import Background, model_facts

    curated, findings = load_from_disk(demo / "curated"), read_findings(demo / "findings")
    with tempfile.TemporaryDirectory() as folder:
        content = Content.of(curated, findings=findings, bands=hm.LogitBands().fit(curated))
        of_data = write_files(content, DATASET, Path(folder))
    model = AutoModelForImageClassification.from_pretrained(demo / "model")
    head = hm.LinearHead.from_pretrained(demo / "head")
    of_model = model_facts(model, MODEL, Background(head, curated, findings, curated_id=DATASET))
    measured = json.loads((demo / "facts.json").read_text(encoding="utf-8"))
    scores = {name: Score.of(name, metrics) for name, metrics in measured["methods"].items()}
    of_model = replace(
        of_model,
        score=scores.pop(OURS),
        controls=tuple(scores.values()),
        score_note=f"{measured['rows']['test']} untied images, {len(measured['trials'])} seeds, all heads fitted the "
        f"same way on the same {measured['rows']['curation']} curation images",
    )
    for name, facts in (("dataset_card", of_data), ("model_card", of_model)):
        text = json.dumps(asdict(facts), indent=1) + "\n"
        (HERE / f"{name}.json").write_text(text, encoding="utf-8")


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--demo", type=Path, help="folder of a demo to take the facts from")
    demo = parser.parse_args().demo
    if demo is not None:
        renew_facts(demo)
    for name, text in rendered().items():
        (HERE / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
