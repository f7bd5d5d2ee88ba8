"""Shards that nodes wrote into folders of their own, brought together by what the manifests say."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from hf_midrange.extraction.manifest import MANIFEST, differences, read_key
from hf_midrange.io.files import DamagedFileError
from hf_midrange.io.folders import only_writer
from hf_midrange.io.shard_records import shard_paths, verified


def merge_shards(folders: Sequence[str | PathLike[str]], output_dir: str | PathLike[str]) -> Path:
    """Bring the shards of one extraction that lie in several folders into one, and return it.

    Each of several nodes without a shared disk runs `extract(..., output_dir=its_own, shared=False)`; its folder is
    then copied to one machine. There `extract(..., output_dir=merged)` with the same arguments finds all shards done
    and returns the dataset, and `bands.read_shards(merged)` the columns alone. Files are linked where they can be.

    Args:
        folders: the folders of the nodes, all of the same run; a shard may lie in several.
        output_dir: the folder to make, or an earlier, unfinished merge of the same run.

    Raises:
        DamagedFileError: if a shard is not what was written.
        FileNotFoundError: if a shard is in none of the folders, or a folder has no manifest.
        ValueError: if the folders hold different runs, or there are none.
    """
    places, target = [Path(folder) for folder in folders], Path(output_dir)
    if not places:
        raise ValueError("there are no folders to merge; give those that `extract(..., shared=False)` wrote")
    key = _common_key(places)
    where: dict[int, Path] = {}
    for place in places:
        for record in sorted(place.glob("shard-*.json")):
            where.setdefault(int(record.stem.removeprefix("shard-")), place)
    _refuse_missing(where, key, places)
    with only_writer(target):
        if (target / MANIFEST).is_file():
            _common_key([places[0], target])
        for number, place in sorted(where.items()):
            if not _is_there(target, number):
                verified(place, number)
                for source, copy in zip(shard_paths(place, number), shard_paths(target, number), strict=True):
                    _link(source, copy)
        _link(places[0] / MANIFEST, target / MANIFEST)
    return target


def _common_key(places: Sequence[Path]) -> dict[str, Any]:
    for place in places:
        if not (place / MANIFEST).is_file():
            raise FileNotFoundError(f"{place} has no {MANIFEST}; `extract(..., shared=False)` writes one")
    first, *others = [read_key(place / MANIFEST) for place in places]
    for place, other in zip(places[1:], others, strict=True):
        changes = differences(first, other)
        if changes:
            raise ValueError(f"{places[0]} and {place} hold different extractions ({changes}); merge those of one run")
    return first


def _refuse_missing(where: dict[int, Path], key: dict[str, Any], places: Sequence[Path]) -> None:
    shards = -(-key["rows"] // key["shard_size"]) if key.get("rows") else max(where, default=0) + 1
    missing = sorted(set(range(shards)) - set(where))
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {shards} shards, the first number {missing[0]}, are in none of "
            f"{', '.join(map(str, places))}; run the extraction again on the node that was to compute them, with the "
            "same arguments, or add its folder"
        )


def _is_there(target: Path, number: int) -> bool:
    try:
        verified(target, number)
    except (FileNotFoundError, DamagedFileError):
        return False
    return True


def _link(source: Path, copy: Path) -> None:
    """Make `copy` the same file as `source`, or a copy of it on another disk; it is there whole or not at all."""
    draft = copy.with_name(f"{copy.name}.{os.getpid()}.tmp")
    draft.unlink(missing_ok=True)
    try:
        os.link(source, draft)
    except OSError:
        shutil.copyfile(source, draft)
    draft.replace(copy)
