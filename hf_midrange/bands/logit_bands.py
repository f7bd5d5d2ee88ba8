"""`LogitBands`: fit the bands of every unit once, keep them as JSON, apply them to anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from hf_midrange import columns
from hf_midrange.bands import storage
from hf_midrange.bands.curve import UnitSearch
from hf_midrange.bands.fitting import exact_units, rule_for, sketch_of, sketched_units
from hf_midrange.bands.rules import AUTO, CLASS_RELATIVE, DEFAULT_EDGES, edges_of
from hf_midrange.bands.search import searches
from hf_midrange.bands.shards import read_shards
from hf_midrange.bands.sketch import BandSketch
from hf_midrange.bands.transform import BandColumns, add_columns
from hf_midrange.bands.unit import UnitBands
from hf_midrange.bands.warning import Separation, report_units_without_bands, warn_if_memorised


@dataclass(frozen=True)
class LogitBands:
    """Cut each unit's range into bands, fitted once and then frozen.

    The middle of a logit's range is where a class and what is tied to it come apart: members of the class without
    the tied concept, and strangers with it. The idea is that of O'Mahony et al., WACV 2025 (arXiv 2411.10019); their
    exact thresholds are not public, so every rule here is our interpretation.

    Args:
        rule: `class-relative` (edges are positions between the typical stranger, 0, and the typical member, 1),
            `quantile` (edges are ranks), `range` (fractions of the 1 %-99 % value range), `std` (standard deviations
            from the mean), `edges` (plain values of the unit) or `auto` (below). Only the first needs labels.
        edges: increasing edges in the rule's own unit; two make three bands. None: the rule's default.
        n_bands: instead of `edges`, so many bands, 2 to 127: `quantile` cuts equal shares of the rows and `range`
            equal lengths; `class-relative` and `std` keep the low and the high band of their default and cut the
            middle into `n_bands - 2` equal lengths, so that 3 is the default (2 bands part at its centre).
        units: the vector column whose entries are the units: `logits`, `embedding` or any other.
        fitted: what was fitted, one entry per unit; empty until `fit`.

    Rule `auto` takes for each unit, where it has a class of its own, one of 24 class-relative middles, and otherwise
    one of 16 quantile middles (`search.GRIDS`). It maximises the held-out (5-fold) information between the unit's
    three bands, members and strangers apart, and what is in the rows given the label: their concepts, or without
    concepts their side views, embedding or logits. Edges are chosen on the discovery half of the rows alone, at most
    4,000 of them (cut points are then fitted on all rows, as by any rule), and a middle needs 10 members and 10
    strangers, its outer bands 10 rows. The default stays unless another gains over it beyond noise (a paired
    bootstrap, 5 % over all candidates together: stricter than one standard error); `search` holds the whole curve, the
    default's score and the stability of the choice. Since edges are chosen by the concepts of the discovery half,
    `associate` with the same seed may find a little too much there; what it confirms on the other half holds. `auto`
    fails in this way: what it rewards is information about any concept in any band, so a concept that tells hard rows
    from easy ones counts like a confounder, contrary rows beyond a narrow middle lie in the outer bands, and where
    only an embedding is at hand the best middle is the one that describes the embedding best. Narrow middles were no
    better for curation in our trials: read the curve before trusting it.

    Behaviour at the margins:
        - A value on an edge is in the upper band. Where many values tie, cuts can be equal; the bands between equal
          cuts are empty, and under `quantile` the shares are as unequal as the ties make them.
        - A constant unit (but under `edges`), and under `class-relative` a unit whose members stand no higher than
          strangers, is named in a warning and has band -1 on every row. If every unit is so, `fit` refuses.
        - Under `class-relative` every class needs a row and a row of another class, else `fit` refuses and names it;
          other rules do not look at labels. A class of one row has that row for its typical member. `auto` leaves a
          unit with fewer than 10 members or strangers to search on at the default, with no search.

    Example:
        >>> bands = LogitBands().fit(held_out)          # doctest: +SKIP
        >>> held_out = bands.transform(held_out)        # doctest: +SKIP
    """

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
                "'range', 'std', 'edges' or 'auto' with units='embedding'"
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The bands' names from the bottom up: `low, mid, high`; with more bands `low, mid_1, ..., high`."""
        middles = 1 if self.edges is None else len(self.edges) - 1
        if middles < 1:
            return ("low", "high")
        return ("low", *(["mid"] if middles == 1 else [f"mid_{i + 1}" for i in range(middles)]), "high")

    @property
    def search(self) -> dict[str, UnitSearch]:
        """How rule `auto` chose, by unit name; empty under other rules."""
        return {unit.name: unit.search for unit in self.fitted if unit.search is not None}

    def fit(
        self, ds: Dataset | IterableDataset | str | Path, *, training_split: bool | None = None, seed: int = 0
    ) -> LogitBands:
        """Return bands fitted on `ds`, which should be data that the model was not trained on.

        A `Dataset` of any size is fitted exactly: one too large for memory is read again for each block of units, 100
        million values at a time (1.2 million rows of 1,000 units took 157 s and .93 GB on one busy core:
        `benchmarks/bands.py --rows 1200000 --units 1000`). A stream is read once into a `BandSketch`: the same up to
        8,192 rows, ranks within .001 beyond.

        Args:
            ds: one split, with `units` and, for `class-relative`, `label`; or, for other rules, the `output_dir` of an
                extraction (with labels: `hf_midrange.bands.read_shards(output_dir, dataset)`).
            training_split: whether the model was trained on these rows: True warns, False does not, None warns if
                the logits separate the classes almost perfectly, as they do on memorised rows.
            seed: of rule `auto`; that of `associate`, for its confirmation half to stay untouched by the choice.

        Raises:
            KeyError, TypeError: if a column is missing or is no vector, or the label is no `ClassLabel`.
            ValueError: if there are no rows, a class has none, logits are NaN or infinite, the number of units is
                not that of classes, no unit can be cut, or `auto` is given a stream or nothing to choose by.
        """
        rows = self._rows(ds)
        if isinstance(rows, IterableDataset):
            units, separation = self._from_sketch(self.sketch(rows))
            return self._finished(units, separation, training_split)
        if self.rule == AUTO:
            return self._finished(*self._searched(rows, seed), training_split)
        units, separation = exact_units(rows, self.units, self.rule, [self.edges or ()])
        return self._finished(units, separation, training_split)

    def sketch(self, ds: Dataset | IterableDataset | str | Path) -> BandSketch:
        """Return a `BandSketch` of `ds`, read once in batches: one of several that are merged and then fitted.

        Example:
            >>> sketch = bands.sketch(my_part)                           # doctest: +SKIP
            >>> sketch.merge(BandSketch.from_bytes(of_another_process))  # doctest: +SKIP
            >>> bands = bands.fit_sketch(sketch)                         # doctest: +SKIP
        """
        return sketch_of(self._rows(ds), self.units, self.rule == CLASS_RELATIVE)

    def fit_sketch(self, sketch: BandSketch, *, training_split: bool | None = None) -> LogitBands:
        """Return bands fitted on a `BandSketch`; see there for how exact they are.

        Raises:
            ValueError: as `fit` does; also for a sketch without the class ids that `class-relative` needs.
        """
        return self._finished(*self._from_sketch(sketch), training_split)

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
        made = f"rule={self.rule!r}, edges={self.edges}, units={self.units!r}"
        return columns.signed(add_columns(ds, BandColumns(self.fitted, self.units)), "bands", made)

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

    def _rows(self, ds: Any) -> Dataset | IterableDataset:  # noqa: ANN401 - what `fit` takes
        if isinstance(ds, DatasetDict | IterableDatasetDict):
            kind, split = type(ds).__name__, next(iter(ds), "validation")
            raise TypeError(f"fit takes one split, such as ds[{split!r}], not a {kind}")
        if isinstance(ds, str | Path):
            if self.rule in (CLASS_RELATIVE, AUTO):
                raise ValueError(
                    f"the shards in {ds} hold no labels or concepts; fit rule {self.rule!r} on what `extract` "
                    "returned, or on `read_shards(output_dir, dataset)`, which puts the labels beside the outputs"
                )
            ds = read_shards(ds)
        if self.rule == AUTO and isinstance(ds, IterableDataset):
            raise ValueError("rule 'auto' looks at units and concepts together: give it a Dataset, not a stream")
        return ds

    def _searched(self, ds: Dataset, seed: int) -> tuple[tuple[UnitBands, ...], Separation | None]:
        rule = rule_for(ds, self.units)
        found = searches(ds, self.units, rule, seed)
        default = DEFAULT_EDGES[rule] or ()
        units, separation = exact_units(ds, self.units, rule, [default if one is None else one.edges for one in found])
        return tuple(replace(unit, search=one) for unit, one in zip(units, found, strict=True)), separation

    def _from_sketch(self, sketch: BandSketch) -> tuple[tuple[UnitBands, ...], Separation | None]:
        if self.rule == AUTO:
            raise ValueError("rule 'auto' looks at units and concepts together: `fit` it on a Dataset, not a sketch")
        return sketched_units(sketch, self.rule, self.edges or ())

    def _finished(
        self, units: Sequence[UnitBands], separation: Separation | None, training_split: bool | None
    ) -> LogitBands:
        if separation is not None:
            warn_if_memorised(separation, training_split)
        report_units_without_bands(units, separation is not None)
        return replace(self, fitted=tuple(units))
