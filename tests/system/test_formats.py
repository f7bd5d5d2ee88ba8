"""Files that earlier releases wrote are read, and every file that this one writes says its format.

`tests/data/<version>` holds a folder of each kind, made by that version; a release adds its own.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, DatasetDict

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.association import load_findings, provenance
from hf_midrange.association.findings import read_findings
from hf_midrange.io.datasets import read_dataset
from hf_midrange.training.holdout import Holdout


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """Return a copy of what 0.1.0 wrote, beside which `datasets` may leave its caches."""
    return shutil.copytree(Path(__file__).parents[1] / "data" / "0.1.0", tmp_path_factory.mktemp("old") / "0.1.0")


@pytest.fixture(scope="module")
def curated(old):
    return read_dataset(str(old / "curated"))


def test_bands_of_0_1_0_are_read_and_cut_as_they_did(old, curated):
    bands = hm.LogitBands.from_pretrained(old / "bands")
    again = bands.transform(curated.remove_columns(["band", "quantile", "position"]))
    np.testing.assert_array_equal(columns.matrix(again, "band"), columns.matrix(curated, "band"))
    np.testing.assert_array_equal(columns.matrix(again, "quantile"), columns.matrix(curated, "quantile"))


@pytest.mark.parametrize("name", ["Annotations", "NGrams", "TextStyle"])
def test_sources_of_0_1_0_are_read_and_say_the_same(old, name, curated):
    source = hm.load_source(old / "sources" / f"{name}.json")
    made = hm.annotate(curated.select_columns(["text", "label", "tied"]), [source])
    for column in set(made.column_names) - {"text", "label", "tied"}:
        assert made[column][:] == curated[column][:]


def test_curated_rows_of_0_1_0_are_read_with_their_report_and_go_on(old, curated):
    report = hm.curation_report(curated)
    assert report["verdict"] == "nothing to repair"
    assert sum(cell["rows"] for cell in report["cells"]) == len(curated) == 120
    findings = hm.associate(curated)
    assert set(findings["concept"]) == set(load_findings(old / "findings")["concept"])
    assert isinstance(read_dataset(str(old / "splits")), DatasetDict)


def test_findings_of_0_1_0_are_read_and_reported(old, curated):
    findings = load_findings(old / "findings")
    assert len(findings) == 3
    assert provenance(findings)["rows"] == 120
    assert hm.report(curated, findings).facts["findings"] == 3


def test_findings_that_a_command_of_0_1_0_wrote_are_read_too(old, curated):
    found = read_findings(old / "command_findings")
    same = load_findings(old / "findings")
    assert [found[name][:] for name in ("concept", "odds_ratio", "q_confirm")] == [
        same[name][:] for name in ("concept", "odds_ratio", "q_confirm")
    ]
    assert hm.report(curated, found).facts["findings"] == 3


def test_a_head_of_0_1_0_is_read(old, curated):
    head = hm.LinearHead.from_pretrained(old / "head")
    assert (head.num_classes, head.width) == (2, 4)
    predicted = head(columns.matrix(curated, "embedding")).argmax(dim=1).numpy()
    assert (predicted == columns.labels(curated)).mean() > 0.7


def test_shards_of_0_1_0_are_read(old):
    bands = hm.LogitBands("quantile").fit(old / "shards")
    assert len(bands.fitted) == 2


def test_rows_held_out_by_0_1_0_are_known(old):
    assert Holdout.read(old / "checkpoint").indices == [1, 5, 7]


def json_files(folder: Path) -> dict[str, dict]:
    """Return the JSON files of ours in a folder; `datasets` writes some of its own."""
    theirs = {"dataset_info.json", "state.json", "dataset_dict.json"}
    return {
        path.relative_to(folder).as_posix(): json.loads(path.read_text())
        for path in folder.rglob("*.json")
        if path.name not in theirs
    }


def test_every_file_says_its_format(old, curated, tmp_path):
    from support.classifiers import bert, tokenizer

    from hf_midrange.association import save_findings
    from hf_midrange.io.datasets import write_dataset

    findings = load_findings(old / "findings")
    hm.LogitBands.from_pretrained(old / "bands").save_pretrained(tmp_path / "bands")
    hm.LinearHead.from_pretrained(old / "head").save_pretrained(tmp_path / "head")
    hm.load_source(old / "sources" / "NGrams.json").save(tmp_path / "source.json")
    save_findings(findings, tmp_path / "findings")
    write_dataset(curated, tmp_path / "curated")
    hm.report(curated, findings).save(tmp_path / "report")
    Holdout.read(old / "checkpoint").write(tmp_path / "checkpoint")
    rows: Dataset = curated.select_columns(["text"]).select(range(4))
    hm.extract(rows, bert(), tokenizer(), output_dir=tmp_path / "shards")
    found = json_files(tmp_path)
    assert len(found) >= 9
    assert {name for name, facts in found.items() if not isinstance(facts.get("format"), int)} == set()


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("bands/bands.json", lambda folder: hm.LogitBands.from_pretrained(folder / "bands")),
        ("head/head.json", lambda folder: hm.LinearHead.from_pretrained(folder / "head")),
        ("sources/NGrams.json", lambda folder: hm.load_source(folder / "sources" / "NGrams.json")),
        ("findings/provenance.json", lambda folder: load_findings(folder / "findings")),
        ("curated/checksums.json", lambda folder: read_dataset(str(folder / "curated"))),
        ("checkpoint/curation_rows.json", lambda folder: Holdout.read(folder / "checkpoint")),
    ],
)
def test_files_of_a_newer_release_are_refused_with_the_way_out(old, name, read, tmp_path):
    shutil.copytree(old, tmp_path / "new")
    path = tmp_path / "new" / name
    facts = json.loads(path.read_text())
    facts.pop("checksum", None)
    path.write_text(json.dumps({**facts, "format": 99}))
    with pytest.raises(ValueError, match="of format 99; .* upgrade hf_midrange"):
        read(tmp_path / "new")
