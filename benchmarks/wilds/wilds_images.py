"""Waterbirds and CelebA."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from wilds_layout import SPLITS, codes, file_in, grouped, hub_splits, read_csv, splits_of

from hf_midrange import columns


BIRDS, PLACES = ("landbird", "waterbird"), ("land", "water")
HAIR, SEXES = ("not blond", "blond"), ("female", "male")


def waterbirds(source: str | Path | DatasetDict) -> DatasetDict:
    """Return Waterbirds, with `image`, `label` (land or water bird) and `group` (bird on background).

    Args:
        source: the folder with `metadata.csv` (`img_filename`, `y`, `split`, `place`) and the images, as the
            authors of group DRO (arXiv 1911.08731) and WILDS give it out; or a Hub id, or what was loaded from
            one, with the columns `image`, `label`, `place`, such as `grodino/waterbirds`.

    Raises:
        FileNotFoundError: if the table or images are missing.
        ValueError: if it is of another layout; the message says what was found and expected.
    """
    folder = _folder(source)
    if folder is None:
        return _from_hub(source, ("label", "place"), _feature(BIRDS, PLACES, "on"))
    table = read_csv(file_in(folder, "metadata.csv"), ("img_filename", "y", "split", "place"))
    paths = [str(folder / name) for name in table["img_filename"].to_pylist()]
    label, place = codes(table["y"], 2, "column 'y'"), codes(table["place"], 2, "column 'place'")
    return _tables(paths, label, place, codes(table["split"], 3, "column 'split'"), _feature(BIRDS, PLACES, "on"))


def celeba(source: str | Path | DatasetDict) -> DatasetDict:
    """Return CelebA, with `image`, `label` (blond or not) and `group` (hair x sex as annotated).

    Args:
        source: the folder with `img_align_celeba/`, `list_attr_celeba` and `list_eval_partition`, both as `.csv`
            (Kaggle) or `.txt` (the authors); or a Hub id, or what was loaded from one, with the columns `image`,
            `Blond_Hair`, `Male`, such as `flwrlabs/celeba`.

    Raises:
        FileNotFoundError: if a table or images are missing.
        ValueError: if it is of another layout; the message says what was found and expected.
    """
    feature, folder = _feature(HAIR, SEXES, "and"), _folder(source)
    if folder is None:
        return _from_hub(source, ("Blond_Hair", "Male"), feature)
    names, attributes = _celeba_table(
        file_in(folder, "list_attr_celeba.csv", "list_attr_celeba.txt"), ("Blond_Hair", "Male"), header=True
    )
    others, parts = _celeba_table(
        file_in(folder, "list_eval_partition.csv", "list_eval_partition.txt"), ("partition",), header=False
    )
    split_by_name = dict(zip(others, parts[0], strict=True))
    missing = [name for name in names if name not in split_by_name]
    if missing:
        raise ValueError(f"list_eval_partition gives no split to {len(missing)} images, such as {missing[0]}")
    images = folder / "img_align_celeba"
    if (images / images.name).is_dir():  # as Kaggle's archive unpacks
        images = images / images.name
    split = codes([split_by_name[name] for name in names], 3, "list_eval_partition")
    blond, male = (codes((np.array(column) + 1) / 2, 2, "list_attr_celeba") for column in attributes)
    return _tables([str(images / name) for name in names], blond, male, split, feature)


def _celeba_table(path: Path, wanted: Sequence[str], header: bool) -> tuple[list[str], list[list[int]]]:
    """Return names of images and columns of numbers; the authors' text files have no commas, and one a title."""
    if path.suffix == ".csv":
        table = read_csv(path, ("image_id", *wanted))
        return table["image_id"].to_pylist(), [table[name].to_pylist() for name in wanted]
    lines = path.read_text(encoding="utf-8").splitlines()
    titles = lines[1].split() if header else list(wanted)
    missing = [name for name in wanted if name not in titles]
    if missing:
        raise ValueError(f"the second line of {path} lacks {missing}; it is {titles[:8]}")
    rows = [line.split() for line in lines[2 if header else 0 :] if line.strip()]
    odd = [row for row in rows if len(row) != len(titles) + 1]
    if odd:
        raise ValueError(f"{path} must have {len(titles) + 1} entries a line, but one line is {' '.join(odd[0])[:80]}")
    return [row[0] for row in rows], [[int(row[1 + titles.index(name)]) for row in rows] for name in wanted]


def _folder(source: str | Path | DatasetDict) -> Path | None:
    """Return the folder that `source` names, or None where it is a Hub dataset."""
    if isinstance(source, DatasetDict):
        return None
    return Path(source) if isinstance(source, Path) or Path(source).exists() else None


def _feature(classes: Sequence[str], attributes: Sequence[str], joint: str) -> Features:
    return Features(
        {
            columns.IMAGE: Image(),
            columns.LABEL: ClassLabel(names=list(classes)),
            columns.GROUP: grouped(classes, attributes, joint),
        }
    )


def _tables(
    paths: list[str], label: np.ndarray, attribute: np.ndarray, split: np.ndarray, features: Features
) -> DatasetDict:
    missing = [path for path in paths if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} images are missing, such as {missing[0]}")
    values = {columns.IMAGE: paths, columns.LABEL: label, columns.GROUP: 2 * label + attribute}
    return splits_of(values, features, split)


def _from_hub(source: str | Path | DatasetDict, pair: tuple[str, str], features: Features) -> DatasetDict:
    data = hub_splits(source if isinstance(source, DatasetDict) else str(source), (columns.IMAGE, *pair))
    return DatasetDict({name: _renamed(data[name], pair, features) for name in SPLITS})


def _renamed(part: Dataset, pair: tuple[str, str], features: Features) -> Dataset:
    label, attribute = (codes(np.asarray(part.with_format("numpy")[:][name]), 2, f"column {name!r}") for name in pair)
    added = {
        columns.LABEL: (label, features[columns.LABEL]),
        columns.GROUP: (2 * label + attribute, features[columns.GROUP]),
    }
    return columns.with_columns(part.select_columns([columns.IMAGE]), added)
