import numpy as np
import pytest
import torch
from datasets import DatasetDict, Value
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from support.tied_rows import WIDTH, simulate
from torch import nn

from hf_midrange import LinearHead, columns, curate, curation_report, retrain_head
from hf_midrange.head.convex import Problem, solve, solve_together
from hf_midrange.head.correction import SINGLE, desaturated, fit_head, fit_scaler


def problem_of(classes=3, penalty="l2", strength=0.05, offset=True, seed=0):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(120, 8)), rng.integers(0, classes, 120)
    weights = rng.random(120) + 0.1
    start = rng.normal(size=(120, classes)) if offset else np.zeros((120, classes))
    arrays = (features, start, labels, weights / weights.sum())
    return Problem(*map(torch.as_tensor, arrays), strength, penalty)


def objective(problem, weight, bias):
    logits = problem.offset.numpy() + problem.features.numpy() @ weight.T + bias
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -(problem.weights.numpy() * logs[np.arange(120), problem.labels.numpy()]).sum()
    return loss + problem.strength * (np.square(weight).sum() if problem.penalty == "l2" else np.abs(weight).sum())


@pytest.mark.parametrize("classes", [2, 3])
def test_l2_correction_reaches_the_optimum_of_an_independent_solver(classes):
    problem = problem_of(classes)
    found = solve(problem)
    size = classes * 8

    def goal(point):
        return objective(problem, point[:size].reshape(classes, 8), point[size:])

    other = minimize(goal, np.zeros(size + classes), method="SLSQP", options={"maxiter": 2000, "ftol": 1e-12})
    assert found.objective == pytest.approx(objective(problem, found.weight.numpy(), found.bias.numpy()), abs=1e-10)
    assert found.objective <= other.fun + 1e-6


@pytest.mark.parametrize(("penalty", "solver"), [("l2", "lbfgs"), ("l1", "saga")])
def test_a_new_head_reaches_the_optimum_of_scikit_learn(penalty, solver):
    problem = problem_of(3, penalty, 0.01, offset=False)
    scale = 1 / (2 * problem.strength) if penalty == "l2" else 1 / problem.strength
    ratio = 0.0 if penalty == "l2" else 1.0
    oracle = LogisticRegression(C=scale, l1_ratio=ratio, solver=solver, tol=1e-10, max_iter=20000)
    oracle.fit(problem.features.numpy(), problem.labels.numpy(), problem.weights.numpy())
    assert solve(problem).objective == pytest.approx(objective(problem, oracle.coef_, oracle.intercept_), abs=1e-4)


def test_l1_sets_weights_to_zero():
    found = solve(problem_of(3, "l1", 0.03))
    assert (found.weight.abs() < 1e-12).double().mean() > 0.3


def test_the_correction_is_the_default_of_two_classes():
    """With two classes, .42 |D|_F^2 of the two rows equals .21 |d|^2 of their difference."""
    problem = problem_of(2, strength=0.42)
    found = solve(problem)
    offset = (problem.offset[:, 1] - problem.offset[:, 0]).numpy()
    sign = 2 * problem.labels.numpy() - 1

    def goal(point):
        margin = sign * (offset + problem.features.numpy() @ point[:8] + point[8])
        return (problem.weights.numpy() * np.logaddexp(0, -margin)).sum() + 0.21 * np.square(point[:8]).sum()

    expected = minimize(goal, np.zeros(9), method="BFGS", options={"gtol": 1e-8})
    assert found.objective == pytest.approx(expected.fun, abs=1e-8)
    np.testing.assert_allclose((found.weight[1] - found.weight[0]).numpy(), expected.x[:8], atol=1e-4)


def test_near_dead_channels_are_left_alone():
    embedding = torch.randn(100, 4, dtype=torch.float64)
    embedding[:, 2] *= 1e-4
    scaler = fit_scaler(embedding)
    assert scaler.inverse[2] == 0
    assert scaler.apply(embedding * 1e6).abs().max() == 4


def test_saturated_logits_are_scaled_to_a_gap_of_four():
    logits, factor = desaturated(torch.tensor([[0.0, 16.0], [16.0, 0.0]]))
    assert factor == 0.25
    assert logits.max() == 4
    assert desaturated(torch.tensor([[0.0, 1.0]]))[1] == 1.0


def true_head(classes=2):
    weight = np.zeros((classes, WIDTH))
    weight[:, :classes], weight[:, classes : 2 * classes] = np.eye(classes), np.eye(classes)
    return LinearHead.from_weights(weight, np.zeros(classes))


