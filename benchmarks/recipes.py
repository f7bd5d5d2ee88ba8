"""Recipes of the literature that are more than weights of rows: each fits a classifier of its own, no group read.

All are written anew from the papers and, where it is public, the code, for frozen features; none was tuned here.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from datasets import Dataset
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier

from hf_midrange import LinearHead, columns
from hf_midrange.curation.inputs import read_inputs
from hf_midrange.head.correction import Scaler, desaturated, fit_correction


Predict = Callable[[np.ndarray], np.ndarray]
"""From embeddings `(n, d)` to class ids `(n,)`."""

Recipe = Callable[[Dataset, LinearHead, int], Predict]
"""Given curation rows, the ERM head and a seed, returns a fitted classifier."""

ETAS = (0.5, 1.0, 1.5, 2.0)
EVALS_K, EVALS_L1 = (10, 20, 40, 80, 160, 300), (0.01, 0.1, 1.0)
"""Rows of a class and loss, and penalties, of which the best is taken."""
EIIL_STEPS = 1500
PROTOTYPES, DPE_EPOCHS = 15, 20
NEURON_EPOCHS = 40


def arrays(ds: Dataset) -> tuple[np.ndarray, np.ndarray, int]:
    """Return embeddings in float32, labels, and the number of classes."""
    labels = columns.labels(ds)
    return columns.matrix(ds, columns.EMBEDDING).copy(), labels, len(columns.class_label(ds.features).names)


def worst_class(predicted: np.ndarray, labels: np.ndarray) -> float:
    return min(float((predicted == labels)[labels == k].mean()) for k in np.unique(labels))


def with_view(ds: Dataset, head: LinearHead, seed: int, hard: bool) -> Predict:
    """Fit a head beside a view's prediction, which is dropped afterwards: the view of strategy `view` as biased model.

    With `hard` the view counts by its most likely class alone, by the frequencies of labels there (uLA, Tsirigotis et
    al. 2023), else by its calibrated probabilities (product of experts, Clark et al. 2019, Sanh et al. 2021). Its
    weight is that with the best accuracy out of fold, balanced over label x the view's class.
    """
    values, labels, classes = arrays(ds)
    scores = max(read_inputs(ds, None, seed).views, key=lambda view: (view.dense, view.skew)).scores
    guess = scores.argmax(axis=1)
    if hard:
        table = np.array([np.bincount(labels[guess == k], minlength=classes) + 1 for k in range(classes)])
        biased = np.log(table / table.sum(axis=1, keepdims=True))[guess]
    else:
        biased = log_softmax(scores / _temperature(scores, labels), axis=1)
    weights = 1 / np.bincount(labels)[labels]
    offset, factor = desaturated(head(values).double().numpy())
    folds = np.random.default_rng(seed).permutation(len(labels)) % 5

    def fitted(eta: float, rows: np.ndarray):
        found = fit_correction(
            values[rows], (offset + eta * biased)[rows], labels[rows], weights[rows], 0.84 / classes
        )
        return lambda new: factor * head(new).double().numpy() + new @ found.weight.T + found.bias

    def balanced_accuracy(eta: float) -> float:
        right = np.empty(len(labels), dtype=bool)
        for fold in range(5):
            out = folds == fold
            right[out] = fitted(eta, ~out)(values[out]).argmax(axis=1) == labels[out]
        cells = labels * classes + guess
        return float(np.mean([right[cells == cell].mean() for cell in np.unique(cells)]))

    best = max(ETAS, key=balanced_accuracy)
    final = fitted(best, np.ones(len(labels), dtype=bool))
    return lambda new: final(new).argmax(axis=1)


def _temperature(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature of least class-balanced log loss."""
    weights = 1 / np.bincount(labels)[labels]

    def loss(log: float) -> float:
        chosen = log_softmax(scores / np.exp(log), axis=1)[np.arange(len(labels)), labels]
        return -float((weights * chosen).sum() / weights.sum())

    return float(np.exp(minimize_scalar(loss, bounds=(-5, 5), method="bounded").x))


