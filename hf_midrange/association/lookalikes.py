"""Rows that look alike although nobody says that they come from one source."""

from __future__ import annotations

import warnings

import numpy as np
from datasets import Dataset

from hf_midrange import columns


MOST_ROWS = 2000
"""Rows looked at, and as many that follow them, since frames of a video often stand one after the other."""

ALIKE = 0.1
"""Distance from which two rows look alike, in median distances between rows of the same label."""

FEWEST_ROWS = 200
"""Of fewer rows a few that look alike are nothing to tell."""

WORTH_TELLING = 0.05
"""Share of the rows looked at that must have one that looks alike."""

NARROW = 16
"""Embeddings of fewer values have close neighbours by chance."""


def warn_of_lookalikes(ds: Dataset, ids: np.ndarray, seed: int) -> None:
    """Warn if many rows have a near-duplicate in the embedding and the data do not say where rows come from.

    Args:
        ds: the rows; without `embedding` there is nothing to look at.
        ids: class ids, of shape `(n,)`.
        seed: of the rows looked at.
    """
    if columns.EMBEDDING not in ds.column_names or columns.SOURCE_ID in ds.column_names or len(ds) < FEWEST_ROWS:
        return
    rng = np.random.default_rng(seed)
    some = rng.choice(len(ds), size=min(MOST_ROWS, len(ds)), replace=False)
    rows = np.unique(np.minimum(np.concatenate([some, some + 1]), len(ds) - 1))
    values = columns.matrix(ds.select(rows), columns.EMBEDDING).astype(np.float64)
    if values.shape[1] < NARROW or not np.isfinite(values).all():
        return
    spread = values.std(axis=0)
    values = values / np.where(spread > 0, spread, np.inf)
    squared = (values**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squared[:, None] + squared - 2 * values @ values.T, 0))
    np.fill_diagonal(distance, np.inf)
    typical = np.median(distance[(ids[rows][:, None] == ids[rows]) & np.isfinite(distance)])
    alike = (distance.min(axis=1) < ALIKE * typical).mean()
    if alike >= WORTH_TELLING:
        warnings.warn(
            f"{100 * alike:.0f} % of {len(rows)} rows looked at have another that they look alike: frames of one "
            "video, or copies, are not independent, and tests that take them for independent confirm too much. Say "
            "which rows belong together in a column `source_id`",
            UserWarning,
            stacklevel=3,
        )
