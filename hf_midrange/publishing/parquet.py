"""Parquet files of bounded size, written a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image
from datasets.table import embed_table_storage


ROWS, ROWS_OF_IMAGES = 1000, 100
"""Rows read at once, and rows of one row group: what a viewer fetches to show a page."""


def write_shards(
    tables: Iterable[pa.Table], features: Features, folder: Path, split: str, max_bytes: int
) -> tuple[list[Path], int]:
    """Write `folder`/`split`-00000-of-0000N.parquet from a stream of tables; return the files and the number of rows.

    A file is closed with the batch that takes it to `max_bytes`. A split without rows still gets one file, so that its
    features are kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    schema, rows = features.arrow_schema, 0
    drafts: list[Path] = []
    writer: pq.ParquetWriter | None = None
    for table in tables:
        if writer is None:
            drafts.append(folder / f"{split}.{len(drafts)}.draft")
            writer = _writer(drafts[-1], schema)
        writer.write_table(table.select(schema.names).cast(schema))
        rows += len(table)
        if drafts[-1].stat().st_size >= max_bytes:
            writer.close()
            writer = None
    if writer is None and not drafts:
        drafts.append(folder / f"{split}.0.draft")
        writer = _writer(drafts[0], schema)
    if writer is not None:
        writer.close()
    names = [folder / f"{split}-{k:05d}-of-{len(drafts):05d}.parquet" for k in range(len(drafts))]
    return [draft.rename(name) for draft, name in zip(drafts, names, strict=True)], rows


def batches(ds: Dataset) -> Iterator[pa.Table]:
    """Yield the rows of `ds` as tables in order, images and other files embedded, whatever format is set."""
    features = ds.features
    size = ROWS_OF_IMAGES if any(isinstance(feature, Image) for feature in features.values()) else ROWS
    for table in ds.with_format("arrow").iter(batch_size=size):
        # The feature types live in the metadata; without it nothing would be embedded.
        yield embed_table_storage(table.select(list(features)).cast(features.arrow_schema))


def _writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    # Content-defined chunks let a re-upload after small changes share most of its storage.
    return pq.ParquetWriter(path, schema, use_content_defined_chunking=True, write_page_index=True)
