"""A user's own data under the names and types that every step knows: image, text, label and group."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, Value

from hf_midrange import columns
from hf_midrange.columns import GROUP, IMAGE, LABEL, PSEUDO_GROUP, TEXT, TEXT_PAIR


IMAGES = (IMAGE, "img", "picture", "pixels")
TEXTS = ((TEXT, TEXT_PAIR), ("sentence", ""), ("premise", "hypothesis"), ("sentence1", "sentence2"))
LABELS = (LABEL, "labels", "target", "label_ids")
SHOWN = 8
"""Names that a message lists."""


def usual_columns(
    ds: Dataset, class_names: Sequence[str] | None = None, *, label: str | None = None, labelled: bool = True
) -> Dataset:
    """Return a dataset whose input, label and group have the names and types that every step knows.

    Args:
        ds: rows with an image or a text and a class: `image` or `img`; `text`, `sentence`, `premise` and `hypothesis`,
            or `sentence1` and `sentence2`; `label`, `labels`, `target`, or else the only column of classes.
        class_names: names of the model's classes in order. Labels that are text are encoded by them, ids take them
            where their column has no names.
        label: column of the classes, where it is none of these.
        labelled: whether rows without a column of classes are refused.

    Raises:
        KeyError: if there is no column of classes, or it cannot be told which.
        ValueError: if labels are not among the classes; both are listed.
        TypeError: if labels are neither names nor ids.
    """
    ds = ds.with_format(None)
    own = _label_column(ds, label, labelled)
    if LABEL in ds.column_names and own != LABEL:
        ds = ds.remove_columns(LABEL)  # another one was asked for
    names = {own: LABEL} if own else {}
    for old, new in {**names, **_input_columns(ds.features)}.items():
        if old != new:
            ds = ds.rename_column(old, new)
    return encoded_groups(encoded_labels(ds, class_names) if LABEL in ds.column_names else ds)


def encoded_groups(ds: Dataset) -> Dataset:
    """Return a dataset whose groups, where they are text, are a `ClassLabel`, in the order of their names."""
    for column in (GROUP, PSEUDO_GROUP):
        if column in ds.features and is_text(ds.features[column]):
            found = sorted({name for name in ds[column] if name is not None})
            ds = columns.with_columns(ds, {column: (_ids(ds, column, found), ClassLabel(names=found))})
    return ds


def encoded_labels(ds: Dataset, class_names: Sequence[str] | None, column: str = LABEL) -> Dataset:
    """Return a dataset whose labels are a `ClassLabel`; one that has it already comes back as it is.

    Raises:
        KeyError, ValueError, TypeError: as `usual_columns` does.
    """
    feature = ds.features[column]
    if isinstance(feature, ClassLabel):
        return ds
    known = list(class_names or ())
    named = len({*known}) == len(known)
    if is_text(feature):
        found = sorted({str(name) for name in ds[column]})
        if not named or not {*found} <= {*known}:
            raise ValueError(
                f"column {column!r} has the labels {_listed(found)}, the model the classes "
                f"{_listed(known)}; rename the labels, or give the model an `id2label` with these names"
            )
        return columns.with_columns(ds, {column: (_ids(ds, column, known), ClassLabel(names=known))})
    if not isinstance(feature, Value) or not feature.dtype.startswith(("int", "uint")) or not known:
        raise TypeError(f"column {column!r} must hold one class a row, by name or id, but is {feature}")
    ids = columns.numbers(ds, column)
    wrong = ids[~((ids >= 0) & (ids < len(known)))]
    if len(wrong):
        raise ValueError(
            f"column {column!r} has the id {wrong[0]:g}, but the model {len(known)} classes: {_listed(known)}"
        )
    return ds.cast_column(column, ClassLabel(names=known) if named else ClassLabel(num_classes=len(known)))


def _label_column(ds: Dataset, asked: str | None, needed: bool) -> str | None:
    if asked is not None:
        if asked not in ds.column_names:
            raise KeyError(f"there is no column {asked!r}; the columns are {ds.column_names}")
        return asked
    usual = next((name for name in LABELS if name in ds.column_names), None)
    if usual is not None:
        return usual
    classes = [name for name, feature in ds.features.items() if isinstance(feature, ClassLabel)]
    found = [name for name in classes if name not in (GROUP, PSEUDO_GROUP)]
    if len(found) != 1 and not needed:
        return None
    if len(found) != 1:
        why = f"{len(found)} columns of classes, {found}" if found else "no column of classes"
        raise KeyError(f"there is {why} among {ds.column_names}; name it `label`, or say which by `label=`")
    return found[0]


def _input_columns(features: Features) -> dict[str, str]:
    """Return old name -> new name of the image or the texts."""
    image = next((name for name in IMAGES if isinstance(features.get(name), Image)), None)
    if image is None and not any(name in features for name, _ in TEXTS):
        images = [name for name, feature in features.items() if isinstance(feature, Image)]
        image = images[0] if len(images) == 1 else None
    found = {} if image is None or IMAGE in features else {image: IMAGE}
    if TEXT in features:
        return found
    for first, second in TEXTS:
        if first in features and is_text(features[first]):
            pair = {second: TEXT_PAIR} if second in features and TEXT_PAIR not in features else {}
            return {**found, first: TEXT, **pair}
    return found


def is_text(feature: object) -> bool:
    """Return whether a column of this feature holds text."""
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string")


def _ids(ds: Dataset, column: str, names: Sequence[str]) -> pa.Array:
    where = {name: k for k, name in enumerate(names)}
    return pa.array([where.get(name) for name in ds[column]], pa.int64())


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(map(repr, names[:SHOWN]))}{more}" if names else "(none with a name)"
