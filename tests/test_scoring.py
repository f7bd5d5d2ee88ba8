import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from hf_midrange import group_metrics
from hf_midrange.scoring import wilson_interval, worst_interval


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_interval_equals_statsmodels(counts, confidence):
    wins, trials = counts
    low, high = wilson_interval(wins, trials, confidence)
    expected = proportion_confint(wins, trials, alpha=1 - confidence, method="wilson")
    np.testing.assert_allclose([low, high], expected, atol=1e-9)


def test_no_trials_tell_nothing():
    low, high = wilson_interval([0, 1], [0, 2])
    assert (low[0], high[0]) == (0, 1)


def test_group_metrics_on_a_table_worked_by_hand():
    metrics = group_metrics([0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [0, 0, 2, 2, 2], group_names=["a", "empty", "b"])
    assert metrics["mean"] == pytest.approx(3 / 5)
    assert metrics["worst_group_name"] == "a"
    assert metrics["worst_group"] == 0.5
    assert metrics["groups"]["b"]["accuracy"] == pytest.approx(2 / 3)
    assert "empty" not in metrics["groups"]


def test_mean_reweighted_uses_the_training_shares():
    metrics = group_metrics([0, 1], [0, 0], [0, 1], train_group_shares=[0.9, 0.1])
    assert metrics["mean_reweighted"] == pytest.approx(0.9)
    assert metrics["mean"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([0], [0, 1], [0, 0]), "one shape"),
        (([], [], []), "no row"),
        (([0], [0], [3]), None),
    ],
)
def test_bad_input_is_refused_or_named(arguments, message):
    if message is None:
        with pytest.raises(ValueError, match="2 group names"):
            group_metrics(*arguments, group_names=["a", "b"])
        return
    with pytest.raises(ValueError, match=message):
        group_metrics(*arguments)


def test_the_interval_of_the_worst_group_covers_the_lowest_accuracy():
    rng = np.random.default_rng(0)
    for groups, rows, share in ((4, 50, 0.9), (16, 30, 0.9), (30, 10, 0.95)):
        covered, totals = 0, np.full(groups, rows)
        for _ in range(400):
            low, high = worst_interval(rng.binomial(totals, share), totals)
            covered += low <= share <= high
        assert covered / 400 >= 0.93
    low, high = worst_interval(np.array([9, 5]), np.array([10, 10]))
    assert low == pytest.approx(float(wilson_interval(5, 10)[0]))
    assert high == pytest.approx(float(stats.beta.ppf(1 - 0.025 / 2, 6, 5)))
