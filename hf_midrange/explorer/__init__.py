"""The explorer: rows along a unit's range, marked by hand, and the curated data set that the marks make."""

from hf_midrange.explorer.marks import MARKS, edited
from hf_midrange.explorer.opening import explore


__all__ = ["MARKS", "edited", "explore"]
