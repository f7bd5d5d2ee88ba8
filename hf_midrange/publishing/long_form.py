"""The long form: one row per sample and class logit, in words, for reading in a viewer."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as PILImage

from hf_midrange import columns


MOST_UNITS = 8
LONGEST_SIDE = 128
"""Pixels; larger images are shown as thumbnails."""
BANDS = ("low", "mid", "high")


def units_that_matter(ds: Dataset, findings: Dataset | None) -> list[int]:
    """Return at most eight units: those with findings, most certain first; without findings the largest classes."""
    classes = columns.class_label(ds.features).num_classes
    if findings is not None and len(findings):
        confounded = [unit for unit, is_one in zip(findings["unit"], findings["confounder"], strict=True) if is_one]
        named = list(dict.fromkeys([*confounded, *findings["unit"]]))
        if classes > MOST_UNITS:
            return sorted(unit for unit in named[:MOST_UNITS] if 0 <= unit < classes)
    if classes <= MOST_UNITS:
        return list(range(classes))
    counts = np.bincount(columns.labels(ds), minlength=classes)
    return sorted(int(k) for k in np.argsort(-counts, kind="stable")[:MOST_UNITS])


def long_features(features: Features) -> Features:
    """Return the features of the long form of a curated data set."""
    inputs = [name for name in (columns.TEXT, columns.TEXT_PAIR) if name in features]
    return Features(
        {
            "row": Value("int64"),
            **({columns.IMAGE: Image()} if isinstance(features.get(columns.IMAGE), Image) else {}),
            **dict.fromkeys(inputs, Value("string")),
            "label": Value("string"),
            "unit": Value("string"),
            "logit": Value("float32"),
            **({"quantile": Value("float32"), "band": Value("string")} if _bands_are_of_classes(features) else {}),
            "concepts": List(Value("string")),
            **({"group": Value("string")} if columns.GROUP in features else {}),
            "pseudo_group": Value("string"),
            "kept": Value("bool"),
            "weight": Value("float32"),
            "reason": Value("string"),
        }
    )


def long_tables(
    tables: Iterator[pa.Table], features: Features, units: Sequence[int], band_names: Sequence[str] = BANDS
) -> Iterator[pa.Table]:
    """Yield the long form of a stream of tables.

    Args:
        tables: curated rows in order, images embedded.
        features: of those tables.
        units: the class logits to show, `U` of them: each row comes `U` times, one after the other.
        band_names: from the bottom up.
    """
    schema = long_features(features).arrow_schema
    start = 0
    for table in tables:
        yield _long(table, features, list(units), band_names, start).select(schema.names).cast(schema)
        start += len(table)


def _long(table: pa.Table, features: Features, units: list[int], band_names: Sequence[str], start: int) -> pa.Table:
    n, repeat = len(table), len(units)
    rows = np.repeat(np.arange(n), repeat)
    unit_names = columns.class_label(features).names

    def each(values: Any) -> pa.Array:  # noqa: ANN401 - an arrow column
        return pa.concat_arrays(values.chunks).take(pa.array(rows)) if n else pa.array([], values.type)

    out: dict[str, Any] = {
        "row": pa.array(start + rows),
        "unit": pa.array([unit_names[unit] for unit in units] * n, pa.string()),
        "logit": pa.array(_some(table, columns.LOGITS, units)),
        "concepts": _concepts(table, features).take(pa.array(rows)),
        "kept": each(table[columns.KEEP]),
        "weight": each(table[columns.WEIGHT]),
        "reason": each(table[columns.REASON]),
    }
    for name in (columns.LABEL, columns.GROUP, columns.PSEUDO_GROUP):
        if name in features:
            out[name] = _words(table[name], features[name].names).take(pa.array(rows))
    for name in (columns.TEXT, columns.TEXT_PAIR):
        if name in features:
            out[name] = each(table[name])
    if _bands_are_of_classes(features):
        out["quantile"] = pa.array(_some(table, columns.QUANTILE, units))
        out["band"] = pa.array([_band(b, band_names) for b in _some(table, columns.BAND, units)], pa.string())
    if isinstance(features.get(columns.IMAGE), Image):
        small = [thumbnail(picture) for picture in table[columns.IMAGE].to_pylist()]
        kind = Image().pa_type
        out[columns.IMAGE] = pa.array(small, kind).take(pa.array(rows)) if n else pa.array([], kind)
    return pa.table(out)


def thumbnail(picture: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a stored image at most 128 pixels wide and high; smaller ones come back byte for byte."""
    if picture is None or picture["bytes"] is None:
        return picture
    with PILImage.open(io.BytesIO(picture["bytes"])) as image:
        if max(image.size) <= LONGEST_SIDE:
            return {"bytes": picture["bytes"], "path": None}
        image.draft("RGB", (2 * LONGEST_SIDE, 2 * LONGEST_SIDE))  # lets a JPEG be decoded at a smaller size
        small = image.convert("RGB")
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    out = io.BytesIO()
    small.save(out, format="JPEG", quality=85)
    return {"bytes": out.getvalue(), "path": None}


def _bands_are_of_classes(features: Features) -> bool:
    """Return whether there are bands, one per class logit: the bands of other units have no place in these rows."""
    return columns.BAND in features and features[columns.BAND].length == columns.class_label(features).num_classes


def _some(table: pa.Table, column: str, units: list[int]) -> np.ndarray:
    """Return some entries of a vector column, row after row, of shape `(n * len(units),)`."""
    values = np.stack(table[column].to_numpy()) if len(table) else np.empty((0, max(units) + 1), np.float32)
    return np.ascontiguousarray(values[:, units]).reshape(-1)


def _words(column: pa.ChunkedArray, names: list[str]) -> pa.Array:
    ids = column.to_numpy()
    known = [None if k is None or not 0 <= k < len(names) else names[int(k)] for k in ids]
    return pa.array(known, pa.string())


def _concepts(table: pa.Table, features: Features) -> pa.Array:
    found: list[list[str]] = [[] for _ in range(len(table))]
    for column in columns.concept_columns(features):
        source, names = column.removeprefix(columns.CONCEPTS_PREFIX), columns.vocabulary(features, column)
        for words, ids in zip(found, table[column].to_pylist(), strict=True):
            words += [f"{source}: {names[k]}" for k in ids or ()]
    return pa.array(found, pa.list_(pa.string()))


def _band(band: int, names: Sequence[str]) -> str:
    return names[int(band)] if 0 <= band < len(names) else "undefined"
