"""`report`: everything that was found and done, as one page and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset, DatasetDict

from hf_midrange import columns
from hf_midrange.io.files import write_atomically
from hf_midrange.publishing.escaping import LONGEST_TEXT, short_names, shortened
from hf_midrange.publishing.facts import shareable, versions
from hf_midrange.reporting import rendering
from hf_midrange.reporting.cards import cards_of
from hf_midrange.reporting.examples import examples, thumbnails
from hf_midrange.reporting.facts import Card, Curated, Distribution, Example, Facts, Reason, Suspect, plain
from hf_midrange.reporting.groups import groups_of
from hf_midrange.reporting.inputs import Material, read, suspects_of
from hf_midrange.reporting.verdict import verdict_of


if TYPE_CHECKING:
    from hf_midrange.head import LinearHead

PAGE, FACTS = "report.html", "report.json"
SUSPECTS, REASONS, DRAWN = 24, 40, 12
"""Most suspected rows shown, pseudo-groups with a reason, and units drawn; those with findings come first."""


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

    Example:
        >>> hm.report(curated, findings, head=head).save("report")     # doctest: +SKIP
    """
    _check_split(ds, "ds")
    _check_split(evaluation, "evaluation")
    _check_head(evaluation if evaluation is not None else ds, head)
    material = read(ds, findings)
    cards, left_out = cards_of(material)
    found, note = suspects_of(material, findings)
    suspects, suspected = _suspects(material, found[:SUSPECTS]), len(found)
    facts = Facts(
        verdict=verdict_of(material, cards, suspected, head is not None),
        rows=len(ds),
        classes=material.classes,
        findings=len(findings),
        confirmed=sum(row["confirmed"] for row in material.findings),
        confounders=sum(card.confounder for card in cards),
        cards=cards,
        cards_left_out=left_out,
        distributions=_distributions(material),
        groups=groups_of(material, head, evaluation, seed),
        curation=_curated(material),
        suspects=suspects,
        suspected=suspected,
        suspects_note=note,
        provenance=shareable(material.provenance),
        versions=versions(),
    )
    shown = [example.row for example in _all_examples(cards, suspects)]
    html = rendering.page(facts, thumbnails(material.ds, shown))
    return Report(plain(facts), html, rendering.summary(facts))


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


def _distributions(material: Material) -> tuple[Distribution, ...]:
    """Return the distributions of the first units that have bands."""
    told = list(dict.fromkeys(row["unit"] for row in material.findings))
    units = list(dict.fromkeys([*told, *range(len(material.inputs.unit_names))]))
    banded = [unit for unit in units if (material.bands(unit) >= 0).any()]
    return tuple(material.distribution(unit) for unit in sorted(banded[:DRAWN]))


def _suspects(material: Material, found: list[dict[str, Any]]) -> tuple[Suspect, ...]:
    nothing = np.zeros(len(material.ids), dtype=bool)
    suspects = []
    for row in found:
        shown = examples(material, np.array([row["row"]]), material.values(row["label"]), "", nothing)[0]
        names = [material.classes[row[key]] for key in ("label", "suggested")]
        suspects.append(Suspect(names[0], names[1], row["score"], shown))
    return tuple(suspects)


def _curated(material: Material) -> Curated | None:
    if material.curation is None:
        return None
    kept = int(columns.numbers(material.ds, columns.KEEP).sum())
    return Curated(material.curation, kept, len(material.ds), _reasons(material.ds))


def _reasons(curated: Dataset) -> tuple[Reason, ...]:
    columns.require(curated, columns.PSEUDO_GROUP, columns.WEIGHT, columns.REASON)
    cells, weights = columns.labels(curated, columns.PSEUDO_GROUP), columns.numbers(curated, columns.WEIGHT)
    names = short_names(columns.class_label(curated.features, columns.PSEUDO_GROUP).names)
    reasons = curated[columns.REASON]
    found = []
    for cell in np.unique(cells)[:REASONS]:
        rows = np.flatnonzero(cells == cell)
        said = shortened(str(reasons[int(rows[0])]), LONGEST_TEXT)
        found.append(Reason(names[cell], len(rows), float(weights[rows].mean()), said))
    return tuple(found)


def _all_examples(cards: tuple[Card, ...], suspects: tuple[Suspect, ...]) -> Iterator[Example]:
    """Yield the examples in the order in which they may have images: what tells most comes first."""
    for card in cards:
        yield from card.exceptions
        for spot in card.spots:
            yield from spot.examples
        if card.number == 1:
            yield from (suspect.example for suspect in suspects)
