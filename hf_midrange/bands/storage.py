"""Bands as one JSON file, in a folder or a Hub repository."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_midrange.bands.curve import Candidate, UnitSearch
from hf_midrange.bands.unit import UnitBands


if TYPE_CHECKING:
    from hf_midrange.bands.logit_bands import LogitBands

FILE, FORMAT = "bands.json", 2


def save(bands: LogitBands, folder: str | Path) -> Path:
    """Write `folder`/bands.json; floats keep every digit."""
    if not bands.fitted:
        raise ValueError("these bands are not fitted, so there is nothing to save; call `fit` first")
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_text(bands), encoding="utf-8")
    return path


def load(cls: type[LogitBands], folder_or_id: str | Path) -> LogitBands:
    """Read bands.json from a folder, or download it from a Hub repository."""
    path = Path(folder_or_id) / FILE
    if not path.is_file():
        if Path(folder_or_id).exists():
            raise FileNotFoundError(f"{folder_or_id} has no {FILE}; `LogitBands.save_pretrained` writes it")
        path = _download(str(folder_or_id))
    return _bands(cls, json.loads(path.read_text(encoding="utf-8")), path)


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
    return json.dumps({"format": FORMAT, **asdict(bands)}, allow_nan=False) + "\n"


def _bands(cls: type[LogitBands], saved: Mapping[str, Any], path: Path) -> LogitBands:
    if saved.get("format") == 1:  # `column` and `units` of the first format are `units` and `fitted` now
        saved = {**saved, "n_bands": None, "units": saved["column"], "fitted": saved["units"]}
    elif saved.get("format") != FORMAT:
        raise ValueError(f"{path} has format {saved.get('format')!r}; this version reads formats 1 and {FORMAT}")
    fitted = tuple(
        UnitBands(
            unit["name"],
            _floats(unit["cuts"]),
            _pair(unit["typical"]),
            _floats(unit["knots"]) or (),
            _search(unit.get("search")),
        )
        for unit in saved["fitted"]
    )
    return cls(saved["rule"], _floats(saved["edges"]), saved["n_bands"], saved["units"], fitted)


def _search(saved: dict[str, Any] | None) -> UnitSearch | None:
    if saved is None:
        return None
    tried = tuple(Candidate(**{**one, "edges": tuple(one["edges"])}) for one in saved["candidates"])
    return UnitSearch(**{**saved, "candidates": tried})


def _floats(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def _pair(values: list[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def _download(repo_id: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(hf_hub_download(repo_id, FILE, repo_type="dataset"))
    except RepositoryNotFoundError:
        return Path(hf_hub_download(repo_id, FILE))
