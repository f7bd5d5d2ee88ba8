import warnings

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression
from support.tied_rows import WIDTH, simulate
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from hf_midrange import LinearHead, columns, curate, curation_report, retrain_head
from hf_midrange.head.correction import SINGLE, Scaler, desaturated, fit_correction
from hf_midrange.head.solver import Problem, solve


def problem_of(classes=3, strength=0.05, offset=True, seed=0):
    rng = np.random.default_rng(seed)
    features, labels = rng.normal(size=(120, 8)), rng.integers(0, classes, 120)
    weights = rng.random((120, 1)) + 0.1
    start = rng.normal(size=(120, classes)) if offset else np.zeros((120, classes))
    return Problem(features, start, np.eye(classes)[labels], weights / weights.sum(), strength)


def objective(problem, weight, bias):
    logits = problem.offset + problem.features @ weight.T + bias
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    loss = -(problem.weights[:, 0] * (logs * problem.targets).sum(axis=1)).sum()
    return loss + problem.strength * np.square(weight).sum()


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("classes", [2, 3])
def test_a_correction_reaches_the_optimum_of_an_independent_solver(classes, intercept):
    problem = problem_of(classes)._replace(intercept=intercept)
    (found,) = solve(problem)
    size = classes * 8

    def goal(point):
        return objective(problem, point[:size].reshape(classes, 8), point[size:] if intercept else np.zeros(classes))

    start = np.zeros(size + classes * intercept)
    other = minimize(goal, start, method="SLSQP", options={"maxiter": 2000, "ftol": 1e-12})
    assert objective(problem, *found) <= other.fun + 1e-6
    assert intercept or not found.bias.any()


def test_a_new_head_reaches_the_optimum_of_scikit_learn():
    problem = problem_of(3, 0.01, offset=False)
    oracle = LogisticRegression(C=1 / (2 * problem.strength), tol=1e-10, max_iter=20000)
    oracle.fit(problem.features, problem.targets.argmax(axis=1), problem.weights[:, 0])
    (found,) = solve(problem)
    assert objective(problem, *found) == pytest.approx(objective(problem, oracle.coef_, oracle.intercept_), abs=1e-6)


def test_the_correction_is_the_default_of_two_classes():
    """With two classes, .42 |D|_F^2 of the two rows equals .21 |d|^2 of their difference."""
    problem = problem_of(2, strength=0.42)
    (found,) = solve(problem)
    offset = problem.offset[:, 1] - problem.offset[:, 0]
    sign = problem.targets[:, 1] - problem.targets[:, 0]

    def goal(point):
        margin = sign * (offset + problem.features @ point[:8] + point[8])
        return (problem.weights[:, 0] * np.logaddexp(0, -margin)).sum() + 0.21 * np.square(point[:8]).sum()

    expected = minimize(goal, np.zeros(9), method="BFGS", options={"gtol": 1e-8})
    assert objective(problem, *found) == pytest.approx(expected.fun, abs=1e-8)
    np.testing.assert_allclose(found.weight[1] - found.weight[0], expected.x[:8], atol=1e-4)


