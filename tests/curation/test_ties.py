"""Several views and several ties, on simulated embeddings whose truth is known."""

import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, concatenate_datasets
from scipy.stats import skew
from sklearn.metrics import roc_auc_score
from support.tied_rows import simulate

from hf_midrange import columns, curate, curation_report
from hf_midrange.curation.selection import split_by_contrary


sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from tasks.simulator import simulated  # noqa: E402


def contrary_of(curated):
    names = columns.class_label(curated.features, "pseudo_group").names
    return np.array(["like" in name for name in names])[np.array(curated["pseudo_group"])]


def truth_of(ds):
    names = columns.class_label(ds.features, "group").names
    return np.array(["against" in name for name in names])[np.array(ds["group"])]


@pytest.mark.parametrize("classes", [2, 5, 10])
@pytest.mark.parametrize("ties", [0, 1, 2])
def test_every_tie_is_found_and_no_other(classes, ties):
    run = simulated(classes, ties, 0.05 if ties else 1 - 1 / classes, seed=300 + classes)
    curated = curate(run.curation)
    report = curation_report(curated)
    if not ties:
        assert report["verdict"] == "nothing to repair"
        return
    assert report["verdict"] == "repaired"
    assert sorted(tie["view"] for tie in report["ties"]) == ["view_a", "view_b"][:ties]
    found, truth = contrary_of(curated), truth_of(run.curation)
    assert found[truth].mean() > 0.6
    assert truth[found].mean() > 0.8


def test_rows_are_grouped_by_the_ties_they_break():
    curated = curate(simulated(2, 2, 0.1, seed=300).curation)
    names = columns.class_label(curated.features, "pseudo_group").names
    assert {"class 0, like class 1 by view_a", "class 0, like class 1 by view_b"} <= set(names)
    row = next(i for i, cell in enumerate(curated["pseudo_group"]) if names[cell].endswith("1 by view_b"))
    assert "looks like *class 1*" in curated["reason"][row]
    assert "of view_a, typical" in curated["reason"][row]
    weight, cells = np.array(curated["weight"]), np.array(curated["pseudo_group"])
    like = [weight[cells == k].sum() for k, name in enumerate(names) if name.startswith("class 0, like")]
    assert max(like) == pytest.approx(min(like), rel=1e-5)


def test_a_second_view_of_the_same_tie_adds_none():
    ds = simulate(rows=600)
    rng = np.random.default_rng(1)
    again = columns.matrix(ds, "view_side") + rng.normal(size=(600, 6)).astype(np.float32)
    report = curation_report(curate(columns.with_columns(ds, {"view_again": (again, columns.vector(6))})))
    assert len(report["ties"]) == 1
    assert len(report["views"]) == 2


def test_a_view_that_is_the_class_is_no_sign():
    """The class shows in the view with exceptions of its own, which the network gets right."""
    ds = simulate(rows=800, contrary=0.5, strength=0.0)
    rng = np.random.default_rng(2)
    values = rng.normal(size=(800, 4)) + 3.0 * np.eye(4)[np.array(ds["label"])]
    ds = columns.with_columns(ds, {"view_side": (values.astype(np.float32), columns.vector(4))})
    report = curation_report(curate(ds.remove_columns("concepts_side")))
    assert report["views"][0]["auc"] > 0.85
    assert report["verdict"] == "nothing to repair"
    assert "less accurate" in report["explanation"]


def test_a_few_hard_rows_are_no_tie():
    """Two rows of each class lie among the other: a skewed embedding, but too few to tell of."""
    rng = np.random.default_rng(0)
    labels = np.arange(600) % 2
    values = rng.normal(size=(600, 6))
    values[:, 0] = np.where(labels == 1, 6, -6) + rng.normal(size=600)
    values[:4, 0] *= -1
    names = ClassLabel(names=["a", "b"])
    ds = Dataset.from_dict({"label": labels}, features=Features({"label": names}))
    logits = np.column_stack([-values[:, 0], values[:, 0]]).astype(np.float32)
    ds = columns.with_columns(
        ds, {"embedding": (values.astype(np.float32), columns.vector(6)), "logits": (logits, columns.vector(2))}
    )
    report = curation_report(curate(ds))
    assert report["embedding_skew"] > 1
    assert report["verdict"] == "nothing to repair"
    assert "fewer than 5 rows of each class" in report["explanation"]


