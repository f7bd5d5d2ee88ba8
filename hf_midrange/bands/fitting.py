"""From what is known of every unit to its fitted bands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from datasets import ClassLabel, Dataset, IterableDataset

from hf_midrange import columns
from hf_midrange.bands.reading import stream_batches, stream_features, table_batches, unit_blocks, unit_names, width_of
from hf_midrange.bands.rules import CLASS_RELATIVE, QUANTILE, cuts_of
from hf_midrange.bands.sketch import BandSketch
from hf_midrange.bands.summary import ExactSummary, UnitSummary
from hf_midrange.bands.unit import UnitBands
from hf_midrange.bands.warning import Separation


def sketch_of(ds: Dataset | IterableDataset, column: str, supervised: bool) -> BandSketch:
    """Return the sketch of all rows, read once, a batch at a time."""
    if isinstance(ds, IterableDataset):
        features = stream_features(ds, [column, columns.LABEL] if supervised else [column])
        batches = stream_batches(ds, column, supervised)
    else:
        features, batches = ds.features, table_batches(ds, column, supervised)
    sketch = None
    for batch in batches:
        if sketch is None:
            sketch = BandSketch(unit_names(features, column, batch.values.shape[1], supervised))
        sketch.update(batch.values, batch.ids)
    if sketch is None:
        raise ValueError("the stream has no rows to fit bands on")
    return sketch


def exact_units(
    ds: Dataset, column: str, rule: str, edges: Sequence[Sequence[float]]
) -> tuple[tuple[UnitBands, ...], Separation | None]:
    """Return each unit's bands from all its values, and, with classes, how well the units separate them.

    Args:
        ds: the rows.
        column: the units.
        rule: any but `auto`.
        edges: those of each unit; of one entry, those of all.
    """
    supervised = rule == CLASS_RELATIVE
    width = width_of(ds, column)
    names = unit_names(ds.features, column, width, supervised)
    ids = columns.labels(ds) if supervised else None
    if ids is not None:
        require_strangers(np.bincount(ids, minlength=width), names)
    best, winner = np.full(len(ds), -np.inf), np.zeros(len(ds), dtype=np.int64)
    units: list[UnitBands] = []
    contrary = 0.0
    for first, values in unit_blocks(ds, column, width):
        for k, summary in _summaries(values, ids, first):
            units.append(unit_bands(names[k], rule, summary, edges[k % len(edges)]))
            contrary += summary.contrary() if supervised else 0.0
        if supervised:
            highest = values.max(axis=1)
            winner[highest > best] = first + values[highest > best].argmax(axis=1)
            best = np.maximum(best, highest)
    if ids is None:
        return tuple(units), None
    return tuple(units), Separation(len(ids), int(np.sum(winner == ids)), contrary)


def sketched_units(
    sketch: BandSketch, rule: str, edges: Sequence[float]
) -> tuple[tuple[UnitBands, ...], Separation | None]:
    """Return each unit's bands from a sketch, and, with classes, how well the units separate them."""
    if not sketch.rows:
        raise ValueError("the sketch has no rows to fit bands on")
    supervised = rule == CLASS_RELATIVE
    if supervised:
        if not sketch.labelled:
            raise ValueError("rule 'class-relative' needs class ids: `sketch.update(values, ids)`")
        require_strangers(sketch.class_counts(), sketch.names)
    units: list[UnitBands] = []
    contrary = 0.0
    for k, name in enumerate(sketch.names):
        summary = sketch.summary(k)
        units.append(unit_bands(name, rule, summary, edges))
        contrary += summary.contrary() if supervised else 0.0
    return tuple(units), Separation(sketch.rows, sketch.right, contrary) if supervised else None


def rule_for(ds: Dataset, column: str) -> str:
    """Return the rule whose edges `auto` chooses: class-relative where each class has a unit of its own."""
    label, width = ds.features.get(columns.LABEL), width_of(ds, column)
    own = isinstance(label, ClassLabel) and label.num_classes == width and column != columns.EMBEDDING
    return CLASS_RELATIVE if own else QUANTILE


def unit_bands(name: str, rule: str, summary: UnitSummary, edges: Sequence[float]) -> UnitBands:
    """Return the bands of one unit."""
    typical = summary.typical() if rule == CLASS_RELATIVE else None
    return UnitBands(name, cuts_of(rule, summary, edges), typical, summary.knots())


def require_strangers(counts: np.ndarray, names: Sequence[str]) -> None:
    """Raise `ValueError` naming a class without rows, or one that has them all."""
    columns.require_every_class(np.repeat(np.arange(len(counts)), np.minimum(counts, 1)), names)
    if len(counts) == 1:
        raise ValueError(
            f"all {counts[0]} rows are of class {names[0]!r}; class-relative bands need rows of another class: use "
            "'quantile', 'range', 'std' or 'edges'"
        )


def _summaries(values: np.ndarray, ids: np.ndarray | None, first: int) -> Iterator[tuple[int, ExactSummary]]:
    for offset in range(values.shape[1]):
        unit = np.ascontiguousarray(values[:, offset])
        member = np.zeros(len(unit), dtype=bool) if ids is None else ids == first + offset
        yield first + offset, ExactSummary.of(unit[~member], unit[member])
