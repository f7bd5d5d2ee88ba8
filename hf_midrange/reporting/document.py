"""`report`: everything that was found and done, as one page and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, DatasetDict

from hf_midrange import columns
from hf_midrange.io.files import write_atomically
from hf_midrange.publishing.facts import shareable, versions
from hf_midrange.reporting import rendering
from hf_midrange.reporting.drawing import Distribution
from hf_midrange.reporting.examples import examples, means, thumbnails
from hf_midrange.reporting.groups import groups_of
from hf_midrange.reporting.inputs import Material, read, suspects_of
from hf_midrange.reporting.telling import cards_of, listed, reasons_of, verdict_of


if TYPE_CHECKING:
    from hf_midrange.head import LinearHead

PAGE, FACTS = "report.html", "report.json"
SUSPECTS, DRAWN = 24, 12
"""Most suspected rows shown, and units drawn; those with findings come first."""


@dataclass(frozen=True, eq=False)
class Report:
    """A finished report; printed, it is the verdict, and a notebook shows a summary of it.

    Attributes:
        facts: what the page says, as JSON holds it.
        html: the page, which needs nothing beside it.
        summary: a few lines of HTML.
    """

    facts: dict[str, Any]
    html: str
    summary: str

    def __str__(self) -> str:
        return str(self.facts["verdict"]["sentence"])

    def __repr__(self) -> str:
        return f"Report({str(self)!r}, {len(self.html)} characters of HTML)"

    def _repr_html_(self) -> str:
        return self.summary

    def save(self, folder: str | Path) -> Path:
        """Write `report.html` and `report.json` into a folder, which is made if it is missing; return the page."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        write_atomically(target / PAGE, self.html)
        write_atomically(target / FACTS, json.dumps(self.facts, indent=1, allow_nan=False) + "\n")
        return target / PAGE


def report(
    ds: Dataset,
    findings: Dataset,
    head: LinearHead | None = None,
    *,
    evaluation: Dataset | None = None,
    seed: int = 0,
) -> Report:
    """Return what is wrong with the model, how sure that is, the rows that show it, and what to do now.

    The page is one HTML file without scripts or requests, at most 5 MB; images are shrunk to what fits. Text of the
    data is escaped. Of local paths only the last part is told.

    Args:
        ds: what `associate` was given or, better, what `curate` made of it: one split with `label`, `logits`,
            `concepts_<source>`, and `image` or `text` for examples to be seen. Bands are fitted where there are none,
            as `associate` does.
        findings: what `associate` returned for it.
        head: what `retrain_head` returned.
        evaluation: rows that no head was fitted to, with `embedding`, `logits`, `label` and perhaps `group`, to score
            on. Without them scores are on `ds`, where "after" is cross-validated.
        seed: of folds and of the control that gives the weights to random rows.

    Raises:
        KeyError, TypeError: if columns are missing or of another kind.
        ValueError: if the findings are of other rows, or the head of another width.

    Examples:
        >>> hm.report(curated, findings, head=head).save("report")     # doctest: +SKIP
    """
    _check_split(ds, "ds")
    _check_split(evaluation, "evaluation")
    _check_head(evaluation if evaluation is not None else ds, head)
    material = read(ds, findings)
    cards, groups = cards_of(material), groups_of(material, head, evaluation, seed)
    found, note = suspects_of(material, findings)
    facts: dict[str, Any] = {
        "format": 2,
        "verdict": verdict_of(material, cards, groups, len(found), head is not None),
        "rows": len(ds),
        "classes": material.classes,
        "shortcuts": cards,
        "groups": groups,
        "findings": len(findings),
        "confirmed": sum(row["confirmed"] for row in material.findings),
        "listed": listed(material),
        "distributions": _distributions(material),
        "curation": _curated(material),
        "suspects": _suspects(material, found[:SUSPECTS]),
        "suspected": len(found),
        "suspects_note": note,
        "provenance": shareable(material.provenance),
        "versions": versions(),
    }
    cells = [cell for card in cards for cell in card["cells"]]
    shown = [one["row"] for cell in cells for one in cell["examples"]] + [one["row"] for one in facts["suspects"]]
    images = thumbnails(material.ds, shown) | means(material.ds, cells)
    return Report(_plain(facts), rendering.page(facts, images), rendering.summary(facts))


def _check_split(ds: Dataset | DatasetDict | None, name: str) -> None:
    if isinstance(ds, DatasetDict):
        raise TypeError(f"`{name}` must be one split, such as that of {list(ds)[0]!r}, not a DatasetDict")


def _check_head(ds: Dataset, head: LinearHead | None) -> None:
    if head is None:
        return
    columns.require(ds, columns.EMBEDDING)
    width = columns.matrix(ds.select(range(min(1, len(ds)))), columns.EMBEDDING).shape[1]
    classes = columns.class_label(ds.features).num_classes
    if (head.width, head.num_classes) != (width, classes):
        raise ValueError(
            f"`head` has {head.num_classes} classes on embeddings of width {head.width}, but the rows have {classes} "
            f"classes and embeddings of width {width}"
        )


def _distributions(material: Material) -> list[Distribution]:
    """Return the distributions of the first units that have bands."""
    told = list(dict.fromkeys(row["unit"] for row in material.findings))
    units = list(dict.fromkeys([*told, *range(len(material.inputs.unit_names))]))
    banded = [unit for unit in units if (material.bands(unit) >= 0).any()]
    return [material.distribution(unit) for unit in sorted(banded[:DRAWN])]


def _suspects(material: Material, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows whose label may be wrong, with what they look like."""
    shown = examples(material, np.array([row["row"] for row in found], dtype=np.int64))
    return [
        {**one, "suggested": material.classes[row["suggested"]], "score": row["score"]}
        for one, row in zip(shown, found, strict=True)
    ]


def _curated(material: Material) -> dict[str, Any] | None:
    if material.curation is None:
        return None
    kept = int(columns.numbers(material.ds, columns.KEEP).sum())
    return {"report": material.curation, "kept": kept, "rows": len(material.ds), "reasons": reasons_of(material)}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any fact
    """Return facts as JSON holds them: tuples are lists, and what is not finite is None or a word."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and math.isinf(value):
        return "infinite" if value > 0 else "-infinite"
    return None if isinstance(value, float) and math.isnan(value) else value