@pytest.mark.parametrize("of_network", [True, False])
def test_hard_rows_are_no_tie_in_what_a_network_made(of_network):
    """The view knows the class, and rows that are hard to tell are hard for view and network alike.

    What a network made is known by its facts, whatever it is called.
    """
    rng = np.random.default_rng(0)
    labels = np.arange(800) % 2
    sign, hardness = 2 * labels - 1, rng.normal(size=800)
    view = np.column_stack([sign * (0.9 - 0.9 * hardness) + 0.4 * rng.normal(size=800), rng.normal(size=800)])
    values = rng.normal(size=(800, 6))
    values[:, 0] = sign * (2.2 - 1.8 * hardness) + 0.3 * rng.normal(size=800)
    ds = Dataset.from_dict({"label": labels}, features=Features({"label": ClassLabel(names=["a", "b"])}))
    logits = np.column_stack([-values[:, 0], values[:, 0]]).astype(np.float32)
    more = {"embedding": values.astype(np.float32), "logits": logits}
    more = {key: (array, columns.vector(array.shape[1])) for key, array in more.items()}
    more["view_block1"] = (view.astype(np.float32), columns.with_facts(columns.vector(2), of_network=of_network))
    report = curation_report(curate(columns.with_columns(ds, more)))
    assert (report["verdict"] == "nothing to repair") == of_network, report["explanation"]
    assert ("it comes from a network" in report["explanation"]) == of_network


def test_beside_views_the_embedding_must_be_surer():
    tied = simulated(2, 1, 0.05, seed=301).curation
    tied = tied.remove_columns(columns.view_columns(tied.features))
    alone = curation_report(curate(tied))
    blind = np.random.default_rng(1).normal(size=(len(tied), 4)).astype(np.float32)
    beside = curation_report(curate(columns.with_columns(tied, {"view_blind": (blind, columns.vector(4))})))
    assert (alone["embedding_skew_of_sign"], beside["embedding_skew_of_sign"]) == (1.0, 1.5)
    assert 1.0 < alone["embedding_skew"] < 1.5
    assert alone["verdict"] == "repaired"
    assert beside["verdict"] == "nothing to repair"
    assert "is not above 1.5" in beside["explanation"]


class ByHand:
    """The binary default step by step, with dense kernels and formulas of its own."""

    def __init__(self, labels):
        self.labels, self.sign = labels, 2 * labels - 1

    def kernel_loo(self, values, ridge):
        n, values = len(values), values.astype(float)
        standard = np.clip((values - values.mean(axis=0)) / values.std(axis=0), -4, 4)
        kernel = standard @ standard.T
        kernel /= np.trace(kernel) / n
        weights = np.where(self.labels == 1, n / (2 * self.labels.sum()), n / (2 * (1 - self.labels).sum()))
        system = np.zeros((n + 1, n + 1))
        system[:n, :n] = kernel + np.diag(ridge * n / weights)
        system[:n, n] = system[n, :n] = 1
        inverse = np.linalg.inv(system)
        return self.sign - (inverse @ np.append(self.sign, 0))[:n] / np.diag(inverse)[:n]

    def norm(self, s):
        strangers, members = s[self.labels == 0], s[self.labels == 1]
        return (s - (strangers.mean() + members.mean()) / 2) / np.sqrt((strangers.var() + members.var()) / 2)

    def opposite_skew(self, s):
        parts = []
        for part in (s[self.labels == 0], s[self.labels == 1]):
            spread = 1.4826 * np.median(np.abs(part - np.median(part)))
            parts.append(skew(np.clip((part - np.median(part)) / spread, -5, 5)))
        return parts[0] - parts[1]

    def position(self, s):
        low, high = np.median(s[self.labels == 0]), np.median(s[self.labels == 1])
        place = (s - low) / (high - low)
        return np.where(self.labels == 1, place, 1 - place)

    def below(self, place, edge):
        found = place < edge
        for k in (0, 1):
            rows = np.flatnonzero(self.labels == k)
            if found[rows].sum() < 5:
                found[rows[np.argsort(place[rows])[:5]]] = True
        return found


