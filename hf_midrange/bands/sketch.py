"""`BandSketch`: what bands are fitted on, gathered in bounded memory batch by batch and merged across processes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from datasketches import kll_doubles_sketch

from hf_midrange.bands.reading import require_finite
from hf_midrange.bands.summary import ExactSummary, SketchSummary, UnitSummary, kept_values


KEPT = 8192
"""Parameter k of the KLL sketches (Karnin, Lang, Liberty 2016, arXiv 1603.05346): so many values are all kept."""

RANK_ERROR = 0.001
"""Bound on the error of a rank. It is twice the .0005 that the library states for all ranks of a sketch at once with
99 % confidence; as errors are sub-Gaussian, a violation is then not to be expected in a million fits."""


class BandSketch:
    """Summary of units seen batch by batch: as much memory as 8,192 rows take and a little more, for any number.

    A unit has a quantile sketch of its members and one of its strangers (of all rows, without class ids). A sketch of
    up to 8,192 values holds them all, and bands fitted on it equal those fitted in memory. Beyond that every median
    and quantile that a rule is made of has a rank within .001 (`RANK_ERROR`; .0005 with 99 % confidence) of the exact
    one, among strangers, members or all rows as the rule asks; means and standard deviations are exact but for
    rounding. The library's coins cannot be seeded, so two passes over the same many rows can differ within that bound;
    `LogitBands.fit` on a `Dataset` is exact and always the same.

    Args:
        names: the units' names, in order; the classes', where bands are class-relative.

    Example:
        >>> left, right = BandSketch(["cat", "dog"]), BandSketch(["cat", "dog"])
        >>> left.update([[2.0, 1.0], [0.0, 3.0]], [0, 1])
        >>> right.update([[3.0, -1.0]], [0])
        >>> left.merge(BandSketch.from_bytes(right.to_bytes()))
        >>> left.rows
        3
    """

    def __init__(self, names: Sequence[str]) -> None:
        """Make an empty sketch."""
        if not names:
            raise ValueError("a sketch needs at least one unit, such as BandSketch(['cat', 'dog'])")
        self.names = tuple(names)
        self.labelled: bool | None = None
        """Whether class ids come with the rows; None until there are rows."""
        self.rows = 0
        self.right = 0
        """Rows whose own class has the highest unit; counted with class ids only."""
        self.mean = np.zeros(len(self.names))
        self.squares = np.zeros(len(self.names))
        """Sum of squared distances from the mean, per unit."""
        self.others = [kll_doubles_sketch(KEPT) for _ in self.names]
        self.members = [kll_doubles_sketch(KEPT) for _ in self.names]

    def update(self, values: np.ndarray, ids: np.ndarray | None = None) -> None:
        """Add rows.

        Args:
            values: of shape `(n, U)`, finite.
            ids: class ids of shape `(n,)`, below U; None where no class is asked about. The same in every call.

        Raises:
            ValueError: if shapes do not fit, a value is not finite, an id is unknown, or only some calls give ids.
        """
        values = np.asarray(values)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise ValueError(
                f"values must be of shape (n, {len(self.names)}), one column per unit, not {values.shape}"
            )
        require_finite(values, self.rows, "values")
        ids = None if ids is None else self._checked(np.asarray(ids), len(values))
        if not len(values):
            return
        self._agree(ids is not None)
        if ids is None:
            self._add(values, None)
        else:
            self.right += int(np.sum(values.argmax(axis=1) == ids))
            order = np.argsort(ids, kind="stable")
            self._add(values[order], np.searchsorted(ids[order], np.arange(len(self.names) + 1)))
        mean = values.mean(axis=0, dtype=np.float64)
        self._pool(len(values), mean, np.square(values - mean).sum(axis=0))

    def merge(self, other: BandSketch) -> None:
        """Add the rows of another sketch of the same units; `other` stays as it is.

        Raises:
            ValueError: if the units differ, or only one of the two has class ids.
        """
        if other.names != self.names:
            raise ValueError(f"sketches of different units cannot be merged: {self.names} and {other.names}")
        if other.labelled is None:
            return
        self._agree(other.labelled)
        for mine, theirs in zip(self.others + self.members, other.others + other.members, strict=True):
            mine.merge(theirs)
        self.right += other.right
        self._pool(other.rows, other.mean, other.squares)

    def to_bytes(self) -> bytes:
        """Return the sketch as bytes in the safetensors format, to be sent to another process or stored."""
        from hf_midrange.bands.sketch_bytes import pack

        return pack(self)

    @classmethod
    def from_bytes(cls, content: bytes) -> BandSketch:
        """Return the sketch that `to_bytes` wrote.

        Raises:
            ValueError: if these are no such bytes.
        """
        from hf_midrange.bands.sketch_bytes import unpack

        return unpack(content)

    def summary(self, unit: int) -> UnitSummary:
        """Return what is known of one unit: exact as long as the sketches hold all values."""
        others, members = self.others[unit], self.members[unit]
        if others.n + members.n <= KEPT and not (others.is_estimation_mode() or members.is_estimation_mode()):
            return ExactSummary.of(kept_values(others), kept_values(members))
        everyone = kll_doubles_sketch(KEPT)
        everyone.merge(others)
        everyone.merge(members)
        std = float(np.sqrt(self.squares[unit] / self.rows))
        return SketchSummary(others, members, everyone, (float(self.mean[unit]), std))

    def class_counts(self) -> np.ndarray:
        """Return the rows of each class, of shape `(U,)`."""
        return np.array([sketch.n for sketch in self.members])

    def _add(self, values: np.ndarray, bounds: np.ndarray | None) -> None:
        """Add rows, which are sorted by class where `bounds` says where each class begins."""
        by_unit = np.ascontiguousarray(values.T, dtype=np.float64)
        for k, unit in enumerate(by_unit):
            if bounds is None:
                self.others[k].update(unit)
                continue
            first, stop = bounds[k], bounds[k + 1]
            self.others[k].update(unit[:first])
            self.members[k].update(unit[first:stop])
            self.others[k].update(unit[stop:])

    def _pool(self, rows: int, mean: np.ndarray, squares: np.ndarray) -> None:
        """Pool means and squares of two sets of rows (Chan, Golub, LeVeque 1979)."""
        total, step = self.rows + rows, mean - self.mean
        self.squares = self.squares + squares + np.square(step) * (self.rows * rows / total)
        self.mean = self.mean + step * (rows / total)
        self.rows = total

    def _agree(self, labelled: bool) -> None:
        if self.labelled not in (None, labelled):
            have, come = ("with", "without") if self.labelled else ("without", "with")
            raise ValueError(f"this sketch has rows {have} class ids and cannot take rows {come}")
        self.labelled = labelled

    def _checked(self, ids: np.ndarray, rows: int) -> np.ndarray:
        if ids.shape != (rows,):
            raise ValueError(f"ids must be of shape ({rows},), one for each row of values, not {ids.shape}")
        if rows and not (0 <= ids.min() and ids.max() < len(self.names)):
            raise ValueError(f"ids must be in 0..{len(self.names) - 1}, one unit per class, but go beyond")
        return ids
