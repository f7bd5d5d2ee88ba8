"""How common each concept is, and which concept of another source says the same."""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset, Features, Value
from scipy import sparse

from hf_midrange import columns
from hf_midrange.concepts.label_leak import leaks_label
from hf_midrange.scoring import wilson_interval


FEATURES = Features(
    {
        "source": Value("string"),
        "concept": Value("string"),
        "rows": Value("int64"),
        "prevalence": Value("float64"),
        "low": Value("float64"),
        "high": Value("float64"),
        "disguised": Value("bool"),
        "twin": Value("string"),
        "kappa": Value("float64"),
    }
)


def concept_report(ds: Dataset) -> Dataset:
    """Return one row per concept of `ds`: how common it is, and its closest twin in another source.

    Columns: `source`, `concept`, `rows` that have it, `prevalence` with a 95 % Wilson interval (`low`, `high`),
    `disguised` (whether the label decides it in all but 0.5 % of the rows of every class; false without labels), and
    `twin`, the concept of another source that agrees best with it, as "source: concept", with Cohen's `kappa` (1 the
    same rows, 0 no better than chance; NaN and an empty twin where there is none). Two sources that agree on a concept
    make its name credible; the kappa of two namesakes bounds how well either is measured.

    Raises:
        ValueError: if `ds` has no concept columns.
    """
    found = columns.concept_columns(ds.features)
    if not found:
        raise ValueError(f"the dataset has no `concepts_*` columns ({ds.column_names}); `annotate` adds them")
    tables = [columns.presence(ds, name) for name in found]
    sources = [name.removeprefix(columns.CONCEPTS_PREFIX) for name in found]
    words = [columns.vocabulary(ds.features, name) for name in found]
    names = [(source, word) for source, known in zip(sources, words, strict=True) for word in known]
    table = sparse.csr_matrix(sparse.hstack(tables), dtype=bool)
    rows = np.asarray(table.sum(axis=0)).ravel()
    low, high = wilson_interval(rows, np.full_like(rows, len(ds)))
    kappa = cohens_kappa(table)
    origin = np.repeat(np.arange(len(found)), [part.shape[1] for part in tables])
    kappa[origin[:, None] == origin[None]] = -np.inf
    best = kappa.argmax(axis=1)
    agreement = np.where(np.isfinite(kappa.max(axis=1)), kappa.max(axis=1), np.nan)
    return Dataset.from_dict(
        {
            "source": [name for name, _ in names],
            "concept": [word for _, word in names],
            "rows": rows,
            "prevalence": rows / max(len(ds), 1),
            "low": low,
            "high": high,
            "disguised": _disguised(ds, table),
            "twin": ["" if np.isnan(k) else ": ".join(names[j]) for j, k in zip(best, agreement, strict=True)],
            "kappa": agreement,
        },
        features=FEATURES,
    )


def cohens_kappa(table: sparse.csr_matrix) -> np.ndarray:
    """Return Cohen's kappa of every pair of columns (Cohen 1960), of shape `(m, m)`; -inf where a column is constant.

    With shares p, q and joint share r: kappa = 2 (r - p q) / (p (1 - q) + q (1 - p)).
    """
    n = max(table.shape[0], 1)
    counts = table.astype(np.float64)
    share = np.asarray(counts.sum(axis=0)).ravel() / n
    joint = (counts.T @ counts).toarray() / n
    chance = np.outer(share, 1 - share)
    varying = (share > 0) & (share < 1)
    both = varying[:, None] & varying[None]
    excess = 2 * (joint - np.outer(share, share))
    return np.divide(excess, chance + chance.T, out=np.full_like(joint, -np.inf), where=both)


def _disguised(ds: Dataset, table: sparse.csr_matrix) -> np.ndarray:
    if not isinstance(ds.features.get(columns.LABEL), ClassLabel) or not len(ds):
        return np.zeros(table.shape[1], dtype=bool)
    return leaks_label(table, columns.labels(ds))
