import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from scipy import sparse, stats
from support.associations import dataset

from hf_midrange import columns
from hf_midrange.association import associate, provenance, suspected_mislabels
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
    for told in (False, True):
        scores = [row["score"] for row in found if row["explained"] == told]
        assert scores == sorted(scores, reverse=True)


def test_rows_that_a_confounder_explains_are_told_and_come_last():
    ds, _, _ = noisy()
    findings = associate(ds)
    assert any(findings["confounder"])
    without = findings.filter(lambda row: not row["confounder"])
    some, more = suspected_mislabels(ds, findings), suspected_mislabels(ds, without)
    assert set(some["row"][:]) == set(more["row"][:]) == set(suspected_mislabels(ds)["row"][:])
    assert any(some["explained"])
    assert not any(more["explained"])
    assert list(some["explained"]) == sorted(some["explained"])


def test_positions_must_be_one_per_class():
    ds, _, _ = noisy()
    narrow = columns.with_columns(ds, {"position": (columns.matrix(ds, "position")[:, :2].copy(), columns.vector(2))})
    with pytest.raises(ValueError, match="2 units for 3 classes"):
        suspected_mislabels(narrow, associate(ds))


def unused(seed, flipped, n=2000, typical=5, classes=2, share=0.85):
    """Concepts that are typical of the true class but that the logits do not use, and some labels that are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.permutation(np.arange(n) % classes)
    own = np.where(true[:, None] == np.arange(typical) % classes, share, 1 - share)
    present = np.column_stack([rng.random((n, typical)) < own, rng.random((n, 20)) < 0.2])
    logits = rng.normal(size=(n, classes))
    logits[np.arange(n), true] += 4
    if classes == 2:
        logits = np.outer(logits[:, 1] - logits[:, 0], [-0.5, 0.5])
    wrong = rng.random(n) < flipped
    ids = np.where(wrong, (true + rng.integers(1, classes, n)) % classes, true)
    names = [f"typical_{j}" for j in range(typical)] + [f"noise_{j}" for j in range(20)]
    return dataset(logits, ids, present, names), wrong


def falsely_confirmed(seeds, **kind):
    return sum(any(associate(unused(seed, **kind)[0], seed=seed)["confirmed"]) for seed in range(seeds))


def test_wrong_labels_make_no_confounders_of_concepts_that_are_not_used():
    assert falsely_confirmed(5, flipped=0.05) <= 1
    findings = associate(unused(0, 0.05)[0])
    assert provenance(findings)["suspected_rows"] > 60
    assert all(row["rows_set_aside"] > 20 for row in findings if row["concept"].startswith("typical"))


@pytest.mark.slow
@pytest.mark.parametrize("flipped", [0.0, 0.02, 0.05])
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_the_level_holds_under_wrong_labels(flipped, classes):
    kind = {"flipped": flipped, "classes": classes, "typical": 5 if classes == 2 else 2 * classes}
    assert falsely_confirmed(60, **kind) <= stats.binom.ppf(0.99, 60, 0.05)


def test_one_typical_concept_alone_is_no_confounder_either():
    assert falsely_confirmed(3, flipped=0.05, typical=1, n=6000) == 0


@pytest.mark.slow
@pytest.mark.parametrize("flipped", [0.02, 0.05])
@pytest.mark.parametrize("classes", [2, 3])
def test_the_level_holds_without_a_witness(flipped, classes):
    assert falsely_confirmed(40, flipped=flipped, typical=1, n=6000, classes=classes) <= stats.binom.ppf(
        0.99, 40, 0.05
    )


def test_wrong_labels_are_found_beside_what_they_are_confused_with():
    shares = []
    for seed in range(3):
        ds, wrong = unused(seed, 0.05)
        ds = LogitBands().fit(ds).transform(ds)
        rows = suspected_mislabels(ds, associate(ds, seed=seed))["row"][:]
        shares.append(np.isin(np.flatnonzero(wrong), rows).mean())
    assert np.mean(shares) > 0.85


def test_a_network_that_reads_nothing_but_the_tie_is_told_of():
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.arange(1200) % 2)
    tied = rng.random(1200) < np.where(ids == 1, 0.95, 0.05)
    part = tied & (rng.random(1200) < 0.9)  # a part of the cue, no witness
    z = 0.5 * rng.normal(size=1200) + 4 * (2 * tied - 1)
    present = np.column_stack([tied, part, rng.random((1200, 10)) < 0.2])
    findings = associate(dataset(np.stack([-z, z], 1), ids, present, ["tied", "part", *map(str, range(10))]))
    row = next(row for row in findings if row["concept"] == "tied" and row["confounder"])
    assert row["odds_ratio"] > row["ci_low"] > 1.25
    assert row["reading"] == "cue"


@pytest.mark.parametrize("strength", [1.0, 3.0])
def test_a_tie_that_five_in_a_hundred_rows_break_is_found_all_the_same(strength):
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.arange(800) % 2)
    tied = rng.random(800) < np.where(ids == 1, 0.95, 0.05)
    core = rng.random(800) < np.where(ids == 1, 0.8, 0.2)  # what is typical and not tied speaks for the labels
    z = rng.normal(size=800) + 2 * ids - 1 + strength * (2 * tied - 1)
    findings = associate(dataset(np.stack([-z, z], 1), ids, np.column_stack([tied, core]), ["tied", "core"]))
    assert "tied" in {row["concept"] for row in findings if row["confounder"]}
