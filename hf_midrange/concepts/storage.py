"""Loading a fitted source whose kind is written in its file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hf_midrange.concepts.captions import Captions
from hf_midrange.concepts.early_features import EarlyFeatures
from hf_midrange.concepts.image_properties import ImageProperties
from hf_midrange.concepts.latent import LatentConcepts
from hf_midrange.concepts.metadata import Annotations
from hf_midrange.concepts.ngrams import NGrams
from hf_midrange.concepts.predictions import Predictions
from hf_midrange.concepts.source import FILE, REFIT
from hf_midrange.concepts.text_style import TextStyle
from hf_midrange.concepts.thumbnail import Thumbnail
from hf_midrange.concepts.zero_shot import ZeroShot
from hf_midrange.storage.files import read_json


if TYPE_CHECKING:
    from hf_midrange.concepts.source import Source

_KINDS = (
    Annotations, Captions, EarlyFeatures, ImageProperties, LatentConcepts, NGrams, Predictions, TextStyle, Thumbnail,
    ZeroShot,
)  # fmt: skip


def load_source(path: str | Path) -> Source:
    """Return the fitted source that `save`, or `annotate(..., output_dir=...)`, wrote to a JSON file.

    Raises:
        ValueError: if the file holds no source of this package, one of another version, or not what was written.
    """
    kind = read_json(Path(path), FILE, REFIT).get("kind")
    found = {known.__name__: known for known in _KINDS}
    if not isinstance(kind, str) or kind not in found:
        raise ValueError(f"{path} holds a source of kind {kind!r}, which is none of {sorted(found)}")
    return found[kind].load(path)
