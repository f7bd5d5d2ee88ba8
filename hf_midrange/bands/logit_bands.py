"""`LogitBands`: fit the bands of every unit once, keep them as JSON, apply them to anything."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, IterableDataset

from hf_midrange import columns
from hf_midrange.bands import storage
from hf_midrange.bands.reading import read_units
from hf_midrange.bands.rules import DEFAULT_EDGES, class_relative_cuts, typical_values, unsupervised_cuts
from hf_midrange.bands.transform import BandColumns, add_columns
from hf_midrange.bands.unit import UnitBands, knots_of
from hf_midrange.bands.warning import warn_if_memorised


@dataclass(frozen=True)
class LogitBands:
    """Cut each unit's range into bands, fitted once and then frozen.

    The middle of a logit's range is where a class and what is tied to it come apart: members of the class without
    the tied concept, and strangers with it. The idea is that of O'Mahony et al., WACV 2025 (arXiv 2411.10019); their
    exact thresholds are not public, so every rule here is our interpretation.

    Args:
        rule: `class-relative` (edges are positions between the typical stranger, 0, and the typical member, 1),
            `quantile` (edges are ranks), `range` (fractions of the 1 %-99 % value range), `std` (standard deviations
            from the mean) or `edges` (plain values of the unit). Only the first needs labels.
        edges: increasing edges in the rule's own unit; two make three bands. None: the rule's default.
        column: the vector column whose entries are the units.
        units: what was fitted; empty until `fit`.

    Ties and edges: a value on an edge is in the upper band. A constant unit, and under `class-relative` a unit whose
    members stand no higher than strangers, is named in a warning and gets band -1 on every row.

    Example:
        >>> bands = LogitBands().fit(held_out)          # doctest: +SKIP
        >>> held_out = bands.transform(held_out)        # doctest: +SKIP
    """

    rule: str = "class-relative"
    edges: tuple[float, ...] | None = None
    column: str = columns.LOGITS
    units: tuple[UnitBands, ...] = ()

    def __post_init__(self) -> None:
        """Refuse unknown rules and edges that do not increase."""
        if self.rule not in DEFAULT_EDGES:
            raise ValueError(f"rule must be one of {list(DEFAULT_EDGES)}, but is {self.rule!r}")
        edges = DEFAULT_EDGES[self.rule] if self.edges is None else tuple(float(edge) for edge in self.edges)
        if edges is None:
            raise ValueError("rule 'edges' needs `edges`, plain values of the unit, such as edges=(-1.0, 1.0)")
        if not edges or not np.isfinite(edges).all() or any(b <= a for a, b in zip(edges, edges[1:], strict=False)):
            raise ValueError(f"edges must be finite and increase, but are {edges}")
        if self.rule == "quantile" and not 0 < edges[0] <= edges[-1] < 1:
            raise ValueError(f"edges of rule 'quantile' are ranks between 0 and 1, but are {edges}")
        object.__setattr__(self, "edges", edges)

    @property
    def names(self) -> tuple[str, ...]:
        """The bands' names from the bottom up: `low, mid, high`; with more bands `low, mid_1, ..., high`."""
        middles = len(self.edges or ()) - 1
        if middles < 1:
            return ("low", "high")
        return ("low", *(["mid"] if middles == 1 else [f"mid_{i + 1}" for i in range(middles)]), "high")

    def fit(self, ds: Dataset | IterableDataset, *, training_split: bool | None = None) -> LogitBands:
        """Return bands fitted on `ds`, which should be data that the model was not trained on.

        Args:
            ds: one split, with `logits` and, for `class-relative`, `label`. A stream is read once.
            training_split: whether the model was trained on these rows: True warns, False does not, None warns if
                the logits separate the classes almost perfectly, as they do on memorised rows.

        Raises:
            KeyError, TypeError: if a column is missing or the label is no `ClassLabel`.
            ValueError: if there are no rows, a class has none, logits are NaN or infinite, the number of units is
                not that of classes, or no unit can be cut.
        """
        if isinstance(ds, DatasetDict):
            raise TypeError(f"fit takes one split, such as ds[{next(iter(ds), 'validation')!r}], not a DatasetDict")
        supervised = self.rule == "class-relative"
        data = read_units(ds, self.column, supervised)
        if supervised:
            warn_if_memorised(data.values, data.ids, training_split)
        units = tuple(self._fit_unit(data.values[:, k], data.ids, k, name) for k, name in enumerate(data.names))
        _report_units_without_bands(units, supervised)
        return replace(self, units=units)

    def transform(self, ds: Any) -> Any:  # noqa: ANN401 - Dataset, DatasetDict or IterableDataset, the same comes back
        """Return `ds` with `quantile`, `position` and `band` added, each a vector with one entry per unit.

        `quantile` is the mid-rank among the fitted values, 0..1 (float32); `position` the class-relative position,
        NaN where undefined (float32); `band` the index into `names`, -1 where the unit has no bands (int8).

        Raises:
            ValueError: if not fitted, or logits differ in number from the fitted units, or are not finite.
        """
        if not self.units:
            raise ValueError("these bands are not fitted; `bands = bands.fit(held_out_split)` fits them")
        if isinstance(ds, DatasetDict):
            return DatasetDict({name: self.transform(split) for name, split in ds.items()})
        if ds.column_names is not None and self.column not in ds.column_names:
            raise KeyError(f"the dataset has no column {self.column!r}; it has {ds.column_names}; run `extract` first")
        return add_columns(ds, BandColumns(self.units, self.column))

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write the bands to `folder`/bands.json and return that path."""
        return storage.save(self, folder)

    @classmethod
    def from_pretrained(cls, folder_or_id: str | Path) -> LogitBands:
        """Load bands from a local folder, or from a Hub data set or model repository id."""
        return storage.load(cls, folder_or_id)

    def push_to_hub(self, repo_id: str, *, repo_type: str = "dataset", private: bool | None = None) -> str:
        """Upload bands.json to a Hub repository, made if need be; return the commit's address."""
        return storage.push(self, repo_id, repo_type, private)

    def _fit_unit(self, values: np.ndarray, ids: np.ndarray, k: int, name: str) -> UnitBands:
        edges = self.edges or ()
        if self.rule == "class-relative":
            typical = typical_values(values, ids, k)
            return UnitBands(name, class_relative_cuts(typical, edges), typical, knots_of(values))
        return UnitBands(name, unsupervised_cuts(self.rule, values, edges), None, knots_of(values))


def _report_units_without_bands(units: Iterable[UnitBands], supervised: bool) -> None:
    every = list(units)
    without = [unit.name for unit in every if unit.cuts is None]
    reason = "its members' median is not above its strangers'" if supervised else "it is constant"
    if len(without) == len(every):
        raise ValueError(f"no unit can be cut into bands: for each, {reason}; is the label column the model's own?")
    if without:
        warnings.warn(f"no bands for {without}: of each, {reason}; its band is -1 on every row", stacklevel=3)