def test_a_solver_that_gives_up_says_so():
    with pytest.warns(RuntimeWarning, match="not at the minimum.*gradient"):
        solve(problem_of(), steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve(problem_of())


def test_near_dead_channels_are_left_alone():
    embedding = np.random.default_rng(0).normal(size=(100, 4))
    embedding[:, 2] *= 1e-4
    scaler = Scaler.fit(embedding)
    assert scaler.inverse[2] == 0
    assert np.abs(scaler.apply(embedding * 1e6)).max() == 4
    assert Scaler.fit(embedding, near_dead=0.0).inverse.all()


@pytest.mark.parametrize("rows", [60, 3000])
def test_a_scaler_standardises_and_silences_constant_channels(rows):
    values = np.random.default_rng(1).normal(size=(rows, 200)) * 3 + 50
    values[:, 7] = 1.25
    found = Scaler.fit(values.astype(np.float32), near_dead=0.0).apply(values.astype(np.float32))
    expected = np.clip((values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9), -4, 4)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert not found[:, 7].any()


def test_saturated_logits_are_scaled_to_a_gap_of_four():
    logits, factor = desaturated(np.array([[0.0, 16.0], [16.0, 0.0]]))
    assert factor == 0.25
    assert logits.max() == 4
    assert desaturated(np.array([[0.0, 1.0]]))[1] == 1.0


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


def leaning(rows, seed, contrary=0.05, width=32):
    """Return rows of a weak core and a strong tie, as arrays."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, rows)
    tied = np.where(rng.random(rows) < contrary, 1 - labels, labels)
    values = rng.normal(size=(rows, width))
    values[:, 0] += 1.2 * (2 * labels - 1)
    values[:, 1] += 2.0 * (2 * tied - 1)
    return values.astype(np.float32), labels, 2 * labels + tied


@pytest.mark.parametrize(("rows", "width", "free"), [(2000, 32, True), (200, 512, False)])
def test_where_rows_suffice_less_of_the_given_head_is_kept(rows, width, free):
    values, labels, _ = leaning(1000, 0, width=width)
    fitted = LogisticRegression().fit(values, labels)
    mirrored = np.array([[-0.5], [0.5]])
    head = LinearHead.from_weights(mirrored * fitted.coef_, mirrored[:, 0] * fitted.intercept_)
    values, labels, groups = leaning(rows, 1, width=width)
    names = ClassLabel(names=["a", "b"])
    base = Dataset.from_dict({"label": labels}, features=Features({"label": names}))
    more = {
        "embedding": (values, columns.vector(width)),
        "logits": (head(values).numpy(), columns.vector(2)),
        "group": (groups, ClassLabel(num_classes=4)),
    }
    curated = curate(columns.with_columns(base, more), strategy="group")
    report = curation_report(curated)
    assert (report["penalty"] < 0.2 and report["kept"] < 1) == free
    new, new_labels, new_groups = leaning(4000, 2, 0.5, width)
    right = retrain_head(curated, head)(new).argmax(dim=1).numpy() == new_labels
    assert min(right[new_groups == k].mean() for k in range(4)) > (0.7 if free else 0.2)


def test_nothing_to_repair_returns_the_given_head_unless_forced():
    curated, head = curate(simulate(contrary=0.5, strength=0.0)), true_head()
    assert curation_report(curated)["verdict"] == "none seen"
    assert retrain_head(curated, head) is head
    assert not torch.equal(retrain_head(curated, head, force=True).weight, head.weight)


def test_folds_solved_together_are_those_solved_alone():
    problem = problem_of(3)
    folds = np.arange(120) % 4
    parts = problem.weights * (folds[:, None] != np.arange(4))
    parts = parts / parts.sum(axis=0)
    for k, found in enumerate(solve(problem._replace(weights=parts))):
        kept = folds != k
        whole = problem._replace(weights=parts[:, [k]])
        (alone,) = solve(Problem(*(part[kept] for part in whole[:4]), problem.strength))
        assert objective(whole, *found) == pytest.approx(objective(whole, *alone), abs=1e-8)
        np.testing.assert_allclose(found.weight, alone.weight, atol=1e-4)


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
    found = fit_correction(values, np.zeros((600, classes)), labels, weights, 0.04 / classes)
    mine = found.weight * values.std(axis=0, dtype=float)
    at = found.bias + found.weight @ values.mean(axis=0, dtype=float)

    def goal(weight, bias):
        losses = torch.nn.functional.cross_entropy(
            torch.as_tensor(scaled @ weight.T + bias), torch.as_tensor(labels), reduction="none"
        )
        return float(losses.numpy() @ weights) + 0.04 / classes * np.square(weight).sum()

    assert goal(mine, at) == pytest.approx(goal(weight, bias), abs=1e-5)


def test_without_a_model_a_new_head_is_fitted():
    head = retrain_head(curate(simulate()))
    assert head.weight.shape == (2, WIDTH)
    assert head.class_names == ("class 0", "class 1")


def test_a_head_without_bias_is_corrected_without():
    """Its weights alone reach what a solver of the same problem on uncentred embeddings reaches."""
    ds, model = simulate(), nn.Sequential(nn.Linear(WIDTH, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(true_head().weight / 4)  # not saturated
    curated = curate(ds).remove_columns("reason")  # the form of the correction is the default's without a report
    head = retrain_head(curated, model)
    assert not head.has_bias
    assert not head.bias.any()
    x, y, w = columns.matrix(curated, "embedding"), np.array(ds["label"]), np.array(curated["weight"])
    deviation, offset = x.std(axis=0, dtype=float), x @ true_head().weight.numpy().T / 4
    scaled = (np.clip((x - x.mean(axis=0)) / deviation, -4, 4) + x.mean(axis=0) / deviation).astype(float)

    def goal(difference):
        margin = (2 * y - 1) * (offset[:, 1] - offset[:, 0] + scaled @ difference)
        return (w * np.logaddexp(0, -margin)).sum() / w.sum() + 0.21 * np.square(difference).sum()

    change = (head.weight - true_head().weight / 4).numpy() * deviation
    assert goal(change[1] - change[0]) == pytest.approx(minimize(goal, np.zeros(WIDTH)).fun, abs=1e-6)
    merged = head.merge_into(model)
    assert merged[0].bias is None
    with pytest.raises(ValueError, match="no bias"):
        LinearHead.from_weights(np.zeros((2, WIDTH)), [0, 1]).merge_into(model)


def test_a_head_under_weight_norm_is_refused_by_name():
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.weight_norm):
        model = nn.Sequential(nn.ReLU(), wrap(nn.Linear(WIDTH, 2)))
        with pytest.raises(ValueError, match="'1' is computed from other tensors"):
            LinearHead.from_model(model)
        with pytest.raises(ValueError, match="'1' is computed from other tensors"):
            true_head().merge_into(model)


def test_a_head_is_taken_and_put_by_name():
    model = nn.ModuleDict({"first": nn.Linear(WIDTH, 2), "second": nn.Linear(WIDTH, 2)})
    assert torch.equal(LinearHead.from_model(model, "first").weight, model["first"].weight)
    merged = true_head().merge_into(model, "first")
    assert torch.equal(merged["first"].weight, true_head().weight)
    assert torch.equal(merged["second"].weight, model["second"].weight)
    true_head().put_into(model, "second")
    assert torch.equal(model["second"].weight, true_head().weight)


def test_the_names_of_a_config_go_with_the_head():
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        id2label={0: "land", 1: "water"}, label2id={"land": 0, "water": 1},
    )  # fmt: skip
    head = LinearHead.from_model(BertForSequenceClassification(config))
    assert head.class_names == ("land", "water")
    assert repr(head) == "LinearHead(2 classes x 8: land, water)"
    config.id2label = {0: "LABEL_0", 1: "LABEL_1"}
    assert LinearHead.from_model(BertForSequenceClassification(config)).class_names is None


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
    with pytest.raises(TypeError, match="train"):
        retrain_head(DatasetDict({"train": curated}))
    weight = np.array(curated["weight"])
    weight[4] = -1
    with pytest.raises(ValueError, match="row 4 has -1"):
        retrain_head(columns.with_columns(curated, {"weight": (weight, Value("float32"))}))
    with pytest.raises(KeyError, match="curate"):
        retrain_head(curated.remove_columns("weight"))
    weight[4] = np.nan
    with pytest.raises(ValueError, match="row 4 has nan"):
        retrain_head(columns.with_columns(curated, {"weight": (weight, Value("float32"))}))
    with pytest.raises(ValueError, match="positive weight"):
        retrain_head(columns.with_columns(curated, {"weight": (np.zeros(400, np.float32), Value("float32"))}))
    with pytest.raises(ValueError, match="NaN"):
        LinearHead.from_weights([[np.nan]], [0])
    with pytest.raises(ValueError, match="width 24"):
        true_head()(np.zeros((3, 5)))
