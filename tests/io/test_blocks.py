"""Wide columns read where they lie: what indexing gives is what the whole column holds, however it is stored."""

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset, concatenate_datasets

from hf_midrange import columns
from hf_midrange.io import blocks
from hf_midrange.io.blocks import finite_vectors


@pytest.fixture(autouse=True)
def in_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "HELD", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 2000)


def numbered(first, last):
    values = np.arange(4.0 * first, 4 * last, dtype=np.float32).reshape(-1, 4)
    return columns.with_columns(Dataset.from_dict({"row": range(first, last)}), {"v": (values, columns.vector(4))})


STORED = {
    "in pieces": lambda: concatenate_datasets([numbered(0, 90), numbered(90, 91), numbered(91, 300)]),
    "a slice": lambda: concatenate_datasets([numbered(-50, 120), numbered(120, 400)]).select(range(50, 350)),
    "mapped": lambda: numbered(0, 300).select(np.random.default_rng(0).permutation(300)),
    "lists of any length": lambda: Dataset.from_dict({"v": numbered(0, 300).with_format("numpy")["v"][:].tolist()}),
}


@pytest.mark.parametrize("stored", STORED)
def test_rows_are_those_of_the_whole_column(stored):
    ds = STORED[stored]()
    whole, found = columns.matrix(ds, "v"), finite_vectors(ds, "v")
    assert whole.shape == found.shape == (300, 4)
    for rows in (
        slice(None), slice(80, 100), slice(90, 91), slice(10, 200, 7), slice(200, 10, -3), slice(5, 5),
        np.arange(85, 95), np.array([94, 3, 3, 299, 0]), np.array([86, 85, 90, 88]), np.arange(300) % 3 == 0,
    ):  # fmt: skip
        np.testing.assert_array_equal(found[rows], whole[rows])


def test_consecutive_rows_of_one_piece_are_not_copied():
    found = finite_vectors(numbered(0, 300), "v")
    whole = found[:]
    assert np.shares_memory(found[20:40], whole)
    assert np.shares_memory(found[np.arange(20, 40)], whole)


def test_null_rows_are_refused():
    ds = Dataset(pa.table({"v": pa.array([[1.0, 2.0], None, [3.0, 4.0]], pa.list_(pa.float32(), 2))}))
    with pytest.raises(ValueError, match="null in row"):
        finite_vectors(ds, "v")