def worst_group(head, ds):
    predictions = head(columns.matrix(ds, "embedding")).argmax(dim=1).numpy()
    labels, groups = np.array(ds["label"]), np.array(ds["group"])
    pairs = {(y, g) for y, g in zip(labels.tolist(), groups.tolist(), strict=True)}
    return min((predictions == labels)[(labels == y) & (groups == g)].mean() for y, g in pairs)


@pytest.mark.parametrize("classes", [2, 5])
def test_a_repaired_head_is_better_on_the_worst_group_of_unseen_rows(classes):
    ds, new = simulate(400 * classes, classes), simulate(2000, classes, 1 - 1 / classes, seed=9)
    head = true_head(classes)
    curated = curate(ds)
    repaired, oracle = retrain_head(curated, head), retrain_head(curate(ds, strategy="group"), head)
    before, after, best = (worst_group(each, new) for each in (head, repaired, oracle))
    assert after - before > 0.1
    assert after - before > 0.8 * (best - before)


def test_nothing_to_repair_returns_the_given_head_unless_forced():
    curated, head = curate(simulate(contrary=0.5, strength=0.0)), true_head()
    assert curation_report(curated)["verdict"] == "nothing to repair"
    assert retrain_head(curated, head) is head
    assert not torch.equal(retrain_head(curated, head, force=True).weight, head.weight)


@pytest.mark.parametrize("options", [{"prior": "none"}, {"prior": "none", "penalty": "l1"}, {"subsamples": 3}])
def test_other_recipes_give_working_heads(options):
    ds, head = simulate(), true_head()
    fitted = retrain_head(curate(ds), head, **options)
    predictions = fitted(columns.matrix(ds, "embedding")).argmax(dim=1).numpy()
    assert (predictions == np.array(ds["label"])).mean() > 0.75


def test_subsamples_are_averaged():
    """Each subset has every pseudo-group at the size of the smallest; the mean of their heads comes back."""
    curated = curate(simulate())
    cells = np.array(curated["pseudo_group"])
    sizes = np.bincount(cells)
    rng = np.random.default_rng(7)
    heads = []
    for _ in range(3):
        rows = np.concatenate([rng.choice(np.flatnonzero(cells == c), sizes.min(), replace=False) for c in range(4)])
        alone = columns.with_columns(curated.select(rows), {"weight": (np.ones(len(rows)), Value("float32"))})
        heads.append(retrain_head(alone, prior="none", penalty="l1"))
    expected = torch.stack([head.weight for head in heads]).mean(dim=0)
    found = retrain_head(curated, prior="none", penalty="l1", subsamples=3, seed=7)
    torch.testing.assert_close(found.weight, expected)


def test_folds_solved_together_are_those_solved_alone():
    problem = problem_of(3)
    folds = torch.arange(120) % 4
    parts = torch.stack([problem.weights * (folds != k) for k in range(4)], dim=1)
    parts = parts / parts.sum(dim=0)
    for k, found in enumerate(solve_together(problem._replace(weights=parts))):
        kept = folds != k
        alone = solve(
            Problem(problem.features[kept], problem.offset[kept], problem.labels[kept], parts[kept, k], 0.05)
        )
        assert found.objective == pytest.approx(alone.objective, abs=1e-8)
        torch.testing.assert_close(found.weight, alone.weight, atol=1e-4, rtol=0)


