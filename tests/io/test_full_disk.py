"""A full disk while `datasets` reads a file into its cache is told as that, and not blamed on the file."""

import errno
import os

import pytest
from datasets.exceptions import DatasetGenerationError

from hf_midrange.io import datasets


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_the_cache_is_full(code, tmp_path, monkeypatch):
    def full(*_, **__):
        try:
            raise OSError(code, os.strerror(code))
        except OSError as cause:
            raise DatasetGenerationError("An error occurred while generating the dataset") from cause

    (tmp_path / "rows.csv").write_text("text,label\na,b\n")
    monkeypatch.setattr(datasets, "load_dataset", full)
    with pytest.raises(OSError, match="the disk is full .* free some space") as told:
        datasets.read_dataset(str(tmp_path / "rows.csv"))
    assert told.value.errno == code
    assert "repair" not in str(told.value)


def test_a_file_that_cannot_be_read_is_still_named(tmp_path):
    (tmp_path / "rows.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"rows\.json cannot be read .*; repair it"):
        datasets.read_dataset(str(tmp_path / "rows.json"))
