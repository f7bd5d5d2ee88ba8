"""The search curve of rule `auto`: what every candidate middle of a unit scored, and which was taken."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Candidate:
    """One middle that was tried."""

    edges: tuple[float, float]
    """Lower and upper edge, in the unit of the rule that `auto` falls back on (class-relative, else quantile)."""
    score: float
    """Held-out information between band and what is in the rows, given the label; nats per row, first order."""
    gain: float
    """Score less the default's."""
    gain_error: float
    """Standard error of `gain`, from a paired bootstrap over rows (over sources where rows share them)."""
    members: int
    """Members in this middle on the rows searched; 0 where the unit stands for no class."""
    others: int
    """The other rows in it."""
    eligible: bool
    """Whether this middle holds enough of both; others are scored, and never taken."""


@dataclass(frozen=True)
class UnitSearch:
    """The whole search of one unit."""

    candidates: tuple[Candidate, ...]
    chosen: int
    """Index of the candidate taken."""
    default: int
    """Index of the default middle, for comparison."""
    stability: float
    """Share of bootstrap resamples in which the same candidate is taken."""
    rows: int
    """Rows searched, all of the discovery half."""
    seed: int
    """Of the halves, folds and resamples."""
    target: str
    """What the information is about, such as `3 concepts` or `512 columns of embedding`."""

    @property
    def edges(self) -> tuple[float, float]:
        """The edges taken."""
        return self.candidates[self.chosen].edges
