"""The dictionary of the findings' columns."""

from pathlib import Path

from support.associations import simulated

from hf_midrange import associate, findings_schema


DOCS = Path(__file__).parents[2] / "docs" / "findings.md"


def test_every_column_is_explained_with_its_type_range_and_rows():
    findings, schema = associate(simulated()), findings_schema()
    assert list(schema) == findings.column_names
    for name, column in schema.items():
        assert all(column.values())
        assert column["dtype"] == str(findings.features[name])


def test_the_page_of_the_docs_holds_the_same():
    rows = [line.split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    told = {row[0].strip("| `"): tuple(cell.strip(" |") for cell in row[2:]) for row in rows}
    assert told == {name: (one["values"], one["rows"], one["meaning"]) for name, one in findings_schema().items()}
