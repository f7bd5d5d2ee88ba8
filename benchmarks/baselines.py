"""Baselines of the literature and controls, as strategies of `curate`: none is in the package.

curate(ds, strategy=BASELINES["afr"])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.special import log_softmax, softmax
from sklearn.cluster import KMeans

from hf_midrange.bands.position import class_relative_position
from hf_midrange.curation import STRATEGIES, Inputs, Selection, Strategy, balanced, by_label_and_part
from hf_midrange.curation.ridge import Fit, left_out_scores
from hf_midrange.curation.selection import MINIMUM
from hf_midrange.head.correction import Scaler
from hf_midrange.io.blocks import MOST_ROWS, Matrix, blocks, some_rows


AFR_GAMMA = 4.0
EVALS_ROWS = 20
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

    The early stopped network is stood in for by a strongly penalised left-out head on the same embedding.
    """
    members = [inputs.labels == k for k in range(len(inputs.classes))]
    fits = [Fit(mine, (0.3,)) for mine in members]
    early = left_out_scores(inputs.embedding, fits, inputs.sources, inputs.sample)
    log_early, log_late = log_softmax(early, axis=1), log_softmax(inputs.logits, axis=1)
    divergence = (np.exp(log_early) * (log_early - log_late)).sum(axis=1)
    cells = np.full(len(divergence), -1)
    for k, mine in enumerate(members):
        rows = np.flatnonzero(mine)
        cells[rows[np.argsort(-divergence[rows], kind="stable")[:EVALS_ROWS]]] = k
    reasons = [f"divergence {value:.2f} from an early fit" for value in divergence]
    return balanced(cells, inputs.classes, np.arange(len(inputs.classes)), reasons)


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
}
"""The baselines by the names that results know them by."""
