"""What a card says: plain frozen facts, which JSON can hold, read off data sets, findings, bands and models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Literal

from datasets import ClassLabel, Dataset, Features, List, Value

from hf_midrange import __version__, columns
from hf_midrange.curation.report import curation_report
from hf_midrange.ties import shortcuts
from hf_midrange.verdicts import unchanged


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
MOST_SHORTCUTS = 5
"""Shortcuts in a card."""
_OF_FINDING = ("unit_name", "band", "source", "concept", "odds_ratio", "ci_low", "ci_high", "q_value", "q_confirm")
_LIBRARIES = ("datasets", "transformers", "torch", "timm", "huggingface_hub", "numpy")
Task = Literal["image-classification", "text-classification"]
Row = Mapping[str, Any]
"""A row of a table, by the names of its cells."""


@dataclass(frozen=True)
class Score:
    """Accuracy of one head on one split: 0..1, with 95 % intervals or standard deviations over seeds where known."""

    name: str
    mean: float
    worst_group: float
    mean_ci: tuple[float, float] | None = None
    worst_group_ci: tuple[float, float] | None = None
    mean_sd: float | None = None
    worst_group_sd: float | None = None
    worst_group_name: str | None = None

    @classmethod
    def of(cls, name: str, metrics: Mapping[str, Any]) -> Score:
        """Return the score that `group_metrics` or a mapping with the same keys describes.

        Raises:
            ValueError: if `mean` or `worst_group` is missing.
        """
        missing = [key for key in ("mean", "worst_group") if key not in metrics]
        if missing:
            raise ValueError(
                f"the metrics of {name!r} lack {missing}; they have {sorted(metrics)}; "
                "`hm.group_metrics(predictions, labels, groups)` gives what is wanted"
            )
        known = {f.name for f in fields(cls)} - {"name"}
        given = {key: _plain(value) for key, value in metrics.items() if key in known and value is not None}
        return cls(name=name, **given)


@dataclass(frozen=True)
class CurationFacts:
    """What the curation of one split found."""

    verdict: str
    explanation: str
    strategy: str
    seed: int
    rows: int
    kept: int
    split: str = "train"
    cells: tuple[Row, ...] = ()
    """Pseudo-groups: `name`, `rows`, `weight` (their share of it), cross-validated accuracy `before` and `after`."""
    unchanged: bool = False
    """Whether the head was left as it is."""


@dataclass(frozen=True)
class SplitFacts:
    """One split of a configuration."""

    name: str
    rows: int
    size: int
    """Bytes of its parquet files."""


@dataclass(frozen=True)
class ConfigFacts:
    """One configuration of a data set: a folder of parquet files and its features, as cards write them."""

    name: str
    folder: str
    splits: tuple[SplitFacts, ...]
    features: list[Any]


@dataclass(frozen=True, kw_only=True)
class FindingFacts:
    """What a card says of the findings."""

    findings: tuple[Row, ...] = ()
    """Those confirmed on the second half of the rows, or the first of them."""
    discovered: int | None = None
    """How many the first half gave; None: nobody looked."""
    confirmed: int = 0
    """How many of these the second half confirmed."""
    shortcuts: tuple[str, ...] = ()
    """A sentence for each tie, the most harmful first."""


@dataclass(frozen=True)
class DatasetFacts(FindingFacts):
    """Everything that a data set's card says."""

    repo_id: str
    task: Task
    configs: tuple[ConfigFacts, ...]
    columns: tuple[Row, ...]
    """`name`, `kind` and `how` each was made."""
    curation: tuple[CurationFacts, ...]
    versions: dict[str, str]
    bands: Row | None = None
    """`rule`, `edges` and `names`; per unit its name and the values at which its bands meet."""
    sources: tuple[str, ...] = ()
    """Hub ids of the data sets this one was made from."""
    source_note: str | None = None
    classifier: str | None = None
    """The model whose logits stand in the rows."""
    homepage: str | None = None
    citation: str | None = None
    licence: str | None = None


