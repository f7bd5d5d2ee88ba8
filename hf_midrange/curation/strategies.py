"""Strategies by name, beside `auto`: simple rules that a user may prefer, and the oracle's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from hf_midrange import columns
from hf_midrange.curation.candidates import EMBEDDING_EDGE, VIEW_EDGE, Candidate, of_pointing
from hf_midrange.curation.inputs import Inputs
from hf_midrange.curation.rule import auto
from hf_midrange.curation.selection import Selection, balanced, by_label_and_part, split_by_contrary
from hf_midrange.curation.views import confirmed


Strategy = Callable[[Inputs], Selection]
"""A rule that puts rows into pseudo-groups and says what these weigh.

It reads arrays of `Inputs` (`labels`, `embedding`, `logits`, `views`, ...) and returns a `Selection`, most simply by
`balanced`, `by_label_and_part` or `split_by_contrary`. `curate(ds, strategy=rule)` takes one of your own; its
`__name__` then stands in the report.
"""


def by_best_view(inputs: Inputs) -> Selection:
    """Label x contrary by the view alone, at T < .3: the simplest acceptable rule."""
    if not inputs.views:
        raise ValueError(
            "strategy 'view' needs a `view_*` or `concepts_*` column; `annotate(ds, [Thumbnail(...)])` or "
            "`annotate(ds, [TextStyle(...)])` adds one"
        )
    best = max(inputs.views, key=lambda view: (view.dense, view.skew))
    return _by_position(best.name, "view", best.scores, VIEW_EDGE, inputs)


def _by_position(name: str, rule: str, scores: np.ndarray, edge: float, inputs: Inputs) -> Selection:
    found = Candidate.of(name, scores, inputs.labels, edge).selection(inputs)
    found.facts.update(view=name, rule=rule)
    return found


def class_balanced(inputs: Inputs) -> Selection:
    """Equal weight for every class (Idrissi et al. 2022, "Simple data balancing")."""
    reasons = [f"labelled {inputs.classes[label]}; classes weigh the same" for label in inputs.labels]
    return balanced(inputs.labels, inputs.classes, np.arange(len(inputs.classes)), reasons)


def true_groups(inputs: Inputs) -> Selection:
    """The true groups of the `group` column: the oracle's selection (Kirichenko et al. 2023, DFR).

    The rarest group of each label counts as contrary, so that the weights follow the same rule as the default's.
    """
    columns.require(inputs.ds, columns.GROUP)
    groups = columns.labels(inputs.ds, columns.GROUP)
    names = columns.class_label(inputs.ds.features, columns.GROUP).names
    contrary = np.zeros(len(groups), dtype=bool)
    for k in range(len(inputs.classes)):
        mine = inputs.labels == k
        counts = np.bincount(groups[mine], minlength=len(names))
        contrary |= mine & (groups != counts.argmax())
    reasons = [f"in group {names[group]}" for group in groups]
    return _by_groups(inputs, groups, list(names), contrary, reasons)


def _by_groups(
    inputs: Inputs, groups: np.ndarray, names: list[str], contrary: np.ndarray, reasons: list[str]
) -> Selection:
    """Label x contrary with the contrary cells told apart by group instead of by the class pointed to."""
    labels, classes = inputs.labels, inputs.classes
    if len(classes) == 2:
        return split_by_contrary(labels, contrary, 1 - labels, classes, reasons)
    return by_label_and_part(inputs.labels, groups, inputs.classes, names, reasons)


def mid_minority(inputs: Inputs) -> Selection:
    """Label x lower half of the own logit (T < .5) as the contrary rows."""
    return _by_position("own logit", "logit position below .5", inputs.logits, EMBEDDING_EDGE, inputs)


def confounder_head(inputs: Inputs) -> Selection:
    """Label x lower half of what a head for the pointing says (T < .5)."""
    found = of_pointing(inputs)
    return _by_position(found.name, found.name, found.scores, EMBEDDING_EDGE, inputs)


def named_concepts(inputs: Inputs) -> Selection:
    """Label x confirmed confounders of the findings; a row counts as contrary by the confounders of its label."""
    wanted = confirmed(inputs.findings)
    if not wanted:
        raise ValueError(
            "strategy 'concepts' needs findings with a confirmed confounder; run `associate(ds)` and look at "
            "its `confirmed` and `confounder` columns, or use strategy='auto'"
        )
    present, names = named_presence(inputs, wanted)
    tied = _tied_class(present, inputs.labels, len(inputs.classes))
    best = np.where(present, np.arange(1, len(names) + 1), 0).max(axis=1, initial=0)
    has = np.array([-1, *tied])[best]
    contrary = (has >= 0) & (has != inputs.labels)
    reasons = [
        f"labelled {inputs.classes[label]}" + (f", with {names[j - 1]}" if j else "")
        for label, j in zip(inputs.labels, best, strict=True)
    ]
    towards = np.where(contrary, has, 0)
    return split_by_contrary(inputs.labels, contrary, towards, inputs.classes, reasons)


def named_presence(inputs: Inputs, wanted: set[tuple[str, str]]) -> tuple[np.ndarray, list[str]]:
    """Return which row has which wanted concept, `(n, k)` bool, and the names; those of one name are one concept."""
    rows_of: dict[str, np.ndarray] = {}
    for column in columns.concept_columns(inputs.ds.features):
        words = columns.vocabulary(inputs.ds.features, column)
        source = column.removeprefix(columns.CONCEPTS_PREFIX)
        chosen = [j for j, word in enumerate(words) if (source, word) in wanted]
        present = columns.presence(inputs.ds, column)[:, chosen].toarray()
        for j, rows in zip(chosen, present.T, strict=True):
            rows_of[words[j]] = rows_of.get(words[j], False) | rows
    none = np.zeros((len(inputs.labels), 0), dtype=bool)
    return (np.column_stack(list(rows_of.values())) if rows_of else none), list(rows_of)


def _tied_class(present: np.ndarray, labels: np.ndarray, count: int) -> list[int]:
    """Return the class in which each concept is most common."""
    rates = np.array([present[labels == k].mean(axis=0) for k in range(count)])
    return [int(k) for k in rates.argmax(axis=0)]


STRATEGIES: dict[str, Strategy] = {
    "auto": auto,
    "view": by_best_view,
    "concepts": named_concepts,
    "mid-minority": mid_minority,
    "confounder-head": confounder_head,
    "class-balanced": class_balanced,
    "group": true_groups,
}
