"""Drawings as inline SVG: they need no script, follow the page's colours, and say in words what they show.

Members are filled and solid, strangers outlined and dashed, so that nothing hangs on colour alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from hf_midrange.publishing.escaping import shortened, visible


BINS = 32
"""Of a histogram."""


@dataclass(frozen=True)
class Band:
    """One band of a unit on the rows of the report."""

    name: str
    low: float
    high: float
    members: int
    strangers: int
    is_middle: bool
    """Neither the lowest nor the highest of the bands that there are, with rows or without."""


@dataclass(frozen=True)
class Distribution:
    """How one unit's values are distributed."""

    unit: str
    is_class: bool
    """Whether the unit stands for a class, and so has members."""
    edges: list[float]
    """Of the bins, one more than there are."""
    members: list[int]
    strangers: list[int]
    bands: list[Band]

    @classmethod
    def of(
        cls, unit: str, values: np.ndarray, bands: np.ndarray, member: np.ndarray | None, band_names: Sequence[str]
    ) -> Distribution:
        """Return the distribution over equal bins of a unit's whole range.

        Args:
            unit: its name.
            values: of the unit, of shape `(n,)`.
            bands: the row's band, of shape `(n,)`; -1 for none.
            member: which rows are members, of shape `(n,)`; None for a unit without a class.
            band_names: from the bottom up.
        """
        own = np.zeros(len(values), dtype=bool) if member is None else member
        edges = np.histogram_bin_edges(values, BINS)
        parts = []
        for band, name in enumerate(band_names):
            rows = bands == band
            if rows.any():
                low, high = float(values[rows].min()), float(values[rows].max())
                inside, outside = int((rows & own).sum()), int((rows & ~own).sum())
                parts.append(Band(name, low, high, inside, outside, 0 < band < len(band_names) - 1))
        members, strangers = (np.histogram(values[side], edges)[0].tolist() for side in (own, ~own))
        return cls(unit, member is not None, edges.tolist(), members, strangers, parts)


WIDTH, HEIGHT = 360.0, 190.0
LEFT, RIGHT, TOP, BOTTOM = 44.0, 12.0, 12.0, 34.0
MARKS = ("hollow", "filled", "square", "diamond", "cross")


def profile(found: Mapping[str, Any], number: int) -> Markup:
    """Return how often a concept occurs along the range, on either side, with intervals."""
    sides = found["sides"]
    top = _ceiling(max((high for side in sides for high in side["profile_high"]), default=1.0))
    frame = _Frame(0.5, 5.5, 0.0, top)
    drawn = [_shares_axis(frame, top)]
    drawn += [_text(frame.x(k + 1), HEIGHT - 18, name, "middle") for k, name in enumerate("12345")]
    drawn += [_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "fifth of the range, lowest to highest", "middle")]
    drawn += [_line(frame, side, shift) for shift, side in zip((-0.07, 0.07), sides, strict=False)]
    said = " ".join(f"{side['side'].capitalize()}: {_listed(side['profile'])}, {side['shape']}." for side in sides)
    title = f"How often “{found['concept']}” occurs along the range of “{found['unit']}”"
    return _picture(f"profile-{number}", title, said, drawn)


def distribution(found: Distribution, number: int, level: float | None = None) -> Markup:
    """Return the histograms of members and strangers, the bands, and perhaps a line at a level."""
    tallest = max(max(found.members), max(found.strangers), 1)
    frame = _Frame(found.edges[0], found.edges[-1], 0.0, float(tallest))
    drawn = [_bands(frame, found), _bars(frame, found.edges, found.members)]
    drawn.append(_outline(frame, found.edges, found.strangers))
    if level is not None:
        drawn.append(_stroke(frame.x(level), TOP - 4, frame.x(level), HEIGHT - BOTTOM + 4, "level"))
    low, high = found.edges[0], found.edges[-1]
    drawn += [_text(frame.x(value), HEIGHT - 18, f"{value:.3g}", "middle") for value in (low, (low + high) / 2, high)]
    drawn += [_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 3, "value of the unit", "middle")]
    drawn += [_text(LEFT - 4, frame.y(tallest) + 8, str(tallest), "end"), _text(LEFT - 4, frame.y(0), "0", "end")]
    parts = [
        f"{band.name} from {band.low:.3g} to {band.high:.3g}: "
        + (f"{band.members} members, {band.strangers} strangers" if found.is_class else f"{band.strangers} rows")
        for band in found.bands
    ]
    return _picture(f"range-{number}", f"Rows along the range of “{found.unit}”", "; ".join(parts) + ".", drawn)


