"""The field's benchmarks, read from their original files or from the Hub: Waterbirds, CelebA, MultiNLI, CivilComments.

Each reader returns train, validation and test splits with the columns that the whole package reads. Nothing is
downloaded but by `load_dataset`, and only for a Hub id; images stay where they are until a row is read.
"""

from collections.abc import Callable
from functools import partial

from datasets import DatasetDict

from hf_midrange.field.comparing import compared, markdown
from hf_midrange.field.images import celeba, waterbirds
from hf_midrange.field.overlapping import IDENTITIES, overlapping_group_metrics
from hf_midrange.field.published import FIGURES
from hf_midrange.field.texts import civilcomments, has_negation, multinli


READERS: dict[str, Callable[[str], DatasetDict]] = {
    "waterbirds": waterbirds,
    "celeba": celeba,
    "multinli": multinli,
    "civilcomments-coarse": partial(civilcomments, groups="coarse"),
    "civilcomments-fine": partial(civilcomments, groups="fine"),
}
"""By name; CivilComments stands here twice, as figures by its two kinds of groups cannot be compared."""

__all__ = [
    "FIGURES",
    "IDENTITIES",
    "READERS",
    "celeba",
    "civilcomments",
    "compared",
    "has_negation",
    "markdown",
    "multinli",
    "overlapping_group_metrics",
    "waterbirds",
]
