"""Which rows take no part in the tests of a concept, because what else they show says that their label is wrong.

A wrong label makes everything that is typical of the true class go with the logit within the label, whether the
network uses it or not. A row that breaks a tie stands in the same place of the range. They differ in the other
concepts: a wrongly labelled row has all that is typical of another class, a row that breaks a tie has only the tied
concept and what goes with it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import sparse

from hf_midrange.association.mislabels import Suspects
from hf_midrange.association.ranks import column_of


TYPICAL, SURE, MOST = 0.1, 4.0, 500
"""Witnesses are concepts whose prevalence differs between two classes by this much, and by so many standard errors; at
most so many, those that differ most."""

TOGETHER = 0.15
"""Correlation within labels from which a concept goes with the one that is tested, and is no witness."""

COMPLETE = 2 / 3
"""Share of suspected rows among those that break a tie from which they tell of the tie, not of wrong labels."""

DRAWN = 20_000
"""Rows from which correlations are taken."""

HALF, QUANTILE = 0.5, 1.645
"""Share of wrong labels among a label's suspected rows from which all of them are set aside, and how sure that is."""


class Doubts(NamedTuple):
    """Rows whose label is suspected, and what speaks for and against it."""

    rows: np.ndarray
    """The suspected rows, of shape `(s,)`."""
    labels: np.ndarray
    """Their labels."""
    typical: np.ndarray
    """Which concepts are typical of some class, boolean of shape `(m,)`."""
    tied: np.ndarray
    """The class that each is most frequent in, of shape `(m,)`."""
    witnesses: np.ndarray
    """Numbers of those of them that are heard, of shape `(w,)`."""
    turned: np.ndarray
    """How far each row has turned to the suggested class in each witness, times what there is to turn, `(s, w)`."""
    most: np.ndarray
    """What it would be if the label was wrong, on average."""
    spread: np.ndarray
    """The variance of `turned` if the label was right."""
    evidence: np.ndarray
    """Log likelihood of the suggested class less that of the label, `(s, w)`."""
    drawn: np.ndarray
    """Rows that are not suspected, at most `DRAWN` of them, `(d,)`."""
    centred: np.ndarray
    """Witnesses in the rows drawn, less their prevalence in the label, over their length, `(d, w)`."""
    ids: np.ndarray
    """Class ids of all rows."""
    present: sparse.csc_matrix
    """Which row has which concept."""

    def aside(self, concept: int) -> np.ndarray:
        """Return the rows to set aside when this concept is tested.

        They are all suspected rows of a label where at least half of them, beyond chance, are wrong by what the
        witnesses say, and elsewhere those that are more likely of the suggested class. Without witnesses, one concept
        alone cannot tell a wrong label from a row that breaks a tie: all suspected rows are set aside, so that a cue
        must show in the others too. A concept that is typical of no class has nothing to fear of wrong labels.

        Nothing is set aside either if most rows that break a tie are suspected: where the network uses nothing else,
        whatever breaks the tie stands in the other class. Wrong labels alone do so only of what nearly every row of
        the class has (97 % of them, if 5 % of the labels are wrong).
        """
        has = column_of(self.present, concept)
        breaking = (self.ids == self.tied[concept]) ^ has
        if self.typical[concept] and breaking[self.rows].sum() > COMPLETE * breaking.sum():
            return self.rows[:0]
        heard = (self.witnesses != concept) & (np.abs(self.together(concept)) < TOGETHER)
        if not heard.any():
            return self.rows if self.typical[concept] else self.rows[:0]
        number = int(self.labels.max()) + 1
        turned, most, spread = (
            np.bincount(self.labels, table[:, heard].sum(axis=1), minlength=number)
            for table in (self.turned, self.most, self.spread)
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            share, error = turned / most, np.sqrt(spread) / most
        wrong = (share >= HALF) & (share > QUANTILE * error)
        return self.rows[wrong[self.labels] | (self.evidence[:, heard].sum(axis=1) > 0)]

    def together(self, concept: int) -> np.ndarray:
        """Return the correlation of a concept with each witness within labels, over rows not suspected, `(w,)`."""
        has = column_of(self.present, concept)[self.drawn][:, None].astype(np.float64)
        return _standardised(has, self.ids[self.drawn])[:, 0] @ self.centred


def doubts_of(found: Suspects | None, ids: np.ndarray, present: sparse.csr_matrix, classes: int) -> Doubts | None:
    """Return the suspected rows with what concepts say of them; None without such rows, or typical concepts.

    Args:
        found: where each row stands, or None.
        ids: class ids, of shape `(n,)`.
        present: which row has which concept, of shape `(n, m)`.
        classes: how many classes there are.
    """
    if found is None or not found.suspected.any():
        return None
    trusted = ~found.suspected
    by_label = sparse.csr_matrix((trusted.astype(np.float64), (ids, np.arange(len(ids)))), shape=(classes, len(ids)))
    size = np.maximum(np.asarray(by_label.sum(axis=1)), 1.0).reshape(-1, 1)
    share = ((by_label @ present).toarray() + 0.5) / (size + 1)
    gap = share.max(axis=0) - share.min(axis=0)
    error = np.sqrt((share * (1 - share) / size).max(axis=0) * 2)
    tied = share.argmax(axis=0)
    typical = (gap >= TYPICAL) & (gap >= SURE * error)
    witnesses = np.flatnonzero(typical)
    witnesses = np.sort(witnesses[np.argsort(-gap[witnesses], kind="stable")][:MOST])
    if not witnesses.size:
        return None
    rows, share = np.flatnonzero(found.suspected), share[:, witnesses]
    has = present[rows][:, witnesses].toarray().astype(np.float64)
    own, other = share[ids[rows]], share[found.suggested[rows]]
    way = own - other
    drawn = np.flatnonzero(trusted)
    drawn = drawn[:: max(1, len(drawn) // DRAWN)]
    return Doubts(
        rows=rows,
        labels=ids[rows],
        typical=typical,
        tied=tied,
        witnesses=witnesses,
        turned=(own - has) * way,
        most=way**2,
        spread=own * (1 - own) * way**2,
        evidence=has * np.log(other / own) + (1 - has) * np.log((1 - other) / (1 - own)),
        drawn=drawn,
        centred=_standardised(present[drawn][:, witnesses].toarray().astype(np.float64), ids[drawn]),
        ids=ids,
        present=present.tocsc(),
    )


def _standardised(has: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Return columns less their mean within labels, of length 1, or 0 where nothing varies."""
    size = np.maximum(np.bincount(ids), 1)
    centred = np.stack([column - (np.bincount(ids, weights=column) / size)[ids] for column in has.T], axis=1)
    length = np.sqrt((centred**2).sum(axis=0))
    return centred / np.where(length > 0, length, np.inf)
