"""Facts read off data sets, findings, bands and models, for their cards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import ClassLabel, Dataset, Features, Image, List, Value

from hf_midrange import __version__, columns
from hf_midrange.curation.report import NOTHING, curation_report
from hf_midrange.publishing.facts import BandFacts, CellFacts, ColumnFacts, CurationFacts, FindingFacts, GroupFacts


if TYPE_CHECKING:
    from hf_midrange.bands import LogitBands

HOW = {
    columns.IMAGE: "the input",
    columns.TEXT: "the input",
    columns.TEXT_PAIR: "the second input",
    columns.LABEL: "the class, as in the source data set",
    columns.GROUP: "given with the source data set; only used to score",
    columns.SOURCE_ID: "rows that share a value come from one source",
    columns.EMBEDDING: "extract: what the classifier's last linear layer reads",
    columns.LOGITS: "extract: the classifier's logits before any correction, in float32",
    columns.PREDICTION: "extract: the class with the largest logit",
    columns.QUANTILE: "LogitBands: rank among all rows it was fitted on, 0 to 1, one entry per logit",
    columns.POSITION: "LogitBands: 0 at the median of other classes, 1 at the median of the class",
    columns.BAND: "LogitBands: 0 low, 1 mid, 2 high (see Bands), -1 undefined, one entry per logit",
    columns.PSEUDO_GROUP: "curate: class and side of the tie that a row stands on",
    columns.KEEP: "curate: a random subset with balanced pseudo-groups, for a trainer without weights",
    columns.WEIGHT: "curate: how much a row counts in training, 1 on average",
    columns.CONFOUNDERS: "curate: confirmed confounders present in the row",
    columns.REASON: "curate: why the row has its weight; the whole report stands in the column's own description",
    columns.MARK: "explore: what a reader marked the row as; `drop` and `mislabelled` weigh nothing",
}
_LOCAL = re.compile(r"(?:(?<=\s)|^)(?:~|\.{1,2}|[A-Za-z]:)?[\\/][^\s,]*")
SHOWN = 12
"""Findings in a card; a data set holds all of them in a configuration of its own."""
_LIBRARIES = ("datasets", "transformers", "torch", "timm", "huggingface_hub", "numpy")


def versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that shape its results."""
    found = {"hf_midrange": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def column_facts(features: Features) -> tuple[ColumnFacts, ...]:
    """Return name, kind and origin of every column."""
    return tuple(ColumnFacts(name, kind_of(feature), _how(name)) for name, feature in features.items())


def kind_of(feature: Any) -> str:  # noqa: ANN401 - any feature
    """Return a feature in a few words."""
    if isinstance(feature, ClassLabel):
        return f"one of {feature.num_classes} names"
    if isinstance(feature, List):
        inner = feature.feature
        if isinstance(inner, ClassLabel):
            return f"list of names out of {inner.num_classes}"
        length = f"{feature.length} " if feature.length >= 0 else ""
        return f"list of {length}{inner.dtype}" if isinstance(inner, Value) else f"list of {length}items"
    if isinstance(feature, Value):
        return feature.dtype
    return "image" if isinstance(feature, Image) else type(feature).__name__


def finding_facts(findings: Dataset | None) -> dict[str, Any]:
    """Return the fields `findings`, `discovered` and `confirmed` of a card's facts.

    Of the confirmed findings the first twelve are kept: confounders first, in the order of `associate` otherwise.
    """
    if findings is None:
        return {}
    confirmed = [row for row in findings.to_list() if row["confirmed"]]
    rows = sorted(confirmed, key=lambda row: not row["confounder"])[:SHOWN]
    kept = tuple(
        FindingFacts(
            unit=row["unit_name"],
            band=row["band"],
            concept=f"{row['source']}: {row['concept']}",
            odds_ratio=row["odds_ratio"],
            ci_low=row["ci_low"],
            ci_high=row["ci_high"],
            q_value=row["q_value"],
            q_confirm=row["q_confirm"],
        )
        for row in rows
    )
    return {"findings": kept, "discovered": len(findings), "confirmed": len(confirmed)}


def curation_facts(curated: Dataset, split: str) -> CurationFacts:
    """Return what the report inside a curated split says."""
    report = curation_report(curated)
    return CurationFacts(
        verdict=report["verdict"],
        explanation=report["explanation"],
        strategy=report["strategy"],
        seed=report["seed"],
        rows=len(curated),
        kept=int(columns.numbers(curated, columns.KEEP).sum()),
        split=split,
        cells=_cells(report),
    )


def group_facts(curated: Dataset, split: str) -> tuple[GroupFacts, ...]:
    """Return the balance of the user's groups before and after curation; nothing without a `group` column."""
    if columns.GROUP not in curated.column_names:
        return ()
    names = columns.class_label(curated.features, columns.GROUP).names
    ids, keep = columns.labels(curated, columns.GROUP), columns.numbers(curated, columns.KEEP)
    weights = columns.numbers(curated, columns.WEIGHT)
    rows, kept, weight = (np.bincount(ids, weights=by, minlength=len(names)) for by in (None, keep, weights))
    shares = [values / max(values.sum(), 1e-12) for values in (rows, kept, weight)]
    return tuple(
        GroupFacts(split, name, int(rows[k]), float(shares[0][k]), int(kept[k]), *(float(s[k]) for s in shares[1:]))
        for k, name in enumerate(names)
    )


def classifier_of(ds: Dataset) -> str | None:
    """Return the model that `extract` says made the logits; of a local folder only the last part."""
    made_by = columns.facts(ds.features, columns.LOGITS)
    name, revision = made_by.get("model"), made_by.get("revision")
    if not name:
        return None
    return f"{without_folders(name)}{f'@{revision}' if revision else ''}"


def note_in(description: str | None) -> str | None:
    """Return the description of a data set on one line."""
    return " ".join((description or "").split()) or None


def without_folders(text: str) -> str:
    """Return `text` with local paths cut to their last part: a publication says nothing about the machine.

    >>> without_folders("/home/me/models/resnet"), without_folders("me/resnet")
    ('resnet', 'me/resnet')
    """
    return _LOCAL.sub(lambda found: re.split(r"[\\/]", found[0].rstrip("\\/"))[-1], text)


def shareable(value: Any) -> Any:  # noqa: ANN401 - anything JSON holds
    """Return provenance without local paths."""
    if isinstance(value, Mapping):
        return {key: shareable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [shareable(part) for part in value]
    return without_folders(value) if isinstance(value, str) else value


def band_facts(bands: LogitBands | None) -> BandFacts | None:
    """Return how the units were cut."""
    if bands is None:
        return None
    units = tuple((unit.name, tuple(unit.cuts or ())) for unit in bands.fitted)
    return BandFacts(bands.rule, tuple(bands.edges or ()), tuple(bands.names), units)


def _cells(report: Mapping[str, Any]) -> tuple[CellFacts, ...]:
    # With nothing to repair all rows weigh 1, whatever weights the report tried.
    nothing = report["verdict"] == NOTHING
    return tuple(
        CellFacts(
            name=cell["name"],
            rows=cell["rows"],
            weight=cell["rows"] / report["rows"] if nothing else cell["weight"],
            before=cell["before"]["accuracy"],
            after=cell["after"]["accuracy"],
        )
        for cell in report.get("cells") or ()
    )


def _how(name: str) -> str:
    if name.startswith(columns.CONCEPTS_PREFIX):
        return f"annotate: which concepts of {name.removeprefix(columns.CONCEPTS_PREFIX)} the row has"
    if name.startswith(columns.VIEW_PREFIX):
        return f"annotate: a plain description of the input by {name.removeprefix(columns.VIEW_PREFIX)}"
    return HOW.get(name, "a column of the source data set")