def default_by_hand(embedding, logits, view, labels):
    """Return contrary rows, weights and the confirmation."""
    hand = ByHand(labels)
    norm = hand.norm
    z = logits[:, 1] - logits[:, 0]
    late, early = (norm(norm(hand.kernel_loo(embedding, ridge)) + norm(z)) for ridge in (0.001, 0.3))
    mixed = [norm(late - beta * early) for beta in (-1, -0.5, -0.25, 0, 0.25, 0.5)]
    e = max(mixed, key=hand.opposite_skew)
    v = hand.kernel_loo(view, 0.01)

    low = hand.below(hand.position(e), 0.5)
    c = np.mean([roc_auc_score(low[labels == k], -(v * hand.sign)[labels == k]) for k in (0, 1)])
    scores, edge = (norm(v) + e, 0.5) if c > 0.8 else (v, 0.3)
    contrary = hand.below(hand.position(scores), edge)
    m = np.mean([contrary[labels == k].mean() for k in (0, 1)])
    q = 1 / (1 + np.sqrt(m / (1 - m)))
    share = np.array([contrary[labels == k].sum() for k in (0, 1)])[labels]
    rest = np.array([(~contrary[labels == k]).sum() for k in (0, 1)])[labels]
    weight = np.where(contrary, q / share, (1 - q) / rest)
    return contrary, weight / weight.mean(), c


@pytest.mark.parametrize("strength", [1.5, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_one_view_and_two_classes_are_the_binary_default(seed, strength):
    ds = simulate(rows=400, seed=seed, contrary=0.08, strength=strength).remove_columns("concepts_side")
    arrays = [columns.matrix(ds, name) for name in ("embedding", "logits", "view_side")]
    expected, weight, confirmation = default_by_hand(*arrays, np.array(ds["label"]))
    curated = curate(ds)
    report = curation_report(curated)
    assert report["confirmation"] == pytest.approx(confirmation, abs=1e-3)
    np.testing.assert_array_equal(contrary_of(curated), expected)
    # Up to 40 contrary rows per label the share follows the square root alone.
    np.testing.assert_allclose(np.array(curated["weight"]), weight, rtol=1e-4)


def test_small_patterns_join_each_other():
    labels = np.repeat([0, 1], 50)
    patterns, towards = np.zeros(100, dtype=int), 1 - labels
    patterns[:8], patterns[8:10], patterns[50:56], patterns[56:58] = 1, 3, 1, 2
    found = split_by_contrary(labels, patterns, towards, ["a", "b"], [""] * 100, ["x", "y"])
    of_a = ["a, typical", "a, like b by x", "a, like b by x and y"]
    assert found.names == [*of_a, "b, typical", "b, like a by x", "b, like a by y"]
    assert found.facts["m"] == pytest.approx((0.2 + 0.16) / 2)


def test_more_rows_than_are_fitted_to(monkeypatch):
    """With a sample, rows outside it are scored and grouped as well."""
    monkeypatch.setattr("hf_midrange.curation.ridge.FITTED_ROWS", 500)
    monkeypatch.setattr("hf_midrange.curation.cross_validation.FITTED_ROWS", 500)
    ds = concatenate_datasets([simulate(rows=1000, seed=s) for s in (0, 1)])
    curated = curate(ds)
    truth = np.array(ds["label"]) != np.array(ds["group"])
    assert contrary_of(curated)[truth].mean() > 0.8
    assert truth[contrary_of(curated)].mean() > 0.8
    report = curation_report(curated)
    assert sum(cell["rows"] for cell in report["cells"]) == 2000
    assert report["worst_after"] > report["worst_before"]
