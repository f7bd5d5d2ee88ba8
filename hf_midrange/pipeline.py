"""The steps from extracted rows to a curated dataset, for every caller that goes all the way."""

from __future__ import annotations

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from datasets import Dataset, concatenate_datasets

from hf_midrange import columns
from hf_midrange.association import associate
from hf_midrange.bands import LogitBands
from hf_midrange.concepts import annotate
from hf_midrange.curation import curate
from hf_midrange.io.datasets import one_split, read_dataset, write_dataset
from hf_midrange.io.files import to_json, write_atomically
from hf_midrange.io.folders import written_once


STAGES = 6
"""Of the whole way: extract, annotate, associate, curate, retrain the head, report."""

logger = logging.getLogger("hf_midrange.steps")

_NOT_CHANGED = (columns.IMAGE, columns.TEXT, columns.TEXT_PAIR, columns.EMBEDDING, columns.LOGITS)
"""Columns that no step after `extract` changes, and that may be large: they are not written again."""


def told(line: str) -> None:
    """Tell whoever listens to the logger `hf_midrange.steps` what is being done; the main process does."""
    logger.log(logging.INFO if PartialState().is_main_process else logging.DEBUG, line)


class Repair(NamedTuple):
    """What every step gives."""

    bands: LogitBands
    findings: Dataset
    curated: Dataset


@dataclass(frozen=True)
class Steps:
    """A folder of finished steps, whose name tells what they are made from; what is there is not made again.

    Of several processes the main one makes a step, and the others wait for it. All must call it, or none returns.
    """

    folder: Path

    @classmethod
    def of(cls, parent: Path, made_from: Mapping[str, Any]) -> Steps:
        """Return the folder in `parent` whose name is the hash of what its steps are made from."""
        name = [hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]]
        if PartialState().num_processes > 1:
            broadcast_object_list(name)  # data sets made in memory may be called differently in each process
        folder = parent / name[0]
        if PartialState().is_main_process:
            folder.mkdir(parents=True, exist_ok=True)
            write_atomically(folder / "key.json", to_json(made_from, indent=1) + "\n")
        return cls(folder)

    def written(self, name: str, write: Callable[[Path], None]) -> Path:
        """Return the folder of a step, which `write` fills unless it is there."""
        path, state = self.folder / name, PartialState()
        if state.is_main_process:
            written_once(path, write)
        state.wait_for_everyone()
        return path

    def dataset(self, name: str, make: Callable[[], Dataset], rows: Dataset | None = None) -> Dataset:
        """Return the dataset of a step.

        Args:
            name: of the step.
            make: makes it.
            rows: what the step starts from and adds columns to; large columns of these are not written again.
        """
        large = [column for column in _NOT_CHANGED if rows is not None and column in rows.column_names]
        path = self.written(name, lambda part: write_dataset(make().remove_columns(large), part))
        made = one_split(read_dataset(str(path)), str(path))
        if rows is None or not large:
            return made
        joined = concatenate_datasets([rows.select_columns(large), made], axis=1)
        joined.info.description = made.info.description
        return joined


def curated_from(
    extracted: Dataset, sources: Sequence[Any], seed: int, *, steps: Steps | None = None, act_on: str = "shown"
) -> Repair:
    """Fit bands, find concepts, associate and curate.

    Args:
        extracted: what `extract` returned.
        sources: concept sources, as `annotate` takes them.
        seed: of the halves of `associate` and the subset of `curate`.
        act_on: `"shown"` or `"suspected"`, as `curate` takes it.
        steps: where the datasets called `annotated`, `findings` and `curated` are kept, and what `annotate` measures.
            Of several processes the main one makes them; without, each makes its own.
    """

    def made(name: str, make: Callable[[], Dataset], rows: Dataset | None = None) -> Dataset:
        return make() if steps is None else steps.dataset(name, make, rows)

    bands = LogitBands().fit(extracted)
    # What models measure is kept by a process that works alone: others would have to take part.
    work = steps.folder / "concepts" if steps is not None and PartialState().num_processes == 1 else None
    named = ", ".join(str(getattr(source, "name", type(source).__name__)).replace("_", " ") for source in sources)
    told(f"[2/{STAGES}] annotate: {named}")
    annotated = made("annotated", lambda: _annotated(bands.transform(extracted), sources, work), extracted)
    told(f"[3/{STAGES}] associate: which concepts stand in the middle of each class")
    findings = made("findings", lambda: associate(annotated, seed=seed))
    told(f"[4/{STAGES}] curate: {len(findings)} findings")
    curated = made("curated", lambda: curate(annotated, findings, seed=seed, act_on=act_on), extracted)
    return Repair(bands, findings, curated)


def _annotated(banded: Dataset, sources: Sequence[Any], work: Path | None) -> Dataset:
    with warnings.catch_warnings():
        # The trainer's own model is an object: its source is not wanted as a file, what it measured is.
        warnings.filterwarnings("ignore", message=".* cannot be saved: `model`")
        return annotate(banded, sources, output_dir=work)
