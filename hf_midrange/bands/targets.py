"""What rule `auto` looks for in the rows: their concepts, or a dense description where there are none."""

from __future__ import annotations

import numpy as np
from datasets import Dataset
from scipy import sparse

from hf_midrange import columns


MOST_TARGETS, FEWEST_ROWS = 1000, 10


def targets_of(ds: Dataset, column: str, ids: np.ndarray) -> tuple[np.ndarray, str]:
    """Return within-label residuals of unit variance, of shape `(n, m)`, and in words what they are of.

    The first of these that `ds` has: named concepts (`concepts_<source>` that are not derived from the embedding),
    side views (`view_<source>`), the embedding, the logits (not the column whose bands are sought), derived concepts.
    Of more than 1,000 columns, those that vary most within the label; concepts need 10 rows with and 10 without.

    Raises:
        ValueError: if there is none of these, or nothing in them varies.
    """
    from hf_midrange.association.reading import DERIVED_COLUMNS

    concepts = columns.concept_columns(ds.features)
    named = [name for name in concepts if name not in DERIVED_COLUMNS]
    views = columns.view_columns(ds.features)
    others = [name for name in (columns.EMBEDDING, columns.LOGITS) if name in ds.column_names and name != column]
    if named or not (views or others):
        values, words = _present(ds, named or concepts), "concepts"
    else:
        chosen = views or others[:1]
        values, words = np.hstack([columns.finite_matrix(ds, name) for name in chosen]), f"columns of {chosen}"
    residuals = _residuals(values, ids)
    if not residuals.shape[1]:
        raise ValueError(
            "rule 'auto' chooses the middle by what is in the rows, but there is nothing that varies within a label "
            f"among {ds.column_names}; `annotate` adds concepts, and other rules need none"
        )
    return residuals, f"{residuals.shape[1]} {words}"


def _present(ds: Dataset, names: list[str]) -> np.ndarray:
    if not names:
        return np.empty((len(ds), 0))
    table = sparse.csc_matrix(sparse.hstack([columns.presence(ds, name) for name in names]), dtype=np.float64)
    count = np.asarray(table.sum(axis=0)).ravel()
    rarer = np.minimum(count, len(ds) - count)
    kept = np.flatnonzero(rarer >= FEWEST_ROWS)
    kept = np.sort(kept[np.argsort(-rarer[kept], kind="stable")][:MOST_TARGETS])
    return np.asarray(table[:, kept].toarray())


def _residuals(values: np.ndarray, ids: np.ndarray) -> np.ndarray:
    exact = np.asarray(values, dtype=np.float64)
    labels, position = np.unique(ids, return_inverse=True)
    member = sparse.csr_matrix((np.ones(len(ids)), (position, np.arange(len(ids)))), shape=(len(labels), len(ids)))
    means = (member @ exact) / np.asarray(member.sum(axis=1))
    rest = exact - means[position]
    spread = rest.std(axis=0)
    kept = np.flatnonzero(spread > 1e-9 * np.maximum(np.abs(exact).max(axis=0, initial=0.0), 1e-9))
    kept = np.sort(kept[np.argsort(-spread[kept], kind="stable")][:MOST_TARGETS])
    return np.asarray(rest[:, kept] / spread[kept])
