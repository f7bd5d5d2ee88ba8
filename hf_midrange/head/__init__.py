"""Heads: a linear classifier on raw embeddings, and its retraining on curated data."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from hf_midrange.head.linear_head import LinearHead as LinearHead
    from hf_midrange.head.retrain import retrain_head as retrain_head

# The solver needs no torch, which takes seconds to import: each name is imported on first use.
_HOMES = {"LinearHead": "linear_head", "retrain_head": "retrain"}

__all__ = ["LinearHead", "retrain_head"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the attribute's own type is declared above
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
