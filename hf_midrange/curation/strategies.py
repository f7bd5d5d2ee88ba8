"""The other strategies: earlier rules of our own, baselines from the literature, and controls."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import log_softmax, softmax

from hf_midrange import columns
from hf_midrange.curation.clusters import Space
from hf_midrange.curation.default import auto
from hf_midrange.curation.evidence import Evidence
from hf_midrange.curation.ridge import Fit, left_out_scores
from hf_midrange.curation.scores import pointed, position
from hf_midrange.curation.selection import MINIMUM, Selection, balanced, lowest, split_by_contrary
from hf_midrange.curation.ties import EMBEDDING_EDGE, VIEW_EDGE, selection_of, tie_by_position
from hf_midrange.curation.views import confirmed


AFR_GAMMA = 4.0
EVALS_ROWS = 20
CLUSTERS = 8


def by_best_view(evidence: Evidence) -> Selection:
    """Label x contrary by the view alone, at T < .3: the simplest acceptable rule."""
    if not evidence.views:
        raise ValueError(
            "strategy 'view' needs a `view_*` or `concepts_*` column; `annotate(ds, [Thumbnail(...)])` or "
            "`annotate(ds, [TextStyle(...)])` adds one"
        )
    best = max(evidence.views, key=lambda view: (view.dense, view.skew))
    tie = tie_by_position(best.name, "view", VIEW_EDGE, best.scores, evidence.labels, best.auc, best.skew)
    found = selection_of([tie], evidence)
    found.facts.update(view=best.name, rule="view", ties=[tie.facts()])
    return found


def class_balanced(evidence: Evidence) -> Selection:
    """Equal weight for every class (Idrissi et al. 2022, "Simple data balancing")."""
    reasons = [f"member of *{evidence.classes[label]}*; classes weigh the same" for label in evidence.labels]
    return balanced(evidence.labels, evidence.classes, np.arange(len(evidence.classes)), reasons)


def random_half(evidence: Evidence) -> Selection:
    """A random half of every class, classes balanced: the control for a selection's size."""
    rng = np.random.default_rng(evidence.seed)
    cells = np.full(len(evidence.labels), -1)
    for k in range(len(evidence.classes)):
        rows = np.flatnonzero(evidence.labels == k)
        cells[rng.permutation(rows)[: max(MINIMUM, len(rows) // 2)]] = k
    reasons = ["drawn at random" if cell >= 0 else "not drawn" for cell in cells]
    return balanced(cells, evidence.classes, np.arange(len(evidence.classes)), reasons)


def true_groups(evidence: Evidence) -> Selection:
    """The true groups of the `group` column: the oracle's selection (Kirichenko et al. 2023, DFR).

    The rarest group of each label counts as contrary, so that the weights follow the same rule as the default's.
    """
    columns.require(evidence.ds, columns.GROUP)
    groups = columns.labels(evidence.ds, columns.GROUP)
    names = columns.class_label(evidence.ds.features, columns.GROUP).names
    contrary = np.zeros(len(groups), dtype=bool)
    for k in range(len(evidence.classes)):
        mine = evidence.labels == k
        counts = np.bincount(groups[mine], minlength=len(names))
        contrary |= mine & (groups != counts.argmax())
    reasons = [f"in group *{names[group]}*" for group in groups]
    return _by_groups(evidence, groups, list(names), contrary, reasons)


def _by_groups(
    evidence: Evidence, groups: np.ndarray, names: list[str], contrary: np.ndarray, reasons: list[str]
) -> Selection:
    """Label x contrary with the contrary cells told apart by group instead of by the class pointed to."""
    labels, classes = evidence.labels, evidence.classes
    if len(classes) == 2:
        return split_by_contrary(labels, contrary, 1 - labels, classes, reasons)
    return label_by_part(evidence, groups, names, reasons)


def label_by_part(evidence: Evidence, parts: np.ndarray, names: list[str], reasons: list[str]) -> Selection:
    """Return label x part, equal shares within a label; cells of fewer than five rows join their label's largest."""
    labels, count = evidence.labels, len(names)
    raw = labels * count + parts
    sizes = np.bincount(raw, minlength=len(evidence.classes) * count)
    for k in range(len(evidence.classes)):
        block = sizes[k * count : (k + 1) * count]
        small = np.isin(raw, k * count + np.flatnonzero((block > 0) & (block < MINIMUM)))
        raw[small] = k * count + int(block.argmax())
    occupied, cells = np.unique(raw, return_inverse=True)
    owners = occupied // count
    cell_names = [f"{evidence.classes[cell // count]}, {names[cell % count]}" for cell in occupied]
    return balanced(cells, cell_names, owners, reasons)


def misclassified(evidence: Evidence) -> Selection:
    """Label x misclassified, equal shares (JTT's selection, Liu et al. 2021, in last-layer form)."""
    reasons = ["misclassified by the network" if bad else "classified correctly" for bad in evidence.wrong]
    return label_by_part(evidence, evidence.wrong.astype(int), ["correct", "misclassified"], reasons)


def mid_band(evidence: Evidence) -> Selection:
    """Rows in the middle of some class's logit (0 <= T < 1), classes balanced: the paper's idea, our reading."""
    middle = _in_the_middle(evidence)
    cells = np.where(middle, evidence.labels, -1)
    _require_rows(cells, evidence, "mid")
    reasons = ["in the middle of a class's logit" if inside else "not in the middle" for inside in middle]
    return balanced(cells, evidence.classes, np.arange(len(evidence.classes)), reasons)


def mid_minority(evidence: Evidence) -> Selection:
    """Label x lower half of the own logit (T < .5) as the contrary rows."""
    rule = "logit position below .5"
    tie = tie_by_position("own logit", rule, EMBEDDING_EDGE, evidence.logits, evidence.labels)
    found = selection_of([tie], evidence)
    found.facts["rule"] = rule
    return found


def confounder_head(evidence: Evidence) -> Selection:
    """Label x what a head for the pointing says, seeded at T < .5 of the logit margin.

    In the table label x pointed-to class, the label carries the core concept and the pointing carries the confounder.
    One ridge head per class learns "points to this class" with labels balanced within both answers, read left out.
    """
    labels = evidence.labels
    seed = lowest(evidence.margin_position, labels, EMBEDDING_EDGE)
    points_to = np.where(seed, pointed(evidence.logits, labels), labels)
    fits = [_pointing_fit(points_to == k, labels == k) for k in range(len(evidence.classes))]
    towards = left_out_scores(evidence.embedding, fits, evidence.sources, evidence.sample)
    best = towards.argmax(axis=1)
    contrary = lowest(np.where(best == labels, 1.0, 0.0), labels, EMBEDDING_EDGE)
    reasons = [
        f"member of *{evidence.classes[label]}*, the confounder head reads *{evidence.classes[other]}*"
        for label, other in zip(labels, best, strict=True)
    ]
    best = np.where(best == labels, pointed(towards, labels), best)
    found = split_by_contrary(labels, contrary, best, evidence.classes, reasons)
    found.facts["rule"] = "confounder head"
    return found


def _pointing_fit(points: np.ndarray, members: np.ndarray) -> Fit:
    cells = 2 * points.astype(int) + members
    sizes = np.bincount(cells, minlength=4)
    return Fit(points, (0.03,), len(points) / (4 * np.maximum(sizes[cells], 1)))


def named_concepts(evidence: Evidence) -> Selection:
    """Label x confirmed confounders of the findings; a row counts as contrary by the confounders of its label."""
    wanted = confirmed(evidence.findings)
    if not wanted:
        raise ValueError(
            "strategy 'concepts' needs findings with a confirmed confounder; run `associate(ds)` and look at "
            "its `confirmed` and `confounder` columns, or use strategy='auto'"
        )
    present, names = named_presence(evidence, wanted)
    tied = _tied_class(present, evidence.labels, len(evidence.classes))
    best = np.where(present, np.arange(1, len(names) + 1), 0).max(axis=1, initial=0)
    has = np.array([-1, *tied])[best]
    contrary = (has >= 0) & (has != evidence.labels)
    reasons = [
        f"member of *{evidence.classes[label]}*" + (f" with *{names[j - 1]}*" if j else "")
        for label, j in zip(evidence.labels, best, strict=True)
    ]
    towards = np.where(contrary, has, 0)
    return split_by_contrary(evidence.labels, contrary, towards, evidence.classes, reasons)


def named_presence(evidence: Evidence, wanted: set[tuple[str, str]]) -> tuple[np.ndarray, list[str]]:
    """Return which row has which wanted concept, `(n, k)` bool, and the concepts' names."""
    tables, names = [], []
    for column in columns.concept_columns(evidence.ds.features):
        words = columns.vocabulary(evidence.ds.features, column)
        source = column.removeprefix(columns.CONCEPTS_PREFIX)
        chosen = [j for j, word in enumerate(words) if (source, word) in wanted]
        tables.append(columns.presence(evidence.ds, column)[:, chosen].toarray())
        names += [words[j] for j in chosen]
    return (np.column_stack(tables) if tables else np.zeros((len(evidence.labels), 0), dtype=bool)), names


def _tied_class(present: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Return the class in which each concept is most common."""
    rates = np.array([present[labels == k].mean(axis=0) for k in range(count)])
    return [int(k) for k in rates.argmax(axis=0)]


def latent_clusters(evidence: Evidence) -> Selection:
    """Label x cluster, k-means with 8 clusters fitted on rows in the middle of a logit."""
    middle, space = _in_the_middle(evidence), Space.of(evidence.embedding, evidence.labels, evidence.seed)
    inside = middle[space.rows]
    fitted_on = inside if inside.sum() >= 2 * CLUSTERS else np.ones(len(inside), dtype=bool)
    model = space.k_means(fitted_on, CLUSTERS, evidence.seed)
    parts = space.assigned([model], np.zeros(len(middle), dtype=np.int64))
    reasons = [f"in latent cluster {part}" for part in parts]
    return label_by_part(evidence, parts, [f"cluster {j}" for j in range(CLUSTERS)], reasons)


def george(evidence: Evidence) -> Selection:
    """Label x cluster, two k-means clusters per class on all rows (Sohoni et al. 2020)."""
    labels, space = evidence.labels, Space.of(evidence.embedding, evidence.labels, evidence.seed)
    models = [space.k_means(labels[space.rows] == k, 2, evidence.seed) for k in range(len(evidence.classes))]
    parts = space.assigned(models, labels)
    reasons = [f"in cluster {part} of its class" for part in parts]
    return label_by_part(evidence, parts, ["cluster 0", "cluster 1"], reasons)


def afr(evidence: Evidence) -> Selection:
    """Weights `exp(-4 p_y) / n_y` by the probability of the true class (Qiu et al. 2023, AFR)."""
    probability = softmax(evidence.logits, axis=1)[np.arange(len(evidence.labels)), evidence.labels]
    weights = np.exp(-AFR_GAMMA * probability) / np.bincount(evidence.labels)[evidence.labels]
    reasons = [f"probability {p:.2f} for its own class" for p in probability]
    plain = class_balanced(evidence)
    return Selection(plain.cells, plain.names, plain.owners, plain.shares, reasons, weights)


def evals(evidence: Evidence) -> Selection:
    """Per class the 20 rows of highest and the 20 of lowest loss, equal shares (Ghaznavi et al. 2024, EVaLS)."""
    loss = -log_softmax(evidence.logits, axis=1)[np.arange(len(evidence.labels)), evidence.labels]
    cells = np.full(len(loss), -1)
    names: list[str] = []
    owners: list[int] = []
    for k, own in enumerate(evidence.classes):
        rows = np.flatnonzero(evidence.labels == k)
        order = rows[np.argsort(loss[rows], kind="stable")]
        count = min(EVALS_ROWS, len(order) // 2)
        for part, chosen in (("low loss", order[:count]), ("high loss", order[-count:])):
            cells[chosen] = len(names)
            names.append(f"{own}, {part}")
            owners.append(k)
    reasons = [f"loss {value:.2f}" for value in loss]
    return balanced(cells, names, np.array(owners), reasons)


def disagreement(evidence: Evidence) -> Selection:
    """Per class the 20 rows of largest KL(p_early || p), classes balanced (LaBonte et al. 2023, SELF).

    The early stopped network is stood in for by a strongly penalised left-out head on the same embedding.
    """
    members = [evidence.labels == k for k in range(len(evidence.classes))]
    fits = [Fit(mine, (0.3,)) for mine in members]
    early = left_out_scores(evidence.embedding, fits, evidence.sources, evidence.sample)
    log_early, log_late = log_softmax(early, axis=1), log_softmax(evidence.logits, axis=1)
    divergence = (np.exp(log_early) * (log_early - log_late)).sum(axis=1)
    cells = np.full(len(divergence), -1)
    for k, mine in enumerate(members):
        rows = np.flatnonzero(mine)
        cells[rows[np.argsort(-divergence[rows], kind="stable")[:EVALS_ROWS]]] = k
    reasons = [f"divergence {value:.2f} from an early fit" for value in divergence]
    return balanced(cells, evidence.classes, np.arange(len(evidence.classes)), reasons)


def _in_the_middle(evidence: Evidence) -> np.ndarray:
    places = [position(evidence.logits[:, k], evidence.labels == k) for k in range(len(evidence.classes))]
    return np.any([(place >= 0) & (place < 1) for place in places], axis=0)


def _require_rows(cells: np.ndarray, evidence: Evidence, strategy: str) -> None:
    counts = np.bincount(cells[cells >= 0], minlength=len(evidence.classes))
    few = [f"{name!r} ({count})" for name, count in zip(evidence.classes, counts, strict=True) if count < MINIMUM]
    if few:
        raise ValueError(
            f"strategy {strategy!r} finds fewer than {MINIMUM} rows of {', '.join(few)}; use strategy='auto'"
        )


STRATEGIES: dict[str, Callable[[Evidence], Selection]] = {
    "auto": auto,
    "view": by_best_view,
    "confounder-head": confounder_head,
    "concepts": named_concepts,
    "latent": latent_clusters,
    "mid": mid_band,
    "mid-minority": mid_minority,
    "class-balanced": class_balanced,
    "wrong": misclassified,
    "afr": afr,
    "evals": evals,
    "self": disagreement,
    "george": george,
    "random": random_half,
    "group": true_groups,
}
