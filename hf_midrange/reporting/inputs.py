"""All that a report or an explorer is made from, checked once."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, Image

from hf_midrange import columns
from hf_midrange.association.findings import provenance
from hf_midrange.association.inputs import Inputs, read_inputs
from hf_midrange.association.mislabels import suspected_mislabels
from hf_midrange.association.schema import RANGE
from hf_midrange.curation.report import curation_report
from hf_midrange.publishing.escaping import short_names, shortened
from hf_midrange.reporting.drawing import Distribution
from hf_midrange.ties import shortcuts
from hf_midrange.verdicts import unchanged


TEXTS = (columns.TEXT, columns.TEXT_PAIR)


class Material(NamedTuple):
    """The rows and the findings about them."""

    ds: Dataset
    """With bands."""
    shown: Dataset
    """Texts and undecoded images alone."""
    inputs: Inputs
    ids: np.ndarray
    """Class ids, of shape `(n,)`."""
    classes: tuple[str, ...]
    """Their names, shortened."""
    findings: list[dict[str, Any]]
    provenance: dict[str, Any]
    shortcuts: list[dict[str, Any]]
    """Most harmful first; none where rows have no logits of their classes."""
    curation: dict[str, Any] | None
    """The report inside rows that were curated."""

    def member(self, unit: int) -> np.ndarray | None:
        """Return which rows belong to the unit's class, boolean of shape `(n,)`; None for a unit without one."""
        own = self.inputs.problem.members[unit]
        return None if own is None else self.ids == own

    def values(self, unit: int) -> np.ndarray:
        """Return the unit's values, or what orders rows like them, of shape `(n,)`."""
        return columns.some_units(self.ds, self.inputs.values, [unit])[:, 0].astype(np.float64)

    def bands(self, unit: int) -> np.ndarray:
        """Return the band of each row, of shape `(n,)`; -1 where it has none."""
        return self.inputs.problem.unit_bands(unit)

    def distribution(self, unit: int) -> Distribution:
        """Return the histograms of a unit's members and strangers, and its bands."""
        name, names = shortened(self.inputs.unit_names[unit]), self.inputs.band_names
        return Distribution.of(name, self.values(unit), self.bands(unit), self.member(unit), names)


def read(ds: Dataset, findings: Dataset | None, *, need_concepts: bool = True) -> Material:
    """Return the material of a report, refusing what does not belong together.

    Args:
        ds: one split; bands are fitted where it has none.
        findings: what `associate` returned for it; None: none.
        need_concepts: refuse rows without a column of concepts.

    Raises:
        KeyError: if a column is missing.
        TypeError: for a `DatasetDict`, or a label that is no `ClassLabel`.
        ValueError: if the findings speak of units or concepts that `ds` does not have.
    """
    inputs = read_inputs(ds, need_concepts=need_concepts)
    rows = [] if findings is None else findings.to_list()
    _check(rows, inputs)
    was_curated = columns.REASON in ds.column_names and columns.facts(ds.features, columns.REASON)
    told = findings is not None and columns.LOGITS in ds.column_names
    return Material(
        ds=inputs.ds,
        shown=_shown(inputs.ds),
        inputs=inputs,
        ids=inputs.problem.ids,
        classes=tuple(short_names(columns.class_label(ds.features).names)),
        shortcuts=shortcuts(ds, findings).to_list() if told else [],
        findings=rows,
        provenance={} if findings is None else provenance(findings),
        curation=curation_report(ds) if was_curated else None,
    )


def suspects_of(material: Material, findings: Dataset) -> tuple[list[dict[str, Any]], str | None]:
    """Return the rows whose label may be wrong, most suspect first, and why nobody looked where nobody did.

    A row that a shortcut or the curation explains is not among them: who "corrects" its label deletes the
    very rows that break the tie.
    """
    one = material.ds.select(range(1))
    judged = columns.POSITION in one.column_names
    if not judged or columns.matrix(one, columns.POSITION).shape[1] != len(material.classes):
        return [], "labels are judged by the position in the range of each class's logit, which these rows do not have"
    found = suspected_mislabels(material.ds, findings).to_list()
    contrary = _contrary(material)
    breaking = [(one["unit"], {*one["rows"]}) for one in material.shortcuts]

    def explained(row: dict[str, Any]) -> bool:
        ways = (row["label"], row["suggested"])
        return bool(contrary[row["row"]]) or any(own in ways and row["row"] in rows for own, rows in breaking)

    return [row for row in found if not explained(row)], None


def _contrary(material: Material) -> np.ndarray:
    """Return which rows are in another pseudo-group than most of their label, where a repair was found, `(n,)`."""
    if material.curation is None or unchanged(material.curation):
        return np.zeros(len(material.ids), dtype=bool)
    cells = columns.labels(material.ds, columns.PSEUDO_GROUP)
    sizes = np.bincount(cells)[cells]
    largest = np.zeros(len(material.classes), dtype=np.int64)
    np.maximum.at(largest, material.ids, sizes)
    return sizes < largest[material.ids]


def _shown(ds: Dataset) -> Dataset:
    names = [name for name in (columns.IMAGE, *TEXTS) if name in ds.column_names]
    shown = ds.with_format(None).select_columns(names)
    is_image = isinstance(shown.features.get(columns.IMAGE), Image)
    return shown.cast_column(columns.IMAGE, Image(decode=False)) if is_image else shown


def _check(rows: list[dict[str, Any]], inputs: Inputs) -> None:
    known = set(zip(inputs.sources, inputs.names, strict=True))
    for row in rows:
        if not 0 <= row["unit"] < len(inputs.unit_names) or inputs.unit_names[row["unit"]] != row["unit_name"]:
            raise ValueError(
                f"the findings speak of unit {row['unit']} ({row['unit_name']!r}), but the dataset has the units "
                f"{columns.listed(inputs.unit_names)}; give the rows that `associate` was given"
            )
        if (row["source"], row["concept"]) not in known:
            raise ValueError(
                f"the findings speak of {row['concept']!r} in `{columns.CONCEPTS_PREFIX}{row['source']}`, which the "
                "dataset does not have; give the rows that `associate` was given"
            )
        if row["band"] not in (*inputs.band_names, RANGE):
            raise ValueError(f"the findings speak of band {row['band']!r}; the dataset has {inputs.band_names}")
