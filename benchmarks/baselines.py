"""Baselines of the literature and controls, as strategies of `curate`: none is in the package.

curate(ds, strategy=BASELINES["afr"])
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.cluster import KMeans

from hf_midrange.bands.units import class_relative_position
from hf_midrange.curation import (
    STRATEGIES,
    Inputs,
    Selection,
    Strategy,
    balanced,
    by_label_and_part,
    split_by_contrary,
)
from hf_midrange.curation.selection import MINIMUM
from hf_midrange.head.correction import Scaler
from hf_midrange.head.solver import Problem, solve
from hf_midrange.io.blocks import MOST_ROWS, Matrix, blocks, some_rows


AFR_GAMMA = 4.0
EVALS_ROWS = 20
EARLY_STEPS = 3
EQUAL_ROWS = 20
CLUSTERS = 8


def random_half(inputs: Inputs) -> Selection:
    """A random half of every class, classes balanced: the control for a selection's size."""
    rng = np.random.default_rng(inputs.seed)
    cells = np.full(len(inputs.labels), -1)
    for k in range(len(inputs.classes)):
        rows = np.flatnonzero(inputs.labels == k)
        cells[rng.permutation(rows)[: max(MINIMUM, len(rows) // 2)]] = k
    reasons = ["drawn at random" if cell >= 0 else "not drawn" for cell in cells]
    return balanced(cells, inputs.classes, np.arange(len(inputs.classes)), reasons)


def misclassified(inputs: Inputs) -> Selection:
    """Label x misclassified, equal shares (JTT's selection, Liu et al. 2021, in last-layer form)."""
    reasons = ["misclassified by the network" if bad else "classified correctly" for bad in inputs.wrong]
    names = ["correct", "misclassified"]
    return by_label_and_part(inputs.labels, inputs.wrong.astype(int), inputs.classes, names, reasons)


def mid_band(inputs: Inputs) -> Selection:
    """Rows in the middle of some class's logit (0 <= T < 1), classes balanced: the paper's idea, our reading."""
    middle = _in_the_middle(inputs)
    cells = np.where(middle, inputs.labels, -1)
    _require_rows(cells, inputs, "mid")
    reasons = ["in the middle of a class's logit" if inside else "not in the middle" for inside in middle]
    return balanced(cells, inputs.classes, np.arange(len(inputs.classes)), reasons)


def latent_clusters(inputs: Inputs) -> Selection:
    """Label x cluster, k-means with 8 clusters fitted on rows in the middle of a logit."""
    middle, space = _in_the_middle(inputs), Space.of(inputs.embedding, inputs.labels, inputs.seed)
    inside = middle[space.rows]
    fitted_on = inside if inside.sum() >= 2 * CLUSTERS else np.ones(len(inside), dtype=bool)
    model = space.k_means(fitted_on, CLUSTERS, inputs.seed)
    parts = space.assigned([model], np.zeros(len(middle), dtype=np.int64))
    reasons = [f"in latent cluster {part}" for part in parts]
    return by_label_and_part(inputs.labels, parts, inputs.classes, [f"cluster {j}" for j in range(CLUSTERS)], reasons)


def george(inputs: Inputs) -> Selection:
    """Label x cluster, two k-means clusters per class on all rows (Sohoni et al. 2020)."""
    labels, space = inputs.labels, Space.of(inputs.embedding, inputs.labels, inputs.seed)
    models = [space.k_means(labels[space.rows] == k, 2, inputs.seed) for k in range(len(inputs.classes))]
    parts = space.assigned(models, labels)
    reasons = [f"in cluster {part} of its class" for part in parts]
    return by_label_and_part(inputs.labels, parts, inputs.classes, ["cluster 0", "cluster 1"], reasons)


def afr(inputs: Inputs) -> Selection:
    """Weights `exp(-4 p_y) / n_y` by the probability of the true class (Qiu et al. 2023, AFR)."""
    probability = softmax(inputs.logits, axis=1)[np.arange(len(inputs.labels)), inputs.labels]
    weights = np.exp(-AFR_GAMMA * probability) / np.bincount(inputs.labels)[inputs.labels]
    reasons = [f"probability {p:.2f} for its own class" for p in probability]
    plain = STRATEGIES["class-balanced"](inputs)
    return replace(plain, reasons=reasons, weights=weights)


def evals(inputs: Inputs) -> Selection:
    """Per class the 20 rows of highest and the 20 of lowest loss, equal shares (Ghaznavi et al. 2024, EVaLS)."""
    loss = -log_softmax(inputs.logits, axis=1)[np.arange(len(inputs.labels)), inputs.labels]
    cells = np.full(len(loss), -1)
    names: list[str] = []
    owners: list[int] = []
    for k, own in enumerate(inputs.classes):
        rows = np.flatnonzero(inputs.labels == k)
        order = rows[np.argsort(loss[rows], kind="stable")]
        count = min(EVALS_ROWS, len(order) // 2)
        for part, chosen in (("low loss", order[:count]), ("high loss", order[-count:])):
            cells[chosen] = len(names)
            names.append(f"{own}, {part}")
            owners.append(k)
    reasons = [f"loss {value:.2f}" for value in loss]
    return balanced(cells, names, np.array(owners), reasons)


def disagreement(inputs: Inputs) -> Selection:
    """Per class the 20 rows of largest KL(p_early || p), classes balanced (LaBonte et al. 2023, SELF).

    Frozen features know no early stopping of the whole network: it is a head stopped after `EARLY_STEPS` steps, that
    of five in which a row had no part, whose logits are as far apart as the network's are.
    """
    labels, classes = inputs.labels, len(inputs.classes)
    folds = np.random.default_rng(inputs.seed).permutation(len(labels)) % 5
    features = Scaler.fit(inputs.embedding[:]).apply(inputs.embedding[:])
    counts = np.bincount(labels, minlength=classes)
    weights = (folds[:, None] != np.arange(5)) / counts[labels][:, None]
    targets, zeros = np.eye(classes)[labels], np.zeros((len(labels), classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # it is to stop early
        heads = solve(Problem(features, zeros, targets, weights / weights.sum(axis=0), 0.0), steps=EARLY_STEPS)
    early = np.stack([features @ head.weight.T + head.bias for head in heads])[folds, np.arange(len(labels))]
    early *= _gap(inputs.logits) / max(_gap(early), 1e-12)
    log_early, log_late = log_softmax(early, axis=1), log_softmax(inputs.logits, axis=1)
    divergence = (np.exp(log_early) * (log_early - log_late)).sum(axis=1)
    cells = np.full(len(divergence), -1)
    for k in range(classes):
        rows = np.flatnonzero(labels == k)
        cells[rows[np.argsort(-divergence[rows], kind="stable")[:EVALS_ROWS]]] = k
    reasons = [f"divergence {value:.2f} from an early fit" for value in divergence]
    return balanced(cells, inputs.classes, np.arange(classes), reasons)


def _gap(logits: np.ndarray) -> float:
    ordered = np.sort(logits, axis=1)
    return float(np.median(ordered[:, -1] - ordered[:, -2]))


Rank = Callable[[Inputs, np.ndarray, np.random.Generator], np.ndarray]
"""Of some rows of one class, a figure each: the lowest are chosen."""


def lowest_rows(name: str, rank: Rank) -> Strategy:
    """Return the strategy that takes the `EQUAL_ROWS` rows of each class with the lowest rank as contrary.

    Number of rows, weights and head are the same for all ranks, so that they differ in nothing but which rows.
    """

    def strategy(inputs: Inputs) -> Selection:
        rng, contrary = np.random.default_rng(inputs.seed), np.zeros(len(inputs.labels), dtype=bool)
        for k in range(len(inputs.classes)):
            rows = np.flatnonzero(inputs.labels == k)
            order = np.argsort(rank(inputs, rows, rng), kind="stable")
            contrary[rows[order[: min(EQUAL_ROWS, len(rows) // 2)]]] = True
        others = inputs.logits.copy()
        others[np.arange(len(others)), inputs.labels] = -np.inf
        reasons = ["chosen" if chosen else "not chosen" for chosen in contrary]
        return split_by_contrary(inputs.labels, contrary, others.argmax(axis=1), inputs.classes, reasons)

    strategy.__name__ = name
    return strategy


def _own_logit(inputs: Inputs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return inputs.logits[rows, inputs.labels[rows]]


def _margin(inputs: Inputs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    others = inputs.logits[rows].copy()
    others[np.arange(len(rows)), inputs.labels[rows]] = -np.inf
    return _own_logit(inputs, rows, rng) - others.max(axis=1)


def _misclassified(inputs: Inputs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank misclassified rows first, at random; then those of the lowest margin."""
    margin = _margin(inputs, rows, rng)
    return np.where(margin < 0, -1 - rng.random(len(rows)), margin)


def _top(inputs: Inputs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return -_own_logit(inputs, rows, rng)


def _position(inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    k = int(inputs.labels[rows[0]])
    return class_relative_position(inputs.logits[:, k], inputs.labels == k)[rows]


def _random_of_middle(inputs: Inputs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rank rows of the middle (0 <= T < 1) first, at random; then those nearest to it."""
    position = _position(inputs, rows)
    inside = (position >= 0) & (position < 1)
    return np.where(inside, -rng.random(len(rows)), np.abs(position - 0.5))


def _centre_of_middle(inputs: Inputs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.abs(_position(inputs, rows) - 0.5)


def _random(inputs: Inputs, rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.random(len(rows))


RANKS: dict[str, Rank] = {
    "20 lowest own logits": _own_logit,
    "20 lowest margins": _margin,
    "20 misclassified": _misclassified,
    "20 top": _top,
    "20 of the middle": _random_of_middle,
    "20 at the middle's centre": _centre_of_middle,
    "20 at random": _random,
}
"""Which rows of a class, at equal number of rows, weights and head: what the middle contributes."""


def _in_the_middle(inputs: Inputs) -> np.ndarray:
    places = [class_relative_position(inputs.logits[:, k], inputs.labels == k) for k in range(len(inputs.classes))]
    return np.any([(place >= 0) & (place < 1) for place in places], axis=0)


def _require_rows(cells: np.ndarray, inputs: Inputs, strategy: str) -> None:
    counts = np.bincount(cells[cells >= 0], minlength=len(inputs.classes))
    few = [f"{name!r} ({count})" for name, count in zip(inputs.classes, counts, strict=True) if count < MINIMUM]
    if few:
        raise ValueError(
            f"strategy {strategy!r} finds fewer than {MINIMUM} rows of {', '.join(few)}; use strategy='auto'"
        )


class Space(NamedTuple):
    """Embeddings, and the rows of them that clusters are fitted to."""

    values: Matrix
    """`(n, d)`."""
    rows: np.ndarray
    """Rows fitted to, at most about `MOST_ROWS`."""
    features: np.ndarray
    """These rows, standardised."""
    scaler: Scaler

    @classmethod
    def of(cls, values: Matrix, labels: np.ndarray, seed: int) -> Space:
        """Return the space standardised on rows of every class."""
        rows = some_rows(labels, MOST_ROWS, seed)
        features = values[rows].astype(np.float64)
        scaler = Scaler.fit(features, near_dead=0.0)
        return cls(values, rows, scaler.apply(features, np.dtype(np.float64)), scaler)

    def k_means(self, fitted_on: np.ndarray, clusters: int, seed: int) -> KMeans:
        """Return k-means fitted on some of `rows`, a boolean array as long as these."""
        return KMeans(clusters, n_init=4, random_state=seed).fit(self.features[fitted_on])

    def assigned(self, models: Sequence[KMeans], which: np.ndarray) -> np.ndarray:
        """Return the cluster of each row, `(n,)`, by the model that `which` `(n,)` numbers."""
        parts = np.zeros(len(self.values), dtype=np.int64)
        for first, block in blocks(self.values):
            features = self.scaler.apply(block, np.dtype(np.float64))
            for k, model in enumerate(models):
                mine = np.flatnonzero(which[first : first + len(block)] == k)
                if len(mine):
                    parts[first + mine] = model.predict(features[mine])
        return parts


BASELINES: dict[str, Strategy] = {
    "latent": latent_clusters,
    "mid": mid_band,
    "wrong": misclassified,
    "afr": afr,
    "evals": evals,
    "self": disagreement,
    "george": george,
    "random": random_half,
    **{name: lowest_rows(name, rank) for name, rank in RANKS.items()},
}
"""The baselines by the names that results know them by."""
