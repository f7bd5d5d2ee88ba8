"""Models of a number: errors by group, findings on the signed error, and the repair of the head."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from scipy import stats
from torch import nn

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.head.proof import prove_repaired


class Number(nn.Module):
    """A model of one number from vectors of 8 entries."""

    def __init__(self, weight):
        super().__init__()
        self.num_classes, self.fc = 1, nn.Linear(8, 1)
        with torch.no_grad():
            self.fc.weight.copy_(torch.tensor(weight).float()[None])
            self.fc.bias.fill_(0.5)

    def forward(self, x):
        return self.fc(x)


def rows(seed: int, tie: float, n: int = 1500, hats: float = 0.8) -> tuple[Dataset, Number]:
    """Return embeddings with the target in entry 0 and a hat, more common where it is high, in entry 1; a model."""
    rng = np.random.default_rng(seed)
    target = rng.normal(size=n)
    hat = np.where(rng.random(n) < tie, target > 0, rng.random(n) < 0.5)
    x = rng.normal(size=(n, 8)).astype(np.float32)
    x[:, 0] = target + 0.6 * rng.normal(size=n)
    x[:, 1] = hat + 0.2 * rng.normal(size=n)
    model = Number([0.6, hats, 0, 0, 0, 0, 0, 0])
    with torch.no_grad():
        z = model(torch.from_numpy(x)).numpy()
    made = {"embedding": (x, columns.vector(8)), "logits": (z, columns.vector(1))}
    return columns.with_columns(Dataset.from_dict({"hat": hat.tolist(), "label": target.tolist()}), made), model


def found(seed: int, tie: float, **settings):
    ds, model = rows(seed, tie, **settings)
    view = hm.signed_error(ds)
    view = hm.annotate(hm.LogitBands("quantile").fit(view).transform(view), [hm.Annotations(["hat"])])
    findings = hm.associate(view)
    return ds, model, findings, hm.repair_regression(view, findings, model)


def errors_by_hand(ds: Dataset, model: nn.Module) -> dict[bool, float]:
    """Return the mean absolute error where hat and height of the target disagree, and where they agree."""
    with torch.no_grad():
        z = model(torch.from_numpy(columns.matrix(ds, "embedding").copy())).numpy()[:, 0]
    target, hat = np.array(ds["label"]), np.array(ds["hat"])
    return {agree: float(np.abs(z - target)[(hat == (target > 0)) == agree].mean()) for agree in (False, True)}


def test_a_hat_that_moves_the_number_is_found_and_repaired():
    ds, model, findings, repair = found(0, tie=0.9)
    best = findings[0]
    assert (best["unit_name"], best["concept"], best["confirmed"]) == ("signed error", "hat", True)
    assert repair.repaired
    assert repair.concepts == ("hat",)
    assert repair.after["worst_group"] < repair.before["worst_group"]
    merged = repair.head.merge_into(model)
    fresh, _ = rows(1, tie=0.9)
    before, after = errors_by_hand(fresh, model), errors_by_hand(fresh, merged)
    assert after[False] < 0.8 * before[False]  # 1,500 rows that nothing was fitted to
    assert abs(float(merged.fc.weight.detach()[0, 1])) < 0.4
    prove_repaired(merged)


def test_where_no_concept_is_tied_to_the_error_the_head_stays():
    _, model, _, repair = found(2, tie=0.0, hats=0.0)
    assert not repair.repaired
    assert repair.before == repair.after
    merged = repair.head.merge_into(model)
    assert torch.equal(merged.fc.weight, model.fc.weight)


def test_a_noise_concept_repairs_nothing_by_chance():
    kept = [found(seed, tie=0.0, hats=0.0, n=400)[3].repaired for seed in range(10, 20)]
    assert sum(kept) == 0


def test_the_fit_is_that_of_weighted_least_squares():
    from hf_midrange.head.regression import _fitted

    rng = np.random.default_rng(0)
    x, error, weights = rng.normal(size=(60, 4)), rng.normal(size=60), rng.random(60)
    slope, offset = _fitted(x, error, weights, 0.0)
    root = np.sqrt(weights)
    expected = np.linalg.lstsq(np.c_[x, np.ones(60)] * root[:, None], -error * root, rcond=None)[0]
    np.testing.assert_allclose([*slope, offset], expected, atol=1e-6)


def test_group_errors_have_the_t_intervals_of_each_group_and_of_the_worst():
    rng = np.random.default_rng(0)
    predictions, groups = rng.normal(size=90), np.repeat([0, 1, 2], 30)
    got = hm.group_errors(predictions, np.zeros(90), groups, group_names=["a", "b", "c"])
    for k, name in enumerate("abc"):
        values = np.abs(predictions[groups == k])
        low, high = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
        assert got["groups"][name] == pytest.approx({"mae": values.mean(), "ci_low": low, "ci_high": high, "n": 30})
    assert got["worst_group"] == max(each["mae"] for each in got["groups"].values())
    assert got["worst_group_ci"][0] <= got["worst_group"] <= got["worst_group_ci"][1]
    with pytest.raises(ValueError, match="must be finite"):
        hm.group_errors([np.nan], [0.0], [0])
    with pytest.raises(ValueError, match="a prediction, a target and a group each row"):
        hm.group_errors([1.0, 2.0], [0.0, 0.0], [0])
    with pytest.raises(ValueError, match="group ids run from 0 to 3 but there are 2 group names"):
        hm.group_errors([1.0, 2.0], [0.0, 0.0], [0, 3], group_names=["a", "b"])


def test_the_interval_of_the_worst_group_covers_the_largest_true_error():
    rng = np.random.default_rng(0)
    truth, covered = np.array([1.0, 0.9, 1.0]) * (2 / np.pi) ** 0.5, 0
    for _ in range(400):
        values = rng.normal(size=(3, 60)) * np.array([[1.0], [0.9], [1.0]])
        low, high = hm.group_errors(values.ravel(), np.zeros(180), np.repeat([0, 1, 2], 60))["worst_group_ci"]
        covered += low <= truth.max() <= high
    assert covered >= 0.93 * 400


def test_another_head_is_refused():
    ds, _ = rows(0, tie=0.5, n=50)
    view, head = hm.signed_error(ds), hm.LinearHead.from_weights(np.zeros((3, 8)), np.zeros(3))
    with pytest.raises(ValueError, match="does not give one number from embeddings of width 8"):
        hm.repair_regression(view, None, head)