def scores(groups: Mapping[str, Any]) -> Markup:
    """Return every group's accuracy under every head, with intervals."""
    step = 15.0 * len(groups["scores"]) + 26.0
    height = step * len(groups["names"]) + 30.0

    def x(share: float) -> float:
        return 14.0 + share * (WIDTH - 34.0)

    drawn = [_tick(x(share), height - 22, f"{100 * share:.0f} %") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    for row, name in enumerate(groups["names"]):
        y = 28.0 + row * step
        drawn.append(_text(2.0, y - 13, shortened(name, 50), "start"))
        for k, score in enumerate(groups["scores"]):
            told, at = score["metrics"]["groups"][name], y + 15.0 * k
            whisker = _stroke(x(told["ci_low"]), at, x(told["ci_high"]), at, "whisker")
            drawn += [whisker, mark(MARKS[k % len(MARKS)], x(told["accuracy"]), at)]
    worst = [
        f"{score['name']}: worst group {visible(score['metrics']['worst_group_name'])} at "
        f"{100 * score['metrics']['worst_group']:.0f} %"
        for score in groups["scores"]
    ]
    return _picture("scores", "Accuracy by group", "; ".join(worst) + ".", drawn, WIDTH, height)


def mark(kind: str, x: float, y: float) -> Markup:
    """Return one of the five marks that tell heads apart by shape."""
    shapes = {
        "hollow": '<circle class="hollow" cx="{x}" cy="{y}" r="4.5"/>',
        "filled": '<circle class="filled" cx="{x}" cy="{y}" r="5"/>',
        "square": '<path class="hollow" d="M{x} {y}m-4 -4h8v8h-8z"/>',
        "diamond": '<path class="filled" d="M{x} {y}m0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>',
        "cross": '<path class="stroke" d="M{x} {y}m-4 -4l8 8m0 -8l-8 8"/>',
    }
    return Markup(shapes[kind]).format(x=_n(x), y=_n(y))


class _Frame:
    """The place of values inside the axes."""

    def __init__(self, x_low: float, x_high: float, y_low: float, y_high: float) -> None:
        self._x = (x_low, max(x_high - x_low, 1e-12))
        self._y = (y_low, max(y_high - y_low, 1e-12))

    def x(self, value: float) -> float:
        return LEFT + (value - self._x[0]) / self._x[1] * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - (value - self._y[0]) / self._y[1] * (HEIGHT - TOP - BOTTOM)


def _picture(
    name: str, title: str, said: str, drawn: Sequence[str], width: float = WIDTH, height: float = HEIGHT
) -> Markup:
    return Markup(
        '<svg role="img" aria-labelledby="{name}-t {name}-d" viewBox="0 0 {w} {h}"><title id="{name}-t">{title}'
        '</title><desc id="{name}-d">{said}</desc>{drawn}</svg>'
    ).format(
        name=name,
        w=_n(width),
        h=_n(height),
        title=visible(title),
        said=visible(said),
        drawn=Markup("").join(drawn),
    )


def _shares_axis(frame: _Frame, top: float) -> Markup:
    drawn = []
    for share in (0.0, top / 2, top):
        y = frame.y(share)
        drawn += [_stroke(LEFT, y, WIDTH - RIGHT, y, "grid"), _text(LEFT - 4, y + 4, f"{100 * share:.3g} %", "end")]
    return Markup("").join(drawn)


def _line(frame: _Frame, side: Mapping[str, Any], shift: float) -> Markup:
    kind = side["side"]
    shares, lows, highs = (side[name] for name in ("profile", "profile_low", "profile_high"))
    points = [(frame.x(k + 1 + shift), frame.y(share)) for k, share in enumerate(shares) if math.isfinite(share)]
    drawn = [
        _stroke(frame.x(k + 1 + shift), frame.y(low), frame.x(k + 1 + shift), frame.y(high), f"whisker {kind}")
        for k, (low, high) in enumerate(zip(lows, highs, strict=True))
    ]
    path = " ".join(f"{_n(x)},{_n(y)}" for x, y in points)
    drawn.append(Markup('<polyline class="{} line" points="{}"/>').format(kind, path))
    shape = "filled" if kind == "members" else "square"
    drawn += [Markup('<g class="{}">{}</g>').format(kind, mark(shape, x, y)) for x, y in points]
    return Markup("").join(drawn)


def _bands(frame: _Frame, found: Distribution) -> Markup:
    drawn = []
    for band in found.bands:
        x, width = frame.x(band.low), max(frame.x(band.high) - frame.x(band.low), 1.0)
        if band.is_middle:
            shade = '<rect class="middle" x="{}" y="{}" width="{}" height="{}"/>'
            drawn.append(Markup(shade).format(_n(x), _n(TOP), _n(width), _n(HEIGHT - TOP - BOTTOM)))
        if width > 22:
            drawn.append(_text(x + width / 2, TOP + 8, band.name, "middle"))
    return Markup("").join(drawn)


def _bars(frame: _Frame, edges: Sequence[float], counts: Sequence[int]) -> Markup:
    bar = Markup('<rect class="members filled" x="{}" y="{}" width="{}" height="{}"/>')
    return Markup("").join(
        bar.format(_n(frame.x(low)), _n(frame.y(n)), _n(frame.x(high) - frame.x(low)), _n(frame.y(0) - frame.y(n)))
        for low, high, n in zip(edges[:-1], edges[1:], counts, strict=True)
        if n
    )


def _outline(frame: _Frame, edges: Sequence[float], counts: Sequence[int]) -> Markup:
    steps = [f"M{_n(frame.x(edges[0]))} {_n(frame.y(0))}"]
    for high, n in zip(edges[1:], counts, strict=True):
        steps.append(f"V{_n(frame.y(n))}H{_n(frame.x(high))}")
    return Markup('<path class="strangers line" d="{}"/>').format(" ".join([*steps, f"V{_n(frame.y(0))}"]))


def _tick(x: float, bottom: float, words: str) -> Markup:
    return _stroke(x, 4, x, bottom, "grid") + _text(x, bottom + 15, words, "middle")


def _stroke(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    line = '<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>'
    return Markup(line).format(kind, _n(x1), _n(y1), _n(x2), _n(y2))


def _text(x: float, y: float, words: str, anchor: str) -> Markup:
    return Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(_n(x), _n(y), anchor, visible(words))


def _listed(shares: Sequence[float]) -> str:
    return ", ".join("none" if math.isnan(share) else f"{100 * share:.0f} %" for share in shares)


def _ceiling(share: float) -> float:
    """Return the share that the axis ends at: a round one at or above `share`."""
    return next((end for end in (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8) if share <= end), 1.0)


def _n(value: float) -> str:
    return f"{value:.1f}".rstrip("0").rstrip(".")
