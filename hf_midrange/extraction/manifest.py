"""What a folder of shards was made from; a run that differs in anything that changes the numbers is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset, IterableDataset

from hf_midrange.io.files import from_json, intact, read_json, write_atomically


MANIFEST = "manifest.json"
FORMAT = 2
"""Raised when the arithmetic or the files of extraction change, so that old shards are not mixed with new ones."""

ELSEWHERE = "give another `output_dir`, or `overwrite=True` to start again there"


@dataclass(frozen=True)
class Manifest:
    """What a run was made from.

    Attributes:
        key: everything that changes the numbers.
        made_by: facts of the model, for the features of the columns.
        versions: of the libraries, for the reader.
    """

    key: dict[str, Any]
    made_by: dict[str, Any]
    versions: dict[str, str]


def claim(folder: Path, key: Mapping[str, Any], made_by: dict[str, Any], *, is_main: bool) -> None:
    """Take `folder` for the run described by `key`, or find that it is that run's already.

    Raises:
        ValueError: if the folder holds another run; the message says what differs and what to do.
    """
    path = folder / MANIFEST
    wanted = json.loads(json.dumps({"format": FORMAT, **key}))
    if path.is_file():
        changes = differences(read_manifest(path).key, wanted)
        if changes:
            raise ValueError(
                f"{folder} holds the extraction of another run ({changes}); give another `output_dir`, "
                "or `overwrite=True` to delete its shards and start again"
            )
    elif is_main:
        versions = {name: version(name) for name in ("torch", "transformers", "timm", "datasets")}
        write_atomically(path, json.dumps(asdict(Manifest(wanted, made_by, versions)), indent=1))


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in what the keys of two runs differ; nothing for the same run."""
    differing = [name for name in {**there, **now} if there.get(name) != now.get(name)]
    return "; ".join(f"{name}: {there.get(name)!r} there, {now.get(name)!r} now" for name in differing)


def read_manifest(path: Path, remedy: str = ELSEWHERE) -> Manifest:
    """Return what a folder of shards was made from.

    Raises:
        DamagedFileError: if the file is no manifest; the message ends with `remedy`.
    """
    what = "manifest of an extraction"
    found = read_json(path, what, remedy)
    with intact(path, what, remedy):
        return from_json(Manifest, {name: found.get(name, {}) for name in ("key", "made_by", "versions")})


def data_key(dataset: Dataset | IterableDataset, columns: list[str], shard_size: int, run_id: str | None) -> str:
    """Return what the rows are known by: the caller's name, the fingerprint, or for a stream its first shard."""
    if run_id is not None:
        return f"run_id {run_id}"
    if isinstance(dataset, Dataset):
        return f"fingerprint {dataset._fingerprint}"
    digest = hashlib.sha256(repr(dataset.features).encode())
    for row in dataset.decode(False).select_columns(columns).take(shard_size):
        for content in _contents(row):
            digest.update(content)
    return f"first shard {digest.hexdigest()}"


def _contents(row: Mapping[str, Any]) -> Iterator[bytes]:
    for value in row.values():
        image = isinstance(value, Mapping)
        yield (image and value.get("bytes")) or repr(value.get("path") if image else value).encode()
