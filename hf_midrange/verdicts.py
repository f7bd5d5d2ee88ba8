"""The four verdicts of a curation, and whether one leaves the head as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


SHOWN = "shown"
"""A tie is shown, and repaired."""
SUSPECTED = "suspected"
"""Something is named, but too little to be sure; the report says what would settle it."""
NONE = "none seen"
"""No sign of a tie; the explanation says how large one would have been seen."""
CANNOT = "cannot be carried"
"""Rows break a tie, but the features do not tell them from the class that they look like."""


def unchanged(report: Mapping[str, Any]) -> bool:
    """Return whether a curation leaves the head as it is; `{}` of rows that were weighted otherwise does not.

    Reports of 0.1.0 tell no strength, and their verdicts have other names.
    """
    if "strength" in report:
        return bool(report["strength"] == 0)
    return report.get("verdict", SHOWN) not in (SHOWN, "repaired", "features cannot carry it")
