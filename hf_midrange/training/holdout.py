"""Rows of the training set that are held out for curation: chosen before training, written down, never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from hf_midrange.columns import source_ids
from hf_midrange.io.files import DamagedFileError, from_json, read_json, to_json, write_atomically
from hf_midrange.training.row_inputs import LABEL_COLUMNS, column_names, has_own_transform


CURATION_ROWS = "curation_rows.json"


@dataclass(frozen=True)
class Holdout:
    """Which rows are held out, and how they were chosen."""

    fraction: float
    seed: int
    rows: int
    """Rows of the training set."""
    indices: list[int]
    """Rows held out, ascending."""

    def __post_init__(self) -> None:
        if not self.indices or not 0 <= min(self.indices) <= max(self.indices) < self.rows:
            raise ValueError(f"its rows are not among 0..{self.rows - 1}")

    @property
    def others(self) -> np.ndarray:
        """Rows that are left to train on, ascending."""
        return np.setdiff1d(np.arange(self.rows), self.indices)

    def write(self, folder: Path) -> None:
        """Write `curation_rows.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / CURATION_ROWS, to_json(asdict(self)) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Holdout | None:
        """Return what a folder, such as a checkpoint, says was held out; None if it says nothing.

        Raises:
            ValueError: if the file is not what was written.
        """
        path, what = folder / CURATION_ROWS, "list of rows held out"
        if not path.is_file():
            return None
        remedy = "give the rows to curate yourself, as `curation_dataset` or --curation_split"
        saved = read_json(path, what, remedy)
        try:
            return from_json(cls, saved)
        except ValueError as error:
            raise DamagedFileError(f"{path} is not a whole {what} ({error}); {remedy}") from error


def held_out(labels: np.ndarray, fraction: float, seed: int, sources: Sequence | np.ndarray | None = None) -> Holdout:
    """Choose about `fraction` of the rows of every label, at least one, with all rows of a source on one side.

    Sources (by default each row is its own) are visited in random order and taken where that brings the counts per
    label nearer to what is wanted.

    Args:
        labels: class ids, of shape `(n,)`.
        fraction: share of rows, in (0, 1).
        seed: of the order.
        sources: what rows have in common, of length `n`.

    Raises:
        ValueError: if nothing would be held out or nothing left to train on.
    """
    rng = np.random.default_rng(seed)
    source = np.arange(len(labels)) if sources is None else np.unique(np.asarray(sources), return_inverse=True)[1]
    label = np.unique(labels, return_inverse=True)[1]
    missing = np.maximum(1, np.round(fraction * np.bincount(label))).astype(np.int64)
    order = np.argsort(source, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(source[order])) + 1)
    taken: list[np.ndarray] = []
    for k in rng.permutation(len(members)):
        counts = np.bincount(label[members[k]], minlength=len(missing))
        if np.abs(missing - counts).sum() < np.abs(missing).sum():
            taken.append(members[k])
            missing = missing - counts
    chosen = np.sort(np.concatenate(taken)) if taken else np.array([], np.int64)
    if not 0 < len(chosen) < len(labels):
        raise ValueError(
            f"holding out {fraction} of {len(labels)} rows in {len(members)} sources leaves {len(chosen)} rows for "
            f"curation and {len(labels) - len(chosen)} for training; give a `curation_dataset` instead"
        )
    return Holdout(fraction, seed, len(labels), chosen.tolist())


def without_held_out(train: Any, evaluation: Any, fraction: float, seed: int) -> tuple[Dataset, Dataset, Holdout]:  # noqa: ANN401
    """Return the rows left to train on, the rows held out, and the account of them.

    Where both sets have a transform of their own, held-out rows get that of `evaluation`: that of training may draw
    at random.

    Raises:
        ValueError: if the training set is no `datasets.Dataset` with labels.
    """
    label = next((name for name in LABEL_COLUMNS if name in column_names(train)), None)
    if not isinstance(train, Dataset) or label is None:
        raise ValueError(
            "`curation_fraction` needs a datasets.Dataset with labels to train on, but got "
            f"{type(train).__name__} with columns {column_names(train)}; give a `curation_dataset` instead"
        )
    plain = train.with_format(None)
    holdout = held_out(np.asarray(plain[label][:]), fraction, seed, source_ids(plain))
    held = train.select(holdout.indices)
    evaluation = next(iter(evaluation.values()), None) if isinstance(evaluation, dict) else evaluation
    if has_own_transform(held) and has_own_transform(evaluation):
        held = held.with_format(None).with_transform(evaluation.format["format_kwargs"]["transform"])
    return train.select(holdout.others), held, holdout


def refuse_other_holdout(checkpoint: str | bool, output: Path, holdout: Holdout | None) -> None:
    """Refuse to go on from a checkpoint, True for the last, that held out other rows: they would be trained on."""
    folder = get_last_checkpoint(str(output)) if isinstance(checkpoint, bool) else checkpoint
    there = Holdout.read(Path(folder)) if folder else None
    if there is not None and there != holdout:
        raise ValueError(
            f"{folder} held out {len(there.indices)} of {there.rows} rows for curation with "
            f"curation_fraction={there.fraction} and seed {there.seed}, and now "
            f"{'none are' if holdout is None else 'others are'}; going on would train on them. Use the same training "
            "rows, `curation_fraction` and seed"
        )


class WriteHoldout(TrainerCallback):
    """Puts into every checkpoint which rows were held out: with the weights, all that `debias` needs."""

    def __init__(self, holdout: Holdout) -> None:
        self.holdout = holdout

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ANN401 - of TrainerCallback
        """Write into the checkpoint that was just saved."""
        if args.should_save:
            self.holdout.write(Path(args.output_dir) / f"checkpoint-{state.global_step}")
