"""What a card says: plain frozen facts, which JSON can hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal


Task = Literal["image-classification", "text-classification"]


@dataclass(frozen=True)
class FindingFacts:
    """One association between a concept and a band of a class logit."""

    unit: str
    band: str
    concept: str
    odds_ratio: float
    ci_low: float
    ci_high: float
    q_value: float
    q_confirm: float | None = None


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
class CellFacts:
    """One pseudo-group: its rows, their share of the training weight, and cross-validated accuracy."""

    name: str
    rows: int
    weight: float
    before: float
    after: float


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
    cells: tuple[CellFacts, ...] = ()


@dataclass(frozen=True)
class GroupFacts:
    """One group of the user's own `group` column before and after curation; shares are 0..1."""

    split: str
    name: str
    rows: int
    share: float
    kept: int
    share_kept: float
    share_weighted: float


@dataclass(frozen=True)
class BandFacts:
    """How each logit was cut into bands: per unit its name and the values at which the bands meet."""

    rule: str
    edges: tuple[float, ...]
    names: tuple[str, ...]
    units: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True)
class ColumnFacts:
    """One column: what it is, and how it was made."""

    name: str
    kind: str
    how: str


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


@dataclass(frozen=True)
class DatasetFacts:
    """Everything that a data set's card says."""

    repo_id: str
    task: Task
    configs: tuple[ConfigFacts, ...]
    columns: tuple[ColumnFacts, ...]
    curation: tuple[CurationFacts, ...]
    versions: dict[str, str]
    groups: tuple[GroupFacts, ...] = ()
    findings: tuple[FindingFacts, ...] = ()
    """Those confirmed on the second half of the rows, or the first of them."""
    discovered: int | None = None
    """How many the first half gave; None: nobody looked."""
    confirmed: int = 0
    """How many of these the second half confirmed."""
    bands: BandFacts | None = None
    sources: tuple[str, ...] = ()
    """Hub ids of the data sets this one was made from."""
    source_note: str | None = None
    classifier: str | None = None
    """The model whose logits stand in the rows."""
    homepage: str | None = None
    citation: str | None = None
    licence: str | None = None
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelFacts:
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
    findings: tuple[FindingFacts, ...] = ()
    """Those confirmed on the second half of the rows, or the first of them."""
    discovered: int | None = None
    """How many the first half gave; None: nobody looked."""
    confirmed: int = 0
    """How many of these the second half confirmed."""
    curation: CurationFacts | None = None
    dataset: str | None = None
    """Hub id of the data set that the scores are of."""
    dataset_revision: str | None = None
    split: str = "test"
    curated: str | None = None
    """Hub id of the curated data set."""
    score_note: str | None = None
    """How the scores were measured, in a sentence."""
    head_only: bool = False
    corrected: bool = True
    """Whether the last layer was corrected; False for an ordinary fine-tuning that only shares the card."""


def _plain(value: Any) -> Any:  # noqa: ANN401 - a figure, a pair of them, or a name
    if isinstance(value, list | tuple):
        return tuple(float(part) for part in value)
    return value if isinstance(value, str) else float(value)
