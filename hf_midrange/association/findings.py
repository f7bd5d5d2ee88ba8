"""The findings as a dataset: features, provenance, saving, and a short table."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetInfo
from markupsafe import escape

from hf_midrange.association.schema import FEATURES
from hf_midrange.io.datasets import one_split, read_dataset, refuse_blown_up
from hf_midrange.io.files import DamagedFileError, intact, read_json, sha256_of, to_json, write_atomically


_TABLE, _FACTS = "findings.parquet", "provenance.json"
_ASSOCIATE_AGAIN = "call `associate` again and save what it gives"

_SINCE_0_1 = (
    *("reading", "rests_on", "tie", "broken_by"),
    *("p_beyond_top", "odds_ratio_discovery", "effective_rows", "rows_set_aside"),
)
"""Columns that findings of 0.1 do not have."""


class Findings(Dataset):
    """The dataset of findings, which a notebook shows as `findings_table` does."""

    def _repr_html_(self) -> str:
        return findings_table(self)._repr_html_()


def findings_dataset(columns: Mapping[str, Sequence[Any]], facts: Mapping[str, Any]) -> Findings:
    """Return the findings, with where they come from in the dataset's own description."""
    info = DatasetInfo(description=json.dumps(facts), features=FEATURES)
    return Findings.from_dict({name: columns[name] for name in FEATURES}, features=FEATURES, info=info)


def provenance(findings: Dataset) -> dict[str, Any]:
    """Return how the findings were made: data, options, versions, what was tested, and what was not and why.

    Raises:
        ValueError: if the description of the dataset is not what `associate` wrote.
    """
    with intact("the description of the findings", "provenance", _ASSOCIATE_AGAIN):
        facts = json.loads(findings.info.description or "{}")
        if not isinstance(facts, dict):
            raise ValueError(f"it is a {type(facts).__name__} where a mapping is expected")
        return facts


def save_findings(findings: Dataset, folder: str | Path) -> Path:
    """Write `findings.parquet` and, with its checksum, `provenance.json` to `folder`; return the folder."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / _FACTS).unlink(missing_ok=True)  # of other findings
    content = io.BytesIO()
    findings.to_parquet(content)
    checksum = write_atomically(target / _TABLE, content.getvalue())
    write_atomically(target / _FACTS, to_json({**provenance(findings), _TABLE: checksum}, indent=2) + "\n")
    return target


def load_findings(folder: str | Path) -> Dataset:
    """Read what `save_findings` wrote, into memory.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ValueError: if one is not what was written.
    """
    import pyarrow.parquet as pq

    table, path = Path(folder) / _TABLE, Path(folder) / _FACTS
    for file in (table, path):
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; {_ASSOCIATE_AGAIN}")
    facts = read_json(path, "provenance of findings", _ASSOCIATE_AGAIN)
    expected = facts.pop(_TABLE, None)
    if expected is not None and sha256_of(table) != expected:
        raise DamagedFileError(f"{table} is not what was written (its checksum is another); {_ASSOCIATE_AGAIN}")
    refuse_blown_up(table)
    with intact(table, "table of findings", _ASSOCIATE_AGAIN):
        try:
            return findings_dataset(_current(pq.read_table(table).to_pydict()), facts)
        except OSError as error:  # what parquet says of a broken file
            raise ValueError(error) from error


def _current(found: dict[str, list]) -> dict[str, list]:
    """Return the columns of findings that version 0.1 may have saved; what it did not have is None."""
    new: dict[str, list] = {name: [None] * len(found["unit"]) for name in _SINCE_0_1 if name not in found}
    if "signature" in found:
        words = {"confounder": "cue", "core": "one-sided"}
        new["reading"] = [words.get(word, word) for word in found["signature"]]
        new["odds_ratio_discovery"] = found["odds_ratio"]
    return found | new


class FindingsTable(str):
    """Lines of text, which a notebook shows as a table."""

    header: tuple[str, ...]
    rows: list[tuple[str, ...]]
    notes: list[str]

    __slots__ = ("header", "notes", "rows")

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.header)
        cells = ("".join(f"<td>{_shown(cell)}</td>" for cell in row) for row in self.rows)
        rows = "".join(f"<tr>{row}</tr>" for row in cells)
        notes = "".join(f"<p>{_shown(note)}</p>" for note in self.notes)
        return f"<div><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{notes}</div>"


def _shown(text: str) -> str:
    """Return text as HTML shows it, with a sign for characters that would not show, such as one that turns lines."""
    return str(escape("".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)))


def findings_table(findings: Dataset, rows: int = 20) -> FindingsTable:
    """Return the first findings as aligned lines of text, with a line on what was and was not tested.

    It is a string; where it is the last line of a notebook cell, it shows as a table.
    """
    facts = provenance(findings)
    header = ("unit", "band", "concept", "odds ratio", "95 % interval", "q", "q confirm", "reading")
    lines = [header, *(_line(row) for row in findings.select(range(min(rows, len(findings)))))]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    notes = _notes(findings, facts)
    made = FindingsTable("\n".join([*text, *notes]))
    made.header, made.rows, made.notes = header, lines[1:], notes
    return made


def _notes(findings: Dataset, facts: Mapping[str, Any]) -> list[str]:
    """Return what was and was not tested, in lines."""
    confirmed = sum(findings["confirmed"]) if len(findings) else 0
    notes = [f"{len(findings)} of {facts.get('tested', '?')} tests discovered, {confirmed} confirmed"]
    blind = facts.get("power", {}).get("tests_below_0.8", 0)
    if blind:
        notes.append(f"{blind} of the tests had less than 80 % power to see an odds ratio of 3")
    return [*notes, *(f"{count} not tested: {reason}" for reason, count in facts.get("not_tested", {}).items())]


def _line(row: Mapping[str, Any]) -> tuple[str, ...]:
    reading = [name for name in ("confirmed", "derived") if row[name]]
    reading += [row["reading"]] if row["reading"] != "none" else []
    return (
        f"{row['unit_name']:.80}",  # names may be of any length
        row["band"],
        f"{row['source']}: {row['concept']:.80}",
        f"{row['odds_ratio']:.3g}",
        f"{row['ci_low']:.3g} to {row['ci_high']:.3g}",
        f"{row['q_value']:.2g}",
        "-" if row["q_confirm"] is None else f"{row['q_confirm']:.2g}",
        ", ".join(reading) or "not confirmed",
    )


def read_findings(folder: Path) -> Dataset:
    """Return the findings in a folder, as `associate` on the command line or `save_findings` wrote them."""
    if (folder / "findings.parquet").is_file():
        return load_findings(folder)
    found = one_split(read_dataset(str(folder)), str(folder))
    if {*FEATURES} <= {*found.column_names}:
        return found
    return findings_dataset(_current(found.with_format(None).to_dict()), provenance(found))
