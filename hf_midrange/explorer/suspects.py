"""Rows whose label may be wrong, for a reader to judge."""

from __future__ import annotations

from datasets import Dataset

from hf_midrange.association.mislabels import suspected_mislabels
from hf_midrange.explorer.index import Index


def suspects(index: Index, findings: Dataset | None) -> dict[int, str]:
    """Return the class that each suspected row looks like, most suspect first.

    There are none without findings, nor where units or bands are of a kind that says nothing about labels.
    """
    if findings is None:
        return {}
    try:
        found = suspected_mislabels(index.banded, findings)
    except (KeyError, ValueError):
        return {}
    return {row["row"]: index.classes[row["suggested"]] for row in found.to_list()}
