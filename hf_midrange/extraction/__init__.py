"""From rows to embeddings and logits: `extract` runs a classifier over a dataset."""

from importlib import import_module
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    from hf_midrange.extraction.output_kinds import one_label as one_label
    from hf_midrange.extraction.output_kinds import signed_error as signed_error
    from hf_midrange.extraction.run import extract as extract
    from hf_midrange.extraction.shards import merge_shards as merge_shards
    from hf_midrange.extraction.shards import read_shards as read_shards

# Reading images and shards needs no torch, which takes seconds to import: each name is imported on first use.
_HOMES = {
    "extract": "run",
    "merge_shards": "shards",
    "one_label": "output_kinds",
    "read_shards": "shards",
    "signed_error": "output_kinds",
}

__all__ = ["extract", "merge_shards", "one_label", "read_shards", "signed_error"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the attribute's own type is declared above
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_HOMES)}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
