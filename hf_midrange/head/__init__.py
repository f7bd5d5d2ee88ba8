"""Heads: a linear classifier on raw embeddings, and its retraining on curated data."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from hf_midrange.head.linear_head import LinearHead as LinearHead
    from hf_midrange.head.regression import group_errors as group_errors
    from hf_midrange.head.regression import repair_regression as repair_regression
    from hf_midrange.head.retrain import retrain_head as retrain_head

# The solver needs no torch, which takes seconds to import: each name is imported on first use.
_HOMES = {
    "LinearHead": "linear_head",
    "group_errors": "regression",
    "repair_regression": "regression",
    "retrain_head": "retrain",
}

__all__ = ["LinearHead", "group_errors", "repair_regression", "retrain_head"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the attribute's own type is declared above
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
