"""A gate: whether a model is still as good, and as free of shortcuts, as it was."""

from hf_midrange.checking.baseline import Baseline as Baseline
from hf_midrange.checking.gate import check as check
