"""`LogitBands`: fit the bands of every unit once, keep them as JSON, apply them to anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from datasets import ClassLabel, Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from hf_midrange import columns
from hf_midrange.bands.fitting import drawn_rows, fit_units, warn_if_memorised, warn_of_units_without_bands
from hf_midrange.bands.transform import BandColumns, add_columns
from hf_midrange.bands.units import CLASS_RELATIVE, UnitBands, edges_of
from hf_midrange.extraction.shards import read_shards
from hf_midrange.io.files import DamagedFileError, from_json, read_json, to_json, write_atomically
from hf_midrange.io.hub import HubSaved


FILE, FORMAT = "bands.json", 2

AGAIN = "fit the bands again and save them"


@dataclass(frozen=True)
class LogitBands(HubSaved):
    """Cut each unit's range into bands, fitted once and then frozen.

    The middle of a logit's range is where a class and what is tied to it come apart: members of the class without
    the tied concept, and strangers with it. The idea is that of O'Mahony et al., WACV 2025 (arXiv 2411.10019); their
    exact thresholds are not public, so every rule here is our interpretation.

    Args:
        rule: `class-relative` (edges are positions between the typical stranger, 0, and the typical member, 1),
            `quantile` (edges are ranks), `range` (fractions of the 1 %-99 % value range), `std` (standard deviations
            from the mean) or `edges` (plain values of the unit). Only the first needs labels.
        edges: increasing edges in the rule's own unit; two make three bands. None: the rule's default.
        n_bands: instead of `edges`, so many bands, 2 to 127: `quantile` cuts equal shares of the rows and `range`
            equal lengths; `class-relative` and `std` keep the low and the high band of their default and cut the
            middle into `n_bands - 2` equal lengths, so that 3 is the default (2 bands part at its centre).
        units: the vector column whose entries are the units: `logits`, `embedding` or any other.
        fitted: what was fitted, one entry per unit; empty until `fit`.

    Behaviour at the margins:
        - A value on an edge is in the upper band. Where many values tie, cuts can be equal; the bands between equal
          cuts are empty, and under `quantile` the shares are as unequal as the ties make them.
        - A constant unit (but under `edges`), and under `class-relative` a unit whose members stand no higher than
          strangers, is named in a warning and has band -1 on every row. If every unit is so, `fit` refuses.
        - Under `class-relative` every class needs a row and a row of another class, else `fit` refuses and names it;
          other rules do not look at labels. A class of one row has that row for its typical member.

    Examples:
        >>> bands = LogitBands().fit(held_out)          # doctest: +SKIP
        >>> held_out = bands.transform(held_out)        # doctest: +SKIP
    """

    FILES: ClassVar[tuple[str, ...]] = (FILE,)
    REPO_TYPES: ClassVar[tuple[str, ...]] = ("dataset", "model")

    rule: str = CLASS_RELATIVE
    edges: tuple[float, ...] | None = None
    n_bands: int | None = None
    units: str = columns.LOGITS
    fitted: tuple[UnitBands, ...] = ()

    def __post_init__(self) -> None:
        """Refuse unknown rules, edges that do not increase, and bands that cannot be."""
        object.__setattr__(self, "edges", edges_of(self.rule, self.edges, self.n_bands))
        if self.rule == CLASS_RELATIVE and self.units == columns.EMBEDDING:
            raise ValueError(
                "entries of an embedding stand for no class, which rule 'class-relative' needs: use rule='quantile', "
                "'range', 'std' or 'edges' with units='embedding'"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The bands' names from the bottom up: `low, mid, high`; with more bands `low, mid_1, ..., high`."""
        return band_names(len(self.edges or ()) + 1)

    def fit(
        self, ds: Dataset | IterableDataset | str | Path, *, training_split: bool | None = None, seed: int = 0
    ) -> LogitBands:
        """Return bands fitted on `ds`, which should be data that the model was not trained on.

        A `Dataset` of any size is fitted exactly: one too large for memory is read again for each block of units, 100
        million values at a time (1.2 million rows of 1,000 units took 157 s and .93 GB on one busy core:
        `benchmarks/bands.py --rows 1200000 --units 1000`). A stream is read once, and bands are fitted on 100,000 of
        its rows, drawn at random: exactly up to so many, and beyond with a standard error of at most .0016 in rank.

        Args:
            ds: one split, with `units` and, for `class-relative`, `label`; or, for other rules, the `output_dir` of an
                extraction (with labels: `hf_midrange.bands.read_shards(output_dir, dataset)`).
            training_split: whether the model was trained on these rows: True warns, False does not, None warns if
                the logits separate the classes almost perfectly, as they do on memorised rows.
            seed: of the rows drawn from a stream.

        Raises:
            KeyError, TypeError: if a column is missing or holds no vectors, or the label is not a `ClassLabel`.
            ValueError: if there are no rows, a class has none, logits are NaN or infinite, the number of units is
                not that of classes, or no unit can be cut.
        """
        rows = self._rows(ds, seed)
        units, separation = fit_units(rows, self.units, self.rule, self.edges or ())
        if separation is not None:
            warn_if_memorised(separation, training_split)
        warn_of_units_without_bands(units, separation is not None)
        return replace(self, fitted=units)

    def transform(self, ds: Any) -> Any:  # noqa: ANN401 - any kind of dataset; the same comes back
        """Return `ds` with `quantile`, `position` and `band` added, each a vector with one entry per unit.

        `quantile` is the mid-rank among the fitted values, 0..1 (float32); `position` the class-relative position,
        NaN where undefined (float32); `band` the index into `names`, -1 where the unit has no bands (int8).

        Raises:
            ValueError: if not fitted, or units differ in number from the fitted ones, or are not finite.
        """
        if not self.fitted:
            raise ValueError("these bands are not fitted; `bands = bands.fit(held_out_split)` fits them")
        if isinstance(ds, DatasetDict | IterableDatasetDict):
            return type(ds)({name: self.transform(split) for name, split in ds.items()})
        if ds.column_names is not None and self.units not in ds.column_names:
            raise KeyError(f"the dataset has no column {self.units!r}; it has {ds.column_names}; run `extract` first")
        facts = {"bands": list(self.names), "rule": self.rule, "edges": list(self.edges or ()), "units": self.units}
        return add_columns(ds, BandColumns(self.fitted, self.units), facts)

    def _write(self, folder: Path) -> None:
        if not self.fitted:
            raise ValueError("these bands are not fitted, so there is nothing to save; call `fit` first")
        write_atomically(folder / FILE, to_json(asdict(self), number=FORMAT, allow_nan=False) + "\n")

    @classmethod
    def _read(cls, *files: Path) -> LogitBands:
        saved = read_json(files[0], "file of bands", AGAIN, reads=(FORMAT,))
        try:
            bands = from_json(cls, _current(saved))
            for unit in bands.fitted:
                unit.require_cuts(len(bands.names) - 1)
            if not bands.fitted:
                raise ValueError("it has no units")
        except ValueError as error:
            raise DamagedFileError(f"{files[0]} is not a whole file of bands ({error}); {AGAIN}") from error
        return bands

    def _rows(self, ds: Any, seed: int) -> Dataset:  # noqa: ANN401 - what `fit` takes
        if isinstance(ds, DatasetDict | IterableDatasetDict):
            kind, split = type(ds).__name__, next(iter(ds), "validation")
            raise TypeError(f"fit takes one split, such as ds[{split!r}], not a {kind}")
        if isinstance(ds, IterableDataset):
            named = isinstance((ds.features or {}).get(columns.LABEL), ClassLabel)  # units are named after classes
            return drawn_rows(
                ds, [self.units, *([columns.LABEL] if self.rule == CLASS_RELATIVE or named else [])], seed
            )
        if not isinstance(ds, str | Path):
            return ds
        if self.rule == CLASS_RELATIVE:
            raise ValueError(
                f"the shards in {ds} hold no labels; fit rule {self.rule!r} on what `extract` returned, or on "
                "`read_shards(output_dir, dataset)`, which puts the labels beside the outputs"
            )
        return read_shards(ds)


def band_names(number: int) -> tuple[str, ...]:
    """Return the names of this many bands from the bottom up: `low`, `high`, and `mid` or `mid_1, ...` between."""
    middle = ["mid"] if number == 3 else [f"mid_{i + 1}" for i in range(number - 2)]
    return ("low", *middle, "high")


def _current(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a file of bands holds, without what earlier versions wrote beside it."""
    fitted = from_json(list[dict[str, Any]], saved.get("fitted", []), "fitted")
    units = [{name: value for name, value in unit.items() if name != "search"} for unit in fitted]
    return {name: value for name, value in saved.items() if name != "checksum"} | {"fitted": units}
