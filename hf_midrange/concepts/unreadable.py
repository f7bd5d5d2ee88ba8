"""Rows whose image or text cannot be read: found by number, and left out where the caller said so."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from datasets import Dataset, Image
from PIL import Image as pillow
from PIL import UnidentifiedImageError

from hf_midrange.concepts.pictures import rgb
from hf_midrange.concepts.source import TEXT, Source, spelled


UNREADABLE = (
    OSError, UnidentifiedImageError, SyntaxError, ValueError, TypeError, EOFError, MemoryError, ZeroDivisionError,
    struct.error, pillow.DecompressionBombError,
)  # fmt: skip
"""What Pillow raises on files it cannot read."""

SHOWN = 10
"""Rows that a warning names."""


def readable(ds: Dataset, sources: Sequence[Source]) -> Dataset:
    """Return the rows whose images and texts can be read by all sources; a warning lists the others.

    Raises:
        ValueError: if no row can be read.
    """
    bad = dict(unreadable_rows(ds, _columns(ds, sources)))
    if not bad:
        return ds
    shown = "; ".join(f"row {row}: {reason}" for row, reason in list(bad.items())[:SHOWN])
    if len(bad) == len(ds):
        raise ValueError(f"none of the {len(ds)} rows can be read ({shown})")
    more = ", ..." if len(bad) > SHOWN else ""
    warnings.warn(f"dropped {len(bad)} of {len(ds)} rows that cannot be read ({shown}{more})", stacklevel=4)
    return ds.select(np.setdiff1d(np.arange(len(ds)), list(bad)))


def refuse_first_unreadable(ds: Dataset, first: int) -> None:
    """Raise `ValueError` naming the first row of `ds` that cannot be read, counted from `first`; return if all can."""
    for row, reason in unreadable_rows(ds, ds.column_names):
        raise ValueError(
            f"row {first + row} cannot be read: {reason}; repair it, or drop such rows with on_error='skip'"
        )


def unreadable_rows(ds: Dataset, columns: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Yield the number of each row with an image or text that cannot be read, and why."""
    images = [name for name in columns if isinstance(ds.features[name], Image)]
    texts = [name for name in columns if spelled(ds.features[name], TEXT)]
    plain = ds.with_format(None).select_columns([*images, *texts])
    for name in images:
        plain = plain.cast_column(name, Image(decode=False))
    for number, row in enumerate(plain):
        reasons = [_fault_of_image(row[name]) for name in images]
        reasons += [f"column {name!r} is null" if row[name] is None else "" for name in texts]
        reason = next(filter(None, reasons), "")
        if reason:
            yield number, reason


def _columns(ds: Dataset, sources: Sequence[Source]) -> list[str]:
    wanted = {name for source in sources if not source.reads_null for name in source.inputs}
    return [name for name in ds.column_names if name in wanted]


def _fault_of_image(cell: Any) -> str:  # noqa: ANN401 - an undecoded cell
    if cell is None:
        return "the image is null"
    try:
        rgb(Image().decode_example(cell))
    except UNREADABLE as error:
        path = cell.get("path")
        return f"{f'file {path!r}: ' if path else ''}{type(error).__name__}: {error}"
    return ""
