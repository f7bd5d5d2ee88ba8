"""Datasets on disk, as a command line names them: one reader, one writer, and checksums between them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from datasets import (
    ClassLabel,
    Dataset,
    DatasetDict,
    are_progress_bars_disabled,
    config,
    disable_progress_bars,
    enable_progress_bars,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DatasetGenerationError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

from hf_midrange import columns
from hf_midrange.io.files import (
    DamagedFileError,
    explained,
    from_json,
    intact,
    read_json,
    sha256_of,
    to_json,
    write_atomically,
)


READERS = {".csv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}

VALUES, VALUES_A_BYTE = 20_000_000, 100
"""Values that are taken from a parquet file of any size, and for each of its bytes."""

_SAVED_SPLITS, _SAVED_DATASET = DATASET_MARKERS = "dataset_dict.json", "state.json"
"""Files that tell a folder with splits, or with rows, from any other folder."""

CHECKSUMS = "checksums.json"
"""Beside a saved dataset: the sha256 of each of its files."""
_WRITE_AGAIN = "write the dataset again with the command that wrote it"
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def read_dataset(
    path: str, split: str | None = None, *, links: Path | None = None, encode: bool = True
) -> Dataset | DatasetDict:
    """Return the dataset that `path` names.

    `path` is, in this order: a folder written by `save_to_disk`, any other folder (read as an image folder, one
    sub-folder per class or a `metadata.csv`), a csv, json, jsonl or parquet file, or a Hub id. Files of rows know no
    class names, so a `label` or `group` column of theirs becomes a `ClassLabel` of the values that occur, sorted.

    A dataset that `write_dataset` wrote is compared with its checksums: every byte is read once.

    Args:
        path: what to read.
        split: one of its splits; None: all.
        links: folder in which a saved dataset is linked to and then read, so that what `datasets` caches of it lands
            there; its own folder may then be read-only and stays as it is.
        encode: make a `ClassLabel` of the `label` and `group` of a file of rows; else they are what the file says.

    Raises:
        FileNotFoundError: if nothing of the kind is found, or a file of a saved dataset is missing.
        ValueError: if a file is of another kind or not what was written, or `split` is not among the splits.
    """
    if not path.strip():
        raise FileNotFoundError("the dataset has an empty name; give a folder, a file, or a Hub id")
    place = Path(path)
    if place.is_dir():
        ds = _read_folder(place, links)
    elif place.is_file():
        ds = _encoded(_read_file(place)) if encode else _read_file(place)
    else:
        ds = _read_hub(path)
    return ds if split is None else pick_split(ds, split, path)


def one_split(ds: Dataset | DatasetDict, path: str) -> Dataset:
    """Return the only split of `ds`, or raise `ValueError` naming the splits to choose from."""
    if isinstance(ds, Dataset):
        return ds
    if len(ds) == 1:
        return next(iter(ds.values()))
    raise ValueError(f"{path} has the splits {', '.join(ds)}; choose one with --split")


def write_dataset(ds: Dataset | DatasetDict, output: Path) -> None:
    """Save `ds` in the folder `output`, so that `read_dataset` gives it back; nothing else there is deleted."""
    for marker in (*DATASET_MARKERS, CHECKSUMS):  # of an earlier dataset: both at once could not be told apart
        (output / marker).unlink(missing_ok=True)
    empty = isinstance(ds, Dataset) and len(ds) == 0  # such as findings; by itself it is saved without a file
    with explained(output), without_bars():
        ds.save_to_disk(output, num_shards=1 if empty else None)
    files = {file.relative_to(output).as_posix(): sha256_of(file) for file in files_of(output)}
    write_atomically(output / CHECKSUMS, to_json({"files": files}, indent=1))


@contextmanager
def without_bars() -> Iterator[None]:
    """Let `datasets` draw no bars for copying rows."""
    drawn = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if drawn:
            enable_progress_bars()


def files_of(folder: Path) -> list[Path]:
    """Return the files of the dataset saved in a folder, its checksums among them; none where there is no dataset."""
    files = [folder / name for name in (_SAVED_SPLITS, CHECKSUMS)]
    for state in (folder / _SAVED_DATASET, *folder.glob(f"*/{_SAVED_DATASET}")):
        if state.is_file() and (state.parent == folder or files[0].is_file()):
            files += [*state.parent.glob("data-*-of-*.arrow"), state.with_name("dataset_info.json"), state]
    return [file for file in files if file.is_file()]


def _verify(folder: Path) -> None:
    """Raise unless every file of a saved dataset is what was written; one saved by others has no checksums."""
    path, what = folder / CHECKSUMS, "list of checksums"
    if not path.is_file():
        return
    with intact(path, what, _WRITE_AGAIN):
        expected = from_json(dict[str, str], read_json(path, what, _WRITE_AGAIN)["files"], "files")
    for name, checksum in expected.items():
        file = folder / name
        if not file.is_file():
            raise FileNotFoundError(f"{file} is missing; {_WRITE_AGAIN}")
        if sha256_of(file) != checksum:
            raise DamagedFileError(
                f"{file} is not what was written (its checksum is another); {_WRITE_AGAIN}, or, if it was changed on "
                f"purpose, delete {path}"
            )


def _refuse_elsewhere(folder: Path) -> None:
    """Raise if a saved dataset names files of rows that do not lie beside the file that names them."""
    for state in (folder / _SAVED_DATASET, *folder.glob(f"*/{_SAVED_DATASET}")):
        if not state.is_file():
            continue
        with intact(state, "saved dataset", _WRITE_AGAIN):
            listed = json.loads(state.read_text(encoding="utf-8"))["_data_files"]
            names = [from_json(dict[str, str], each)["filename"] for each in from_json(list[Any], listed)]
        outside = [name for name in names if Path(name).name != name or (state.parent / name).is_symlink()]
        if outside:
            raise ValueError(f"{state} names {outside[0][:100]!r}, which does not lie beside it; {_WRITE_AGAIN}")


def refuse_blown_up(file: Path) -> None:
    """Raise if a parquet file claims far more values than its size can hold: it would fill memory or the disk.

    Up to `VALUES` are taken from any file, and `VALUES_A_BYTE` a byte from a larger one.
    """
    with intact(file, "parquet file", "get it again from where it came from"):
        try:
            groups = pq.read_metadata(file).to_dict()["row_groups"]
        except OSError as error:  # what parquet says of a broken file
            raise ValueError(error) from error
    values = sum(column["num_values"] for group in groups for column in group["columns"])
    if values > max(VALUES, VALUES_A_BYTE * file.stat().st_size):
        raise ValueError(
            f"{file} has {file.stat().st_size} bytes and claims {values:,} values, more than {VALUES_A_BYTE} a byte; "
            "if that is right, read it with `datasets` and give the folder of `save_to_disk`"
        )


def _linked(folder: Path, links: Path) -> Path:
    """Return `links`, in which the files of the dataset saved in `folder` are linked to."""
    for file in files_of(folder):
        link = links / file.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(file.resolve())
    return links


def _read_folder(folder: Path, links: Path | None) -> Dataset | DatasetDict:
    if any((folder / marker).is_file() for marker in DATASET_MARKERS):
        _verify(folder)
        _refuse_elsewhere(folder)
        with intact(folder, "saved dataset", _WRITE_AGAIN):
            return load_from_disk(folder if links is None else _linked(folder, links))
    if not any(folder.iterdir()):
        raise FileNotFoundError(f"the folder {folder} is empty; a saved dataset or an image folder is wanted")
    splits = _loaded("imagefolder", folder, data_dir=str(folder))
    return splits["train"] if list(splits) == ["train"] else splits


def _loaded(reader: str, path: Path, **where: Any) -> Any:  # noqa: ANN401 - one split, or all
    """Return what one of the readers of `datasets` makes of files; what it cannot read is one line."""
    try:
        return load_dataset(reader, **where)
    except (DatasetGenerationError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        with explained(Path(config.HF_DATASETS_CACHE)):  # the file that was read is not to blame for a full disk
            raise ValueError(
                f"{path} cannot be read ({reason}); repair it, or give the rows in another form"
            ) from error


def _read_file(file: Path) -> Dataset:
    if file.suffix not in READERS:
        raise ValueError(f"{file} ends in {file.suffix!r}; files of {', '.join(READERS)} can be read")
    if file.suffix == ".parquet":
        refuse_blown_up(file)
    return _loaded(READERS[file.suffix], file, data_files=str(file), split="train")


def _read_hub(path: str) -> Dataset | DatasetDict:
    if not _HUB_ID.fullmatch(path) or Path(path).suffix in READERS:
        raise FileNotFoundError(f"there is no folder or file {path}")
    failed: Exception
    try:
        _ask_hub(path)
        return load_dataset(path)
    except (FileNotFoundError, ConnectionError, RepositoryNotFoundError) as error:
        failed = error
    raise FileNotFoundError(
        f"{path} is no folder or file here, and as a Hub dataset it cannot be read: {str(failed).splitlines()[0]}"
    ) from failed


def _ask_hub(path: str) -> None:
    """Ask the Hub once whether it has a dataset that is not in the cache: to load one asks several times, with pauses.

    Raises:
        ConnectionError, RepositoryNotFoundError: if it has not, or does not answer.
    """
    if config.HF_HUB_OFFLINE or (Path(config.HF_DATASETS_CACHE) / path.replace("/", "___")).is_dir():
        return
    try:
        HfApi().dataset_info(path, timeout=10)
    except RepositoryNotFoundError:
        raise
    except HfHubHTTPError:
        return  # whatever else is wrong, loading tells better
    except Exception as error:  # of the library below, by whichever client
        raise ConnectionError(f"the Hub does not answer ({type(error).__name__})") from error


def _encoded(ds: Dataset) -> Dataset:
    for name in (columns.LABEL, columns.GROUP):
        if name in ds.column_names and not isinstance(ds.features[name], ClassLabel):
            ds = ds.class_encode_column(name)
    return ds


def pick_split(ds: Dataset | DatasetDict, split: str, path: str) -> Dataset:
    """Return one split of what `path` named, or raise `ValueError` naming the splits there are."""
    if isinstance(ds, Dataset):
        if str(ds.split) != split:
            raise ValueError(f"{path} is a dataset without splits; leave out --split {split}")
        return ds
    if split not in ds:
        raise ValueError(f"{path} has no split {split!r}; it has {', '.join(ds)}")
    return ds[split]
