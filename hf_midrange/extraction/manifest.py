"""What a folder of shards was made from; a run that differs in anything that changes the numbers is refused."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, IterableDataset

from hf_midrange.io.files import from_json, intact, read_json, to_json, write_atomically


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
        write_atomically(path, to_json(asdict(Manifest(wanted, made_by, versions)), indent=1))


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
    """Return what the rows are known by: the caller's name, the fingerprint, or for a stream its first shard.

    Image files that rows point to count with their size and the time of their last change.
    """
    if run_id is not None:
        return f"run_id {run_id}"
    digest = hashlib.sha256(repr(dataset.features).encode())
    if isinstance(dataset, IterableDataset):
        for row in dataset.decode(False).select_columns(columns).take(shard_size):
            for value in row.values():
                digest.update(_content(value))
        return f"first shard {digest.hexdigest()}"
    files = [name for name in columns if isinstance(dataset.features[name], Image)]
    outside = False
    for name in files:
        for path in _paths(dataset, name):
            outside = True
            digest.update(_file_state(path))
    return f"fingerprint {dataset._fingerprint}{f', files {digest.hexdigest()[:16]}' if outside else ''}"


def _content(value: Any) -> bytes:  # noqa: ANN401 - an undecoded cell
    if not isinstance(value, Mapping):
        return repr(value).encode()
    return value.get("bytes") or _file_state(value.get("path"))


def _paths(dataset: Dataset, column: str) -> Iterator[str]:
    """Yield the paths of images whose bytes the dataset does not hold."""
    arrow = dataset.with_format("arrow").select_columns([column])
    for table in arrow.iter(batch_size=10_000):
        cells = table[column].combine_chunks()
        held, paths = cells.field("bytes").is_valid().to_numpy(False), cells.field("path")
        yield from (path for path in paths.filter(~held).to_pylist() if path is not None)


def _file_state(path: str | None) -> bytes:
    """Return a path with the size and time of the file, where it is one of this machine."""
    try:
        found = os.stat(path or "")
    except (OSError, ValueError):
        return repr(path).encode()
    return f"{path!r} {found.st_size} {found.st_mtime_ns}".encode()
