"""The concept report: prevalence, agreement and the label in disguise."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy import sparse
from sklearn.metrics import cohen_kappa_score

from hf_midrange import columns
from hf_midrange.concepts import concept_report
from hf_midrange.concepts.label_leak import leaks_label
from hf_midrange.concepts.report import cohens_kappa


def dataset(**rows):
    vocabularies = {"concepts_tags": ["night", "rain"], "concepts_caption": ["dark", "wet"]}
    features = {name: columns.concept_list(words) for name, words in vocabularies.items()}
    return Dataset.from_dict(rows, features=Features({**features, "label": ClassLabel(names=["a", "b"])}))


def test_prevalence_and_twins():
    ds = dataset(concepts_tags=[[0], [0, 1], [], [1]], concepts_caption=[[0], [0], [], [0]], label=[0, 0, 1, 1])
    report = concept_report(ds)
    assert report["concept"][:] == ["night", "rain", "dark", "wet"]
    assert report["rows"][:] == [2, 2, 3, 0]
    assert report["prevalence"][:] == [0.5, 0.5, 0.75, 0.0]
    assert report["twin"][:] == ["caption: dark", "caption: dark", "tags: night", ""]
    assert report["kappa"][0] == pytest.approx(cohen_kappa_score([1, 1, 0, 0], [1, 1, 0, 1]))
    assert report["disguised"][:] == [True, False, False, False]
    low, share, high = (np.asarray(report[name]) for name in ("low", "prevalence", "high"))
    assert ((low <= share) & (share <= high)).all()


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=12)))
def test_kappa_agrees_with_scikit_learn(table):
    kappa = cohens_kappa(sparse.csr_matrix(table))
    for i in range(table.shape[1]):
        for j in range(table.shape[1]):
            if len(set(table[:, i])) > 1 and len(set(table[:, j])) > 1:
                assert kappa[i, j] == pytest.approx(cohen_kappa_score(table[:, i], table[:, j]))
            else:
                assert kappa[i, j] == -np.inf


@given(st.integers(0, 20))
def test_a_concept_is_disguised_up_to_half_a_percent_of_contrary_rows(contrary):
    labels = np.repeat([0, 1], 1000)
    concept = labels == 1
    concept[:contrary] = True
    assert leaks_label(sparse.csr_matrix(concept[:, None]), labels)[0] == (contrary <= 5)


def test_without_concepts_there_is_no_report():
    with pytest.raises(ValueError, match="no `concepts_"):
        concept_report(Dataset.from_dict({"text": ["a"]}))
