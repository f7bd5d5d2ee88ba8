"""Plots of a finding's profile, of distributions with bands, and of accuracy by group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from datasets import Dataset

from hf_midrange import columns
from hf_midrange.figures.canvas import MEMBER, STRANGER, bare, empty_figure, literal, unit_of
from hf_midrange.figures.middle import draw_distribution


if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKERS = "osD^vP"


def profile_figure(finding: Mapping[str, Any]) -> Figure:
    """Return how often a concept occurs along the range: members and strangers, five equal bins each, 95 % intervals.

    Args:
        finding: a row of what `associate` returned, such as `findings[0]`.

    Raises:
        ImportError: if matplotlib is not installed.
    """
    figure = empty_figure(5, 3.4)
    axes = figure.subplots()
    styles = {"member": (MEMBER, "o-", "members"), "stranger": (STRANGER, "s--", "strangers")}
    for side, (colour, style, name) in styles.items():
        if finding[f"{side}_profile"] is None:  # a unit that stands for no class has no members
            continue
        share, low, high = (np.asarray(finding[f"{side}_profile{end}"], float) for end in ("", "_low", "_high"))
        spread = np.abs(np.stack([share - low, high - share]))
        bins = np.arange(1, len(share) + 1)
        face = colour if side == "member" else "white"
        label = f"{name}, {finding[f'{side}_shape']}"
        axes.errorbar(bins, share, yerr=spread, fmt=style, color=colour, mfc=face, capsize=2, label=label)
    axes.set(xlabel=f"fifth of the range of {literal(finding['unit_name'])}, lowest to highest", xticks=range(1, 6))
    axes.set(ylabel="share of rows with it", ylim=(0, None), title=literal(finding["concept"]))
    axes.legend(frameon=False)
    bare(axes)
    return figure


def distributions_figure(ds: Dataset, units: Sequence[int | str] | None = None) -> Figure:
    """Return the distribution of each class's logit over its members and all others, the middle shaded.

    Args:
        ds: has `label`, `logits` and `band`.
        units: classes by number or name; by default the first six.

    Raises:
        ImportError: if matplotlib is not installed.
        KeyError: if a column is missing.
        ValueError: if there is no such class.
    """
    columns.require(ds, columns.LABEL, columns.LOGITS, columns.BAND)
    names, ids = columns.class_label(ds.features).names, columns.labels(ds)
    chosen = [unit_of(ds, unit) for unit in (range(min(6, len(names))) if units is None else units)]
    logits, bands = (columns.some_units(ds, column, chosen) for column in (columns.LOGITS, columns.BAND))
    across = min(3, len(chosen))
    down = -(-len(chosen) // across)
    figure = empty_figure(4.5 * across, 3.0 * down)
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for k, unit in enumerate(chosen):
        draw_distribution(panels[k], logits[:, k], bands[:, k], ids == unit, literal(names[unit]))
    for spare in panels[len(chosen) :]:
        spare.set_axis_off()
    return figure


def groups_figure(scores: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Return the accuracy of every group under every head, with its interval.

    Args:
        scores: head -> what `group_metrics` returned, such as `{"before": .., "after": ..}`; groups of the first.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if there is no head.
    """
    if not scores:
        raise ValueError("there is no head to draw; give {'before': group_metrics(...), 'after': group_metrics(...)}")
    groups = list(next(iter(scores.values()))["groups"])
    figure = empty_figure(6, 1.2 + 0.22 * len(groups) * (len(scores) + 1))
    axes = figure.subplots()
    for k, (head, metrics) in enumerate(scores.items()):
        told = [metrics["groups"].get(name) for name in groups]
        kept = [(row, each) for row, each in enumerate(told) if each is not None]
        at = [row + (k - (len(scores) - 1) / 2) / (len(scores) + 1) for row, _ in kept]
        share, low, high = (np.array([each[key] for _, each in kept]) for key in ("accuracy", "ci_low", "ci_high"))
        spread = np.abs(np.stack([share - low, high - share]))
        marker = MARKERS[k % len(MARKERS)]
        axes.errorbar(share, at, xerr=spread, fmt=marker, mfc="white" if k == 0 else None, label=literal(head))
    axes.set(yticks=range(len(groups)), yticklabels=[literal(name) for name in groups], xlabel="accuracy")
    axes.set_xlim(0, 1.02)
    axes.invert_yaxis()
    axes.legend(frameon=False, loc="best")
    bare(axes)
    return figure
