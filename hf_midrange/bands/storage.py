"""Bands as one JSON file, in a folder or a Hub repository."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_midrange.bands.unit import UnitBands
from hf_midrange.io.files import from_json, intact, read_sealed, sealed, write_atomically


if TYPE_CHECKING:
    from hf_midrange.bands.logit_bands import LogitBands

FILE, FORMAT = "bands.json", 2


def save(bands: LogitBands, folder: str | Path) -> Path:
    """Write `folder`/bands.json; floats keep every digit."""
    if not bands.fitted:
        raise ValueError("these bands are not fitted, so there is nothing to save; call `fit` first")
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, _text(bands))
    return path


def load(cls: type[LogitBands], folder_or_id: str | Path) -> LogitBands:
    """Read bands.json from a folder, or download it from a Hub repository.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is not what was written.
    """
    path = Path(folder_or_id) / FILE
    if not path.is_file():
        if Path(folder_or_id).exists():
            raise FileNotFoundError(f"{folder_or_id} has no {FILE}; `LogitBands.save_pretrained` writes it")
        path = _download(str(folder_or_id))
    what, remedy = "file of bands", "fit the bands again and save them"
    saved = read_sealed(path, what, remedy)
    with intact(path, what, remedy):
        return _bands(cls, saved, path)


def push(bands: LogitBands, repo_id: str, repo_type: str, private: bool | None) -> str:
    """Upload bands.json; return the commit's address."""
    from huggingface_hub import HfApi

    if not bands.fitted:
        raise ValueError("these bands are not fitted, so there is nothing to push; call `fit` first")
    api = HfApi()
    api.create_repo(repo_id, repo_type=repo_type, private=private, exist_ok=True)
    commit = api.upload_file(
        path_or_fileobj=_text(bands).encode(),
        path_in_repo=FILE,
        repo_id=repo_id,
        repo_type=repo_type,
        commit_message="Add fitted bands",
    )
    return str(commit.commit_url)


def _text(bands: LogitBands) -> str:
    return sealed({"format": FORMAT, **asdict(bands)}, allow_nan=False) + "\n"


def _bands(cls: type[LogitBands], saved: Mapping[str, Any], path: Path) -> LogitBands:
    if saved.get("format") == 1:  # `column` and `units` of the first format are `units` and `fitted` now
        saved = {**saved, "n_bands": None, "units": saved["column"], "fitted": saved["units"]}
        saved.pop("column")
    elif saved.get("format") != FORMAT:
        raise ValueError(f"{path} has format {saved.get('format')!r}; this version reads formats 1 and {FORMAT}")
    bands = from_json(cls, {name: value for name, value in saved.items() if name != "format"})
    for unit in bands.fitted:
        _refuse_other_cuts(unit, len(bands.names) - 1)
    if not bands.fitted:
        raise ValueError("it has no units")
    return bands


def _refuse_other_cuts(unit: UnitBands, wanted: int) -> None:
    numbers = [*(unit.cuts or ()), *(unit.typical or ()), *unit.knots]
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"unit {unit.name!r} has cuts that are no numbers")
    if unit.cuts is not None and (len(unit.cuts) != wanted or list(unit.cuts) != sorted(unit.cuts)):
        raise ValueError(f"unit {unit.name!r} has the cuts {unit.cuts}, where {wanted} increasing ones are expected")
    if list(unit.knots) != sorted(unit.knots):
        raise ValueError(f"the knots of unit {unit.name!r} are not in order")


def _download(repo_id: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(hf_hub_download(repo_id, FILE, repo_type="dataset"))
    except RepositoryNotFoundError:
        return Path(hf_hub_download(repo_id, FILE))