@dataclass(frozen=True)
class ModelFacts(FindingFacts):
    """Everything that a model's card says. Whatever is unknown is left out of the card."""

    repo_id: str
    architecture: str
    """Class name, such as `ViTForImageClassification`."""
    task: Task
    classes: tuple[str, ...]
    versions: dict[str, str]
    base_model: str | None = None
    base_revision: str | None = None
    licence: str | None = None
    has_processor: bool = False
    changed: tuple[str, ...] = ()
    """Names of the parameters that differ from the base model's."""
    score: Score | None = None
    controls: tuple[Score, ...] = ()
    curation: CurationFacts | None = None
    dataset: str | None = None
    """Hub id of the data set that the scores are of."""
    split: str = "test"
    curated: str | None = None
    """Hub id of the curated data set."""
    score_note: str | None = None
    """How the scores were measured, in a sentence."""
    language: str | None = None
    tags: tuple[str, ...] = ()
    """More tags."""
    library: Literal["transformers", "peft", "hf_midrange"] = "transformers"
    """What loads it: a whole model, an adapter, or the head alone, which is loaded by this package."""
    corrected: bool = True
    """Whether the last layer was corrected; False for an ordinary fine-tuning that only shares the card."""


def _plain(value: Any) -> Any:  # noqa: ANN401 - a figure, a pair of them, or a name
    if isinstance(value, list | tuple):
        return tuple(float(part) for part in value)
    return value if isinstance(value, str) else float(value)


def versions() -> dict[str, str]:
    """Return the versions of this package and of the libraries that shape its results."""
    found = {"hf_midrange": __version__}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def column_facts(features: Features) -> tuple[Row, ...]:
    """Return name, kind and origin of every column."""
    return tuple({"name": name, "kind": kind_of(of), "how": _how(name)} for name, of in features.items())


def kind_of(feature: Any) -> str:  # noqa: ANN401 - any feature
    """Return a feature in a few words."""
    if isinstance(feature, List):
        return f"list of {f'{feature.length} ' if feature.length >= 0 else ''}{kind_of(feature.feature)}"
    if isinstance(feature, ClassLabel):
        return f"one of {feature.num_classes} names"
    return feature.dtype if isinstance(feature, Value) else type(feature).__name__.lower()


def finding_facts(findings: Dataset | None, rows: Dataset | None = None) -> dict[str, Any]:
    """Return the fields of `FindingFacts`.

    Of the confirmed findings the first twelve are kept: confounders first, in the order of `associate` otherwise.

    Args:
        findings: what `associate` returned; None: nobody looked.
        rows: those that they are of, for the shortcuts; rows without their concepts, or None, tell of none.
    """
    if findings is None:
        return {}
    confirmed = [row for row in findings.to_list() if row["confirmed"]]
    first = sorted(confirmed, key=lambda row: not row["confounder"])[:SHOWN]
    kept = tuple({name: row[name] for name in _OF_FINDING} for row in first)
    told: tuple[str, ...] = ()
    needed = {columns.LOGITS, *(f"{columns.CONCEPTS_PREFIX}{source}" for source in findings.unique("source"))}
    if rows is not None and needed <= {*rows.column_names} and "tie" in findings.column_names:
        told = tuple(shortcuts(rows, findings)["sentence"][:MOST_SHORTCUTS])
    return {"findings": kept, "discovered": len(findings), "confirmed": len(confirmed), "shortcuts": told}


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
        unchanged=unchanged(report),
    )


def classifier_of(ds: Dataset) -> str | None:
    """Return the model that `extract` says made the logits; of a local folder only the last part."""
    made_by = columns.facts(ds.features, columns.LOGITS)
    name, revision = made_by.get("model"), made_by.get("revision")
    if not name:
        return None
    return f"{without_folders(name)}{f'@{revision}' if revision else ''}"


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


def band_facts(bands: LogitBands | None) -> Row | None:
    """Return how the units were cut."""
    if bands is None:
        return None
    units = [[unit.name, list(unit.cuts or ())] for unit in bands.fitted]
    return {"rule": bands.rule, "edges": list(bands.edges or ()), "names": list(bands.names), "units": units}


def _cells(report: Row) -> tuple[Row, ...]:
    # With nothing to repair all rows weigh 1, whatever weights the report tried.
    nothing = unchanged(report)
    return tuple(
        {
            "name": cell["name"],
            "rows": cell["rows"],
            "weight": cell["rows"] / report["rows"] if nothing else cell["weight"],
            "before": cell["before"]["accuracy"],
            "after": cell["after"]["accuracy"],
        }
        for cell in report.get("cells") or ()
    )


def _how(name: str) -> str:
    if name.startswith(columns.CONCEPTS_PREFIX):
        return f"annotate: which concepts of {name.removeprefix(columns.CONCEPTS_PREFIX)} the row has"
    if name.startswith(columns.VIEW_PREFIX):
        return f"annotate: a plain description of the input by {name.removeprefix(columns.VIEW_PREFIX)}"
    return HOW.get(name, "a column of the source data set")
