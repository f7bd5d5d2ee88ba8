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


def half_data(seed, side, rows=1500, concepts=20):
    """Every concept raises the logit on one side alone: in members of class b (1), or in its strangers (0)."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(rows) % 2)
    present = rng.random((rows, concepts)) < 0.15
    z = rng.normal(size=rows) + np.where(ids == 1, 1.5, -1.5)
    z += 0.35 * (present.sum(axis=1) - 0.15 * concepts) * (ids == side)
    return two_classes(z, ids, present)


def raised_data(seed, planted=8, rows=2000, concepts=60):
    """The first concepts raise the logit of class b in everyone; the others depend on the label alone."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(np.arange(rows) % 2)
    present = rng.random((rows, concepts)) < 0.2 * np.where(ids == 1, 1.5, 1 / 1.5)[:, None]
    z = rng.normal(size=rows) + np.where(ids == 1, 1.5, -1.5) + 0.6 * present[:, :planted].sum(axis=1)
    return two_classes(z, ids, present)


def any_confirmed(seeds, **kind):
    return sum(any(associate(null_data(seed, **kind), seed=seed)["confirmed"]) for seed in range(seeds))


def false_share(findings, planted=8):
    numbers = {int(row["concept"].split("_")[1]) for row in findings if row["confirmed"]}
    return sum(number >= planted for number in numbers) / max(len(numbers), 1)


def power(seeds):
    found = [associate(planted_data(seed), seed=seed) for seed in range(seeds)]
    return np.mean([any(row["confounder"] and row["concept"] == "concept_0" for row in f) for f in found])


def one_sided_flagged(seeds, side):
    return sum(any(associate(half_data(seed, side), seed=seed)["confounder"]) for seed in range(seeds))


def test_no_effect_is_seldom_confirmed():
    runs = any_confirmed(15, prevalence=0.2, copied=0.0) + any_confirmed(15, prevalence=0.02, copied=0.5)
    assert runs <= stats.binom.ppf(0.999, 30, 0.05)


def test_a_planted_confounder_of_odds_ratio_three_is_found():
    assert power(5) >= 0.8


def test_a_planted_confounder_is_the_only_one():
    for seed in range(3):
        assert {row["concept"] for row in associate(planted_data(seed)) if row["confounder"]} <= {"concept_0"}


def test_an_effect_on_one_side_alone_is_no_confounder():
    assert one_sided_flagged(6, side=1) + one_sided_flagged(6, side=0) <= stats.binom.ppf(0.999, 12, 0.05)


KINDS = {
    "plain": {"prevalence": 0.2, "copied": 0.0},
    "rare": {"prevalence": 0.01, "copied": 0.0},
    "dependent": {"prevalence": 0.2, "copied": 0.5},
    "rare and dependent": {"prevalence": 0.02, "copied": 0.7},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_effect_is_confirmed_in_at_most_alpha_of_200_runs(kind):
    assert any_confirmed(200, **KINDS[kind]) <= stats.binom.ppf(0.99, 200, 0.05)


@pytest.mark.slow
@pytest.mark.parametrize("side", [0, 1])
def test_an_effect_on_one_side_is_flagged_in_at_most_alpha_of_200_runs(side):
    assert one_sided_flagged(200, side) <= stats.binom.ppf(0.99, 200, 0.05)


@pytest.mark.slow
def test_the_mean_false_discovery_proportion_is_at_most_alpha():
    shares = [false_share(associate(raised_data(seed), seed=seed)) for seed in range(100)]
    assert np.mean(shares) <= 0.05


@pytest.mark.slow
def test_power_over_200_runs():
    assert power(200) >= 0.8
