"""How often findings are wrong where nothing is there, and found where something is."""

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from scipy import sparse, stats

from hf_midrange import columns
from hf_midrange.association import associate


def two_classes(z, ids, present):
    names = [f"concept_{i}" for i in range(present.shape[1])]
    ds = Dataset.from_dict({"label": ids}, features=Features({"label": ClassLabel(names=["a", "b"])}))
    concept_column = (columns.concept_arrow(sparse.csr_matrix(present), names), columns.concept_list(names))
    logits = np.stack([-z, z], axis=1).astype(np.float32)
    return columns.with_columns(ds, {"logits": (logits, columns.vector(2)), "concepts_sim": concept_column})


def null_data(seed, prevalence, copied, rows=1000, concepts=60):
    """Concepts that depend on the label and on each other, never on the logit within a label."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(rows) % 2)
    z = rng.normal(size=rows) + np.where(ids == 1, 1.5, -1.5)
    hidden = rng.random((rows, 6))[:, np.arange(concepts) % 6]
    noise = np.where(rng.random((rows, concepts)) < copied, hidden, rng.random((rows, concepts)))
    return two_classes(z, ids, noise < prevalence * np.where(ids == 1, 1.5, 1 / 1.5)[:, None])


def planted_data(seed, rows=5000, prevalence=0.05, odds_ratio=3.0):
    """Concept 0 has the given odds ratio with the middle band: absent there in members, present in strangers."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(rows) % 2)
    z = rng.normal(size=rows) + np.where(ids == 1, 1.5, -1.5)
    middle = (z > -1.5) & (z < 1.5)
    odds = prevalence / (1 - prevalence) * np.sqrt(odds_ratio) ** np.where((ids == 0) == middle, 1, -1)
    present = np.column_stack([rng.random(rows) < odds / (1 + odds), rng.random((rows, 30)) < prevalence])
    return two_classes(z, ids, present)


def any_confirmed(seeds, **kind):
    return sum(any(associate(null_data(seed, **kind), seed=seed)["confirmed"]) for seed in range(seeds))


def test_no_effect_is_seldom_confirmed():
    runs = any_confirmed(15, prevalence=0.2, copied=0.0) + any_confirmed(15, prevalence=0.02, copied=0.5)
    assert runs <= stats.binom.ppf(0.999, 30, 0.05)


def test_a_planted_confounder_of_odds_ratio_three_is_found():
    found = [associate(planted_data(seed)) for seed in range(5)]
    hits = [any(c == "concept_0" and f for c, f in zip(f_["concept"], f_["confounder"], strict=True)) for f_ in found]
    assert sum(hits) >= 4
    assert not any(
        c != "concept_0" and f for f_ in found for c, f in zip(f_["concept"], f_["confounder"], strict=True)
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", [{"prevalence": 0.2, "copied": 0.0}, {"prevalence": 0.01, "copied": 0.5}])
def test_no_effect_is_confirmed_in_at_most_alpha_of_200_runs(kind):
    assert any_confirmed(200, **kind) <= stats.binom.ppf(0.99, 200, 0.05)
