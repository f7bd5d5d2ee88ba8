"""The long form: one row per sample and class logit, in words, for reading in a viewer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, Image, List, Value

from hf_midrange import columns


MOST_UNITS = 8
LONGEST_SIDE = 128
"""Pixels; larger images are shown as thumbnails."""
_ROWS = 100
"""Rows that are put into words at once; their images are decoded together."""


def long_form(ds: Dataset, units: Sequence[int], file: Path) -> Dataset:
    """Return the long form of curated rows: each comes once for each of some class logits, one after the other.

    Args:
        ds: curated rows.
        units: the class logits to show.
        file: arrow file that it is written to.
    """
    return ds.with_format("arrow").map(
        _InWords(ds.features, tuple(units)),
        with_indices=True,
        batched=True,
        batch_size=_ROWS,
        remove_columns=ds.column_names,
        features=_long_features(ds.features),
        cache_file_name=str(file),
        load_from_cache_file=False,
        desc="Putting logits into words",
    )


@dataclass(frozen=True)
class _InWords:
    """The long form of a table of rows."""

    features: Features
    units: tuple[int, ...]

    def __call__(self, table: pa.Table, numbers: list[int]) -> pa.Table:
        features, units = self.features, list(self.units)
        rows = pa.array(np.repeat(np.arange(len(table)), len(units)))
        names = columns.class_label(features).names
        out: dict[str, Any] = {
            "row": pa.array(numbers).take(rows),
            "unit": pa.array([names[unit] for unit in units] * len(table), pa.string()),
            "logit": pa.array(_entries(table, columns.LOGITS, units)),
            "concepts": _concepts(table, features).take(rows),
            "kept": table[columns.KEEP].take(rows),
        }
        for name in (columns.TEXT, columns.TEXT_PAIR, columns.WEIGHT, columns.REASON):
            if name in features:
                out[name] = table[name].take(rows)
        for name in (columns.LABEL, columns.GROUP, columns.PSEUDO_GROUP):
            if name in features:
                out[name] = pa.array(_names(table[name].to_pylist(), features[name].names), pa.string()).take(rows)
        if _bands_are_of_classes(features):
            named = columns.facts(features, columns.BAND).get("bands", ("low", "mid", "high"))
            bands = _names(_entries(table, columns.BAND, units), named)
            out["quantile"] = pa.array(_entries(table, columns.QUANTILE, units))
            out["band"] = pa.array([name or "undefined" for name in bands], pa.string())
        if isinstance(features.get(columns.IMAGE), Image):
            small = [thumbnail(picture) for picture in table[columns.IMAGE].to_pylist()]
            out[columns.IMAGE] = pa.array(small, Image().pa_type).take(rows)
        schema = _long_features(features).arrow_schema
        return pa.table(out).select(schema.names).cast(schema)


def thumbnail(picture: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a stored image at most 128 pixels wide and high; smaller ones come back byte for byte."""
    if picture is None:
        return None
    image = Image(mode="RGB").decode_example(picture)
    if max(image.size) <= LONGEST_SIDE:
        return picture
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    out = io.BytesIO()
    image.save(out, format="JPEG", quality=85)
    return {"bytes": out.getvalue(), "path": None}


def _long_features(features: Features) -> Features:
    words = [name for name in (columns.TEXT, columns.TEXT_PAIR) if name in features]
    return Features(
        {
            "row": Value("int64"),
            **({columns.IMAGE: Image()} if isinstance(features.get(columns.IMAGE), Image) else {}),
            **dict.fromkeys(words, Value("string")),
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


def units_to_show(ds: Dataset, findings: Dataset | None) -> list[int]:
    """Return at most eight units: of many those with findings, confounders first, or else the largest classes."""
    classes = columns.class_label(ds.features).num_classes
    found: list[int] = []
    if findings is not None and classes > MOST_UNITS:
        confounded = [unit for unit, is_one in zip(findings["unit"], findings["confounder"], strict=True) if is_one]
        found = [unit for unit in dict.fromkeys([*confounded, *findings["unit"]]) if 0 <= unit < classes]
    counts = np.bincount(columns.labels(ds), minlength=classes)
    return sorted((found or np.argsort(-counts, kind="stable").tolist())[:MOST_UNITS])


def _bands_are_of_classes(features: Features) -> bool:
    """Return whether there are bands, one per class logit: the bands of other units have no place in these rows."""
    return columns.BAND in features and features[columns.BAND].length == columns.class_label(features).num_classes


def _entries(table: pa.Table, column: str, units: list[int]) -> np.ndarray:
    """Return some entries of a vector column, row after row, of shape `(n * len(units),)`."""
    return np.ascontiguousarray(np.stack(table[column].to_numpy())[:, units]).reshape(-1)


def _names(ids: Any, names: Sequence[str]) -> list[str | None]:  # noqa: ANN401 - whole numbers or None
    return [None if k is None or not 0 <= k < len(names) else names[int(k)] for k in ids]


def _concepts(table: pa.Table, features: Features) -> pa.Array:
    found: list[list[str]] = [[] for _ in range(len(table))]
    for column in columns.concept_columns(features):
        source, names = column.removeprefix(columns.CONCEPTS_PREFIX), columns.vocabulary(features, column)
        for words, ids in zip(found, table[column].to_pylist(), strict=True):
            words += [f"{source}: {names[k]}" for k in ids or ()]
    return pa.array(found, pa.list_(pa.string()))