def test_single_precision_reaches_the_same_objective():
    problem = problem_of(2)
    single = solve(problem._replace(features=problem.features.float()))
    assert single.objective == pytest.approx(solve(problem).objective, abs=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_head_on_large_embeddings_is_at_the_optimum_of_scikit_learn(classes):
    """They are standardised and multiplied in float32; scikit-learn does both in float64."""
    rng = np.random.default_rng(1)
    labels, weights = np.arange(600) % classes, rng.random(600) + 0.1
    values = 9 + rng.normal(size=(600, 40)) @ rng.normal(size=(40, 900)) + rng.normal(size=(600, 900))
    values[np.arange(600), labels] += 30
    values, weights = values.astype(np.float32), weights / weights.sum()
    assert values.size > SINGLE
    scaled = np.clip((values - values.mean(axis=0, dtype=float)) / values.std(axis=0, dtype=float), -4, 4)
    oracle = LogisticRegression(C=1 / (2 * 0.04 / classes), tol=1e-10, max_iter=20000).fit(scaled, labels, weights)
    weight, bias = oracle.coef_, oracle.intercept_
    if classes == 2:  # its one row has the penalty of both
        oracle = LogisticRegression(C=1 / 0.02, tol=1e-10, max_iter=20000).fit(scaled, labels, weights)
        weight, bias = (np.concatenate([-part, part]) / 2 for part in (oracle.coef_, oracle.intercept_))
    found = fit_head(*map(torch.as_tensor, (values, labels, weights)), None, classes)
    mine = found.weight.numpy().astype(float) * values.std(axis=0, dtype=float)
    at = found.bias.numpy() + found.weight.numpy().astype(float) @ values.mean(axis=0, dtype=float)

    def goal(weight, bias):
        losses = torch.nn.functional.cross_entropy(
            torch.as_tensor(scaled @ weight.T + bias), torch.as_tensor(labels), reduction="none"
        )
        return float(losses.numpy() @ weights) + 0.04 / classes * np.square(weight).sum()

    assert goal(mine, at) == pytest.approx(goal(weight, bias), abs=1e-5)


def test_without_a_model_a_new_head_is_fitted():
    assert retrain_head(curate(simulate())).weight.shape == (2, WIDTH)


def test_saving_and_loading(tmp_path):
    head = LinearHead.from_weights(np.eye(3), [1, 2, 3], ("a", "b", "c"))
    head.save_pretrained(tmp_path / "head")
    loaded = LinearHead.from_pretrained(tmp_path / "head")
    assert torch.equal(loaded.weight, head.weight)
    assert torch.equal(loaded.bias, head.bias)
    assert loaded.class_names == ("a", "b", "c")
    with pytest.raises(FileNotFoundError, match="save_pretrained"):
        LinearHead.from_pretrained(tmp_path)


def test_merging_changes_the_classifier_only():
    model = nn.Sequential(nn.Linear(5, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 2))
    merged = true_head().merge_into(model)
    assert type(merged) is type(model)
    assert torch.equal(merged[0].weight, model[0].weight)
    assert torch.equal(merged[2].weight, true_head().weight)
    assert not torch.equal(model[2].weight, merged[2].weight)
    with pytest.raises(ValueError, match=r"\(2, 24\)"):
        LinearHead.from_weights(np.zeros((2, 3)), np.zeros(2)).merge_into(model)


def test_bad_input_is_refused():
    curated = curate(simulate())
    with pytest.raises(ValueError, match="width 7"):
        retrain_head(curated, LinearHead.from_weights(np.zeros((2, 7)), np.zeros(2)))
    with pytest.raises(ValueError, match="penalty"):
        retrain_head(curated, penalty="l3")
    with pytest.raises(TypeError, match="train"):
        retrain_head(DatasetDict({"train": curated}))
    weight = np.array(curated["weight"])
    weight[4] = -1
    with pytest.raises(ValueError, match="row 4 has -1"):
        retrain_head(columns.with_columns(curated, {"weight": (weight, Value("float32"))}))
    with pytest.raises(KeyError, match="curate"):
        retrain_head(curated.remove_columns("weight"))
    weight[4] = 0
    with pytest.raises(ValueError, match="row 4.*drop it"):
        retrain_head(columns.with_columns(curated, {"weight": (weight, Value("float32"))}))
    weight[4] = np.nan
    with pytest.raises(ValueError, match="row 4 has nan"):
        retrain_head(columns.with_columns(curated, {"weight": (weight, Value("float32"))}))
    for wrong in ({"strength": 0.0}, {"strength": -1.0}, {"subsamples": -1}):
        with pytest.raises(ValueError, match="must be positive"):
            retrain_head(curated, **wrong)
    with pytest.raises(ValueError, match="positive weight"):
        retrain_head(columns.with_columns(curated, {"weight": (np.zeros(400, np.float32), Value("float32"))}))
    with pytest.raises(ValueError, match="NaN"):
        LinearHead.from_weights([[np.nan]], [0])
    with pytest.raises(ValueError, match="width 24"):
        true_head()(np.zeros((3, 5)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_solver_gives_the_same_optimum_on_a_gpu():
    problem = problem_of()
    there = Problem(*(part.cuda() for part in problem[:4]), *problem[4:])
    assert solve(there).objective == pytest.approx(solve(problem).objective, abs=1e-8)
