"""What a folder of shards was made from; a run that differs in anything that changes the numbers is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, IterableDataset
from torch import nn

from hf_midrange.io.files import from_json, intact, read_json, sealed, write_atomically


MANIFEST = "manifest.json"
FORMAT = 1
"""Raised when the arithmetic or the files of extraction change, so that old shards are not mixed with new ones."""


def claim(folder: Path, key: Mapping[str, Any], *, is_main: bool) -> None:
    """Take `folder` for the run described by `key`, or find that it is that run's already.

    Raises:
        ValueError: if the folder holds another run; the message says what differs and what to do.
    """
    path = folder / MANIFEST
    wanted = json.loads(json.dumps({"format": FORMAT, **key}))
    if path.is_file():
        changes = differences(read_key(path), wanted)
        if changes:
            raise ValueError(
                f"{folder} holds the extraction of another run ({changes}); give another `output_dir`, "
                "or `overwrite=True` to delete its shards and start again"
            )
    elif is_main:
        versions = {name: version(name) for name in ("torch", "transformers", "timm", "datasets")}
        write_atomically(path, sealed({"key": wanted, "versions": versions}, indent=1))


def differences(there: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return in what the keys of two runs differ; nothing for the same run."""
    differing = [name for name in {**there, **now} if there.get(name) != now.get(name)]
    return "; ".join(f"{name}: {there.get(name)!r} there, {now.get(name)!r} now" for name in differing)


def read_key(path: Path) -> dict[str, Any]:
    """Return what a manifest says a folder of shards was made from."""
    what, remedy = "manifest of an extraction", "give another `output_dir`, or `overwrite=True` to start again there"
    found = read_json(path, what, remedy)
    with intact(path, what, remedy):
        return from_json(dict[str, Any], found["key"], "key")


def model_key(model: nn.Module) -> str:
    """Return the model's class and a sha256 of its architecture and every weight and buffer."""
    digest = hashlib.sha256(repr(model).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"{type(model).__name__} {digest.hexdigest()}"


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
