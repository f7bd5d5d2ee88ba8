"""The steps from extracted rows to a curated dataset, for every caller that goes all the way."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from datasets import Dataset

from hf_midrange.association import associate
from hf_midrange.bands import LogitBands
from hf_midrange.concepts import annotate
from hf_midrange.curation import curate


Keep = Callable[[str, Callable[[], Dataset]], Dataset]
"""Given the name of a step and how to do it, returns its result: done now, or kept from an earlier run."""


class Repair(NamedTuple):
    """What every step gives."""

    bands: LogitBands
    findings: Dataset
    curated: Dataset


def curated_from(
    extracted: Dataset,
    sources: Sequence[Any],
    seed: int,
    *,
    keep: Keep = lambda _, make: make(),
    work: Path | None = None,
) -> Repair:
    """Fit bands, find concepts, associate and curate.

    Args:
        extracted: what `extract` returned.
        sources: concept sources, as `annotate` takes them.
        seed: of the halves of `associate` and the subset of `curate`.
        keep: remembers the datasets called `annotated`, `findings` and `curated`.
        work: folder in which `annotate` keeps what models measure. Several processes leave this to the main one, which
            then keeps nothing there: others would have to take part.
    """
    from accelerate import PartialState

    work = work if PartialState().num_processes == 1 else None
    bands = LogitBands().fit(extracted)
    annotated = keep("annotated", lambda: _annotated(bands.transform(extracted), sources, work))
    findings = keep("findings", lambda: associate(annotated, seed=seed))
    return Repair(bands, findings, keep("curated", lambda: curate(annotated, findings, seed=seed)))


def _annotated(banded: Dataset, sources: Sequence[Any], work: Path | None) -> Dataset:
    with warnings.catch_warnings():
        # The trainer's own model is an object: its source is not wanted as a file, what it measured is.
        warnings.filterwarnings("ignore", message=".* cannot be saved: `model`")
        return annotate(banded, sources, output_dir=work)