def evals(ds: Dataset, head: LinearHead, seed: int) -> Predict:
    """EVaLS (Ghaznavi et al. 2024), rows and penalty chosen by environments of EIIL on another half."""
    values, labels, _ = arrays(ds)
    half = np.random.default_rng(seed).permutation(len(labels)) % 2 == 0
    logits = head(values).double().numpy()
    environment = environments(logits[~half], labels[~half], seed)
    cells = 2 * labels[~half] + environment
    fit = np.flatnonzero(half)
    loss = -log_softmax(logits[fit], axis=1)[np.arange(len(fit)), labels[fit]]
    scaler, best, chosen = Scaler.fit(values[fit]), -1.0, None
    features = scaler.apply(values)
    for k in EVALS_K:
        parts = []
        for y in np.unique(labels[fit]):
            order = np.flatnonzero(labels[fit] == y)
            order = order[np.argsort(loss[order], kind="stable")]
            parts += [order[: min(k, len(order) // 2)], order[-min(k, len(order) // 2) :]]
        rows = fit[np.concatenate(parts)]
        for l1 in EVALS_L1:
            one = LogisticRegression(C=1 / l1, l1_ratio=1.0, solver="liblinear", random_state=seed)
            model = OneVsRestClassifier(one).fit(features[rows], labels[rows])
            right = model.predict(features[~half]) == labels[~half]
            worst = min(right[cells == cell].mean() for cell in np.unique(cells) if (cells == cell).sum() >= 5)
            if worst > best:
                best, chosen = worst, model
    return lambda new: chosen.predict(scaler.apply(new))


def environments(logits: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return which of two environments each row is in, that part the ERM's errors most (EIIL, Creager et al. 2021)."""
    torch.manual_seed(seed)
    scale = torch.tensor(1.0, requires_grad=True)
    each = torch.nn.functional.cross_entropy(
        torch.as_tensor(logits) * scale, torch.as_tensor(labels), reduction="none"
    )
    soft = torch.randn(len(labels), dtype=torch.float64, requires_grad=True)
    # The penalty is linear in the rows' own gradients by the scale, which are the same in every step.
    gradients = torch.stack([torch.autograd.grad(one, scale, retain_graph=True)[0] for one in each]).detach()
    optimiser = torch.optim.Adam([soft], lr=0.01)
    for _ in range(EIIL_STEPS):
        share = torch.sigmoid(soft)
        penalty = (share * gradients).mean().square() + ((1 - share) * gradients).mean().square()
        optimiser.zero_grad()
        (-penalty).backward()
        optimiser.step()
    return (soft.detach() > 0).numpy().astype(int)


def prototypes(ds: Dataset, head: LinearHead, seed: int) -> Predict:
    """DPE (To et al. 2025): diverse prototypes on class-balanced subsets, of the epoch with the best worst class."""
    values, labels, classes = arrays(ds)
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    order = rng.permutation(len(labels))
    fit, choose = order[: int(0.8 * len(order))], order[int(0.8 * len(order)) :]
    features, given = _unit_rows(values), torch.as_tensor(labels)
    width, kept = features.shape[1], []
    size = min(np.bincount(labels[fit], minlength=classes))
    for j in range(PROTOTYPES):
        rows = np.concatenate([rng.choice(fit[labels[fit] == k], size, replace=False) for k in range(classes)])
        points = (0.01 * torch.randn(classes, width)).requires_grad_()
        scale = torch.ones(1, requires_grad=True)
        optimiser = torch.optim.SGD([points, scale], lr=1e-3, momentum=0.9)
        best, state = -1.0, (points.detach().clone(), scale.detach().clone())
        for _ in range(DPE_EPOCHS):
            for batch in np.split(rng.permutation(rows), range(256, len(rows), 256)):
                far = _distances(features[batch], points, scale)
                loss = torch.nn.functional.cross_entropy(-30 * far, given[batch])
                loss = loss + 10 * points.square().mean(dim=0).abs().mean()
                if kept:
                    earlier = torch.stack([old for old, _ in kept])
                    alike = torch.einsum("kd,ikd->ik", points, earlier).sum(dim=0) / (width - 1)
                    loss = loss + 5e4 / (1 + 0.05 * j) * alike.mean().abs() / max(1, len(kept))
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
            with torch.no_grad():
                predicted = _distances(features[choose], points, scale).argmin(dim=1).numpy()
            worst = worst_class(predicted, labels[choose])
            if worst > best:
                best, state = worst, (points.detach().clone(), scale.detach().clone())
        kept.append(state)

    def predict(new: np.ndarray) -> np.ndarray:
        rows = _unit_rows(new)
        return sum(torch.softmax(-_distances(rows, *each), dim=1) for each in kept).argmax(dim=1).numpy()

    return predict


def _unit_rows(values: np.ndarray) -> torch.Tensor:
    """Return rows standardised each by itself, of norm 1."""
    moved = values - values.mean(axis=1, keepdims=True)
    moved = moved / np.maximum(values.std(axis=1, keepdims=True), 1e-12)
    return torch.as_tensor(moved / np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), 1e-12)).float()


def _distances(rows: torch.Tensor, points: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return scale.abs() * torch.cdist(rows, torch.nn.functional.normalize(points, dim=1))


def neuron_tune(ds: Dataset, head: LinearHead, seed: int) -> Predict:
    """NeuronTune (Zheng et al. 2025): units larger in misclassified rows are silenced, then the head is tuned.

    Units are judged and the head tuned on one half, and the epoch of the best worst class on the other half is kept.
    """
    values, labels, classes = arrays(ds)
    rng = np.random.default_rng(seed)
    half = rng.permutation(len(labels)) % 2 == 0
    weight, bias = head.weight.clone().requires_grad_(), head.bias.clone().requires_grad_()
    embedding, given = torch.as_tensor(values), torch.as_tensor(labels)
    optimiser = torch.optim.SGD([weight, bias], lr=1e-3)
    rows, best, state = np.flatnonzero(half), -1.0, (weight.detach().clone(), bias.detach().clone())
    chance = 1 / np.bincount(labels[rows], minlength=classes)[labels[rows]]
    for _ in range(NEURON_EPOCHS):
        with torch.no_grad():
            wrong = ((embedding @ weight.T + bias).argmax(dim=1) != given).numpy()
        biased = _biased_units(values[half], labels[half], wrong[half], classes)
        kept = torch.as_tensor(~biased).float()
        drawn = rng.choice(rows, len(rows), p=chance / chance.sum())
        for batch in np.split(drawn, range(128, len(drawn), 128)):
            loss = torch.nn.functional.cross_entropy((embedding[batch] * kept) @ weight.T + bias, given[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            predicted = (embedding[~half] @ weight.T + bias).argmax(dim=1).numpy()
        worst = worst_class(predicted, labels[~half])
        if worst > best:
            best, state = worst, (weight.detach().clone(), bias.detach().clone())
    return lambda new: (torch.as_tensor(new) @ state[0].T + state[1]).argmax(dim=1).numpy()


def _biased_units(values: np.ndarray, labels: np.ndarray, wrong: np.ndarray, classes: int) -> np.ndarray:
    """Return units whose median in misclassified rows of some class exceeds that in the others, `(d,)` bool."""
    found = np.zeros(values.shape[1], dtype=bool)
    for k in range(classes):
        bad, good = values[(labels == k) & wrong], values[(labels == k) & ~wrong]
        if len(bad) and len(good):
            found |= np.median(bad, axis=0) > np.median(good, axis=0)
    return found


RECIPES: dict[str, Recipe] = {
    "PoE (view)": partial(with_view, hard=False),
    "uLA (view)": partial(with_view, hard=True),
    "EVaLS (its own choice)": evals,
    "DPE": prototypes,
    "NeuronTune": neuron_tune,
}
