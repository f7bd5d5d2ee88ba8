import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from scipy import sparse

from hf_midrange import columns
from hf_midrange.association import associate, suspected_mislabels
from hf_midrange.bands import LogitBands


def noisy(seed=0, n=2000, flipped=0.03):
    """Three classes whose first logit a concept raises, with some labels wrong."""
    rng = np.random.default_rng(seed)
    true = rng.permutation(np.arange(n) % 3)
    tied = rng.random(n) < np.where(true == 0, 0.85, 0.15)
    logits = rng.normal(size=(n, 3))
    logits[np.arange(n), true] += 5
    logits[:, 0] += 4 * (tied - 0.5)
    wrong = rng.random(n) < flipped
    ids = np.where(wrong, (true + rng.integers(1, 3, n)) % 3, true)
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=["a", "b", "c"])}))
    concepts = (columns.concept_arrow(sparse.csr_matrix(tied[:, None]), ["tied"]), columns.concept_list(["tied"]))
    ds = columns.with_columns(
        ds, {"logits": (logits.astype(np.float32), columns.vector(3)), "concepts_tags": concepts}
    )
    return LogitBands().fit(ds).transform(ds), wrong, true


def test_planted_wrong_labels_are_suspected():
    ds, wrong, true = noisy(seed=7)
    found = suspected_mislabels(ds, associate(ds))
    rows = np.array(found["row"][:])
    assert wrong[rows].mean() > 0.9
    assert np.isin(np.flatnonzero(wrong), rows).mean() > 0.2
    assert np.mean(np.array(found["suggested"][:]) == true[rows]) > 0.9
    assert list(found["score"]) == sorted(found["score"], reverse=True)


def test_rows_that_a_confounder_explains_are_not_suspected():
    ds, _, _ = noisy()
    findings = associate(ds)
    assert any(findings["confounder"])
    without = findings.filter(lambda row: not row["confounder"])
    some, more = suspected_mislabels(ds, findings), suspected_mislabels(ds, without)
    assert set(some["row"][:]) < set(more["row"][:])


def test_positions_must_be_one_per_class():
    ds, _, _ = noisy()
    narrow = columns.with_columns(ds, {"position": (columns.matrix(ds, "position")[:, :2].copy(), columns.vector(2))})
    with pytest.raises(ValueError, match="2 units for 3 classes"):
        suspected_mislabels(narrow, associate(ds))
