"""Rule `auto`: choose each unit's middle by what it says of the rows, on the discovery half only."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from datasets import ClassLabel, Dataset

from hf_midrange import columns
from hf_midrange.bands.curve import Candidate, UnitSearch
from hf_midrange.bands.information import Sample, information
from hf_midrange.bands.position import typical_values
from hf_midrange.bands.rules import CLASS_RELATIVE, DEFAULT_EDGES, QUANTILE, class_relative_cuts
from hf_midrange.bands.targets import targets_of


GRIDS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    CLASS_RELATIVE: ((-0.5, -0.25, 0.0, 0.25, 0.5), (0.5, 0.75, 1.0, 1.25, 1.5)),
    QUANTILE: ((0.1, 0.2, 1 / 3, 0.45), (0.55, 2 / 3, 0.8, 0.9)),
}
"""Lower and upper edges that are tried, each with each, where the lower is lower."""

MOST_ROWS, FOLDS, RESAMPLES = 4000, 5, 100
FEWEST_IN_BAND = 10
CHANCE = 0.05
"""Chance, over all candidates (Bonferroni), of leaving a default that is as good as the others."""


class _Rows(NamedTuple):
    """The rows that are searched, the same for all units."""

    sample: Sample
    values: np.ndarray
    ids: np.ndarray | None
    seed: int
    target: str


def searches(ds: Dataset, column: str, rule: str, seed: int) -> list[UnitSearch | None]:
    """Search the middle of every unit of `column`; None where a unit or its class gives nothing to choose by.

    Args:
        ds: rows with `column`, concepts or a dense description, and, under `class-relative`, labels.
        column: the units.
        rule: whose edges are sought, `class-relative` or `quantile`.
        seed: of the halves (that of `associate`, for its confirmation half to be untouched), folds and resamples.
    """
    rows = _rows(ds, column, rule, seed)
    return [_search(rows, k, rule) for k in range(rows.values.shape[1])]


def candidates_of(rule: str) -> list[tuple[float, float]]:
    """Return the middles that are tried, in order."""
    lower, upper = GRIDS[rule]
    return [(low, high) for low in lower for high in upper if low < high]


def _rows(ds: Dataset, column: str, rule: str, seed: int) -> _Rows:
    from hf_midrange.split_halves import discovery_half

    labelled = isinstance(ds.features.get(columns.LABEL), ClassLabel)
    ids = columns.labels(ds) if labelled else np.zeros(len(ds), dtype=np.int64)
    sources = np.asarray(ds[columns.SOURCE_ID][:]) if columns.SOURCE_ID in ds.column_names else None
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero(discovery_half(ids, sources, seed))
    if len(chosen) > MOST_ROWS:
        chosen = np.sort(rng.choice(chosen, MOST_ROWS, replace=False))
    part = ds.select(chosen)
    group = np.arange(len(chosen)) if sources is None else np.unique(sources[chosen], return_inverse=True)[1]
    groups = int(group.max()) + 1
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=RESAMPLES)
    weights = np.vstack([np.ones(len(chosen)), drawn[:, group]])
    residuals, target = targets_of(part, column, ids[chosen])
    sample = Sample(residuals, (rng.permutation(groups) % FOLDS)[group], weights)
    of_class = ids[chosen] if rule == CLASS_RELATIVE else None
    return _Rows(sample, columns.finite_matrix(part, column).astype(np.float64), of_class, seed, target)


def _search(rows: _Rows, unit: int, rule: str) -> UnitSearch | None:
    values = rows.values[:, unit]
    side = np.zeros(len(values), dtype=np.int64) if rows.ids is None else (rows.ids == unit).astype(np.int64)
    pairs = candidates_of(rule)
    grid = sorted({edge for pair in pairs for edge in pair})
    cuts = _grid_cuts(values, side, grid, rule)
    if cuts is None:
        return None
    cell = np.searchsorted(cuts, values, side="right")
    indices = [(grid.index(low), grid.index(high)) for low, high in pairs]
    scores = information(rows.sample, side, cell, indices)
    middles = [(cell > i) & (cell <= j) for i, j in indices]
    counts = [(int(side[middle].sum()), int((1 - side)[middle].sum())) for middle in middles]
    eligible = [
        min(count if rows.ids is not None else count[1:]) >= FEWEST_IN_BAND and _ends(cell, pair) >= FEWEST_IN_BAND
        for count, pair in zip(counts, indices, strict=True)
    ]
    return _chosen(rows, scores, pairs, counts, np.array(eligible), pairs.index(_default(rule)))


def _chosen(
    rows: _Rows,
    scores: np.ndarray,
    pairs: Sequence[tuple[float, float]],
    counts: Sequence[tuple[int, int]],
    eligible: np.ndarray,
    default: int,
) -> UnitSearch:
    """Take the best candidate whose gain over the default is beyond noise, else the default."""
    gains = scores - scores[:, [default]]
    errors = gains[1:].std(axis=0, ddof=1)
    needed = NormalDist().inv_cdf(1 - CHANCE / (len(pairs) - 1)) * errors
    better = eligible & (gains > np.maximum(needed, 1e-12))
    taken = np.where(better.any(axis=1), np.where(better, scores, -np.inf).argmax(axis=1), default)
    tried = tuple(
        Candidate(pair, float(score), float(gain), float(error), count[0], count[1], bool(may))
        for pair, score, gain, error, count, may in zip(
            pairs, scores[0], gains[0], errors, counts, eligible, strict=True
        )
    )
    stability = float(np.mean(taken[1:] == taken[0]))
    return UnitSearch(tried, int(taken[0]), default, stability, len(rows.values), rows.seed, rows.target)


def _grid_cuts(values: np.ndarray, side: np.ndarray, grid: Sequence[float], rule: str) -> np.ndarray | None:
    """Return the unit's values at the grid's edges; None where there is nothing to divide, or too few rows."""
    if rule == QUANTILE:
        return None if values.min() == values.max() else np.quantile(values, grid)
    if min(side.sum(), (1 - side).sum()) < FEWEST_IN_BAND:
        return None
    cuts = class_relative_cuts(typical_values(values, side, 1), grid)
    return None if cuts is None else np.asarray(cuts)


def _ends(cell: np.ndarray, pair: tuple[int, int]) -> int:
    """Return the rows of the emptier of the low and the high band."""
    return int(min(np.sum(cell <= pair[0]), np.sum(cell > pair[1])))


def _default(rule: str) -> tuple[float, float]:
    low, high = DEFAULT_EDGES[rule] or (0.0, 1.0)
    return low, high
