"""What a check keeps of a model: right answers by group, shares of bands, how far each concept moves each logit."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.association.inputs import read_inputs
from hf_midrange.association.ranks import RankedRows
from hf_midrange.bands import LogitBands
from hf_midrange.io.files import DamagedFileError, from_json, read_json, to_json, write_atomically
from hf_midrange.io.hub import HubSaved


FILE = "midrange_baseline.json"
AGAIN = "measure the baseline again: `hf-midrange check ... --save-baseline FOLDER`"


@dataclass(frozen=True)
class Baseline(HubSaved):
    """A model measured on some rows, small enough to lie beside it on the Hub.

    Attributes:
        classes: names, in the order of the logits.
        rows: how many there were.
        groups: name of a known group, or of a class where no groups are known -> right answers and rows.
        bands: fitted on these rows.
        shares: rows in each band of each unit, strangers and members apart, `(U, 2, B)`.
        concepts: `source: concept`, for each of the `m` concepts that were sought.
        area: chance that a row with the concept stands above one of the same label without it, `(m, U)`; None where
            too few rows have or lack it.
        error: standard errors of these where the concept moves nothing, `(m, U)`.
    """

    FILES: ClassVar[tuple[str, ...]] = (FILE,)

    classes: tuple[str, ...]
    rows: int
    groups: dict[str, tuple[int, int]]
    bands: LogitBands
    shares: tuple[tuple[tuple[int, ...], ...], ...]
    concepts: tuple[str, ...] = ()
    area: tuple[tuple[float | None, ...], ...] = ()
    error: tuple[tuple[float | None, ...], ...] = ()

    @classmethod
    def of(cls, ds: Dataset, bands: LogitBands | None = None) -> Baseline:
        """Measure rows that have `logits`, `label` and perhaps concepts and a `group`.

        Args:
            ds: one split.
            bands: those to count in; None fits them on these rows.

        Raises:
            KeyError, TypeError, ValueError: as `LogitBands.fit` does.
        """
        fitted = LogitBands().fit(ds) if bands is None else bands
        banded = fitted.transform(ds)
        labels, names = columns.labels(ds), columns.class_label(ds.features).names
        right = columns.matrix(ds, columns.LOGITS).argmax(axis=1) == labels
        known = columns.GROUP in ds.column_names
        of_row = columns.labels(ds, columns.GROUP) if known else labels
        called = columns.class_label(ds.features, columns.GROUP).names if known else names
        groups = {
            called[k]: (int(right[of_row == k].sum()), int((of_row == k).sum())) for k in np.unique(of_row).tolist()
        }
        made = cls(tuple(names), len(ds), groups, fitted, _shares(banded, labels, len(fitted.names)))
        return _with_concepts(made, banded) if columns.concept_columns(ds.features) else made

    def of_concept(self, concept: str, unit: int) -> tuple[float | None, float | None]:
        """Return the area of a concept in a unit, and its error; None where it was not sought or is too rare."""
        if concept not in self.concepts:
            return None, None
        j = self.concepts.index(concept)
        return self.area[j][unit], self.error[j][unit]

    def _write(self, folder: Path) -> None:
        write_atomically(folder / FILE, to_json(asdict(self), allow_nan=False) + "\n")

    @classmethod
    def _read(cls, *files: Path) -> Baseline:
        saved = read_json(files[0], "baseline of a check", AGAIN)
        try:
            return from_json(cls, saved)
        except ValueError as error:
            raise DamagedFileError(f"{files[0]} is not a whole baseline ({error}); {AGAIN}") from error


def _shares(banded: Dataset, labels: np.ndarray, number: int) -> tuple[tuple[tuple[int, ...], ...], ...]:
    """Return the rows in each band of each unit, strangers before members."""
    bands = columns.matrix(banded, columns.BAND)
    return tuple(
        tuple(
            tuple(np.bincount(band[(band >= 0) & ((labels == unit) == members)], minlength=number).tolist())
            for members in (False, True)
        )
        for unit, band in enumerate(bands.T)
    )


def _with_concepts(made: Baseline, banded: Dataset) -> Baseline:
    """Add how far each concept that is not derived from the embedding moves each logit, within labels."""
    inputs = read_inputs(banded)
    chosen = np.flatnonzero(~inputs.derived)
    problem = inputs.problem
    ranked = RankedRows.of(problem.ids, problem.classes, problem.present[:, chosen], problem.sources)
    shifts = [ranked.shift(values) for _, values in inputs.unit_values(np.arange(len(made.classes)))]
    areas, errors = (np.array([getattr(shift, name) for shift in shifts]).T for name in ("auc", "error"))
    concepts = tuple(f"{inputs.sources[j]}: {inputs.names[j]}" for j in chosen)
    return replace(made, concepts=concepts, area=_told(areas), error=_told(errors))


def _told(values: np.ndarray) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(round(v, 6) if np.isfinite(v) else None for v in row) for row in values.tolist())
