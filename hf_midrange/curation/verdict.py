"""The verdict: repaired, nothing to repair, or beyond what the features carry."""

from __future__ import annotations

import math
from typing import Any

from hf_midrange.curation.default import (
    APART,
    DEFICIT,
    IS_CLASS,
    LEARNT,
    OF_NETWORK,
    TIED_AUC,
    TIED_CONFIRMATION,
)
from hf_midrange.curation.report import CANNOT, NOTHING, REPAIRED
from hf_midrange.curation.selection import MINIMUM


BARELY = 1.2
"""Features do not carry a class where even the upper bound of a repaired accuracy is below this many times chance."""

GAINED = 0.25
"""A pseudo-group that gains this much accuracy is carried by the features; its rows may be too few to learn from."""


def judge(report: dict[str, Any]) -> tuple[str, str]:
    """Return the verdict on the other figures of a report, and a sentence that explains it."""
    before, after, chance = report["worst_before"], report["worst_after"], 1 / len(report["classes"])
    if not report.get("sign", True):
        return NOTHING, f"{_doubt(report)}: no sign of a confounder, head left as it is"
    worst = min(report["cells"], key=lambda cell: cell["after"]["high"])
    gain = worst["after"]["accuracy"] - worst["before"]["accuracy"]
    if worst["after"]["high"] < BARELY * chance and gain < GAINED:
        return CANNOT, (
            f"balanced weights reach {worst['after']['accuracy']:.2f} in *{worst['name']}* (cross-validated, at most "
            f"{worst['after']['high']:.2f}): the features do not carry the class there"
        )
    return REPAIRED, f"worst pseudo-group {before:.2f} before, {after:.2f} after, cross-validated"


def _doubt(report: dict[str, Any]) -> str:
    """Say why no sign was seen, in a view or in the embedding."""
    alone = _doubt_in_embedding(report)
    if report["rule"] != "embedding":
        view = next(view for view in report["views"] if view["name"] == report["view"])
        figures = [
            f"it tells the class with AUC {view['auc']:.2f} (tied: above {TIED_AUC}) and opposite skew "
            f"{view['skew']:.2f} (tied: above {APART})"
        ]
        if view["name"] in OF_NETWORK and view["skew"] <= APART:
            figures.append("it comes from a network, which may know the class, so nothing else counts")
            return f"{view['name']} shows no tie: {', '.join(figures)}, and {alone}"
        figures += [
            f"the network is {report['deficit']:.2f} ± {report['deficit_error']:.2f} less accurate on its contrary "
            f"rows (or surely above {DEFICIT})",
            _confirmed(report["confirmation"]),
        ]
        return f"{view['name']} shows no tie: {', '.join(figures)}, and {alone}"
    known = [view["name"] for view in report["views"] if view["skew"] < IS_CLASS]
    lack = f"the views at hand ({', '.join(known)}) are the class itself" if known else "there is no side view"
    return f"{lack} and {alone}"


def _confirmed(auc: float) -> str:
    if math.isnan(auc):
        return "no rows lie low in the embedding to confirm them"
    return (
        f"the embedding confirms them with AUC {auc:.2f} (or above {TIED_CONFIRMATION}, if the network is less "
        "accurate there)"
    )


def _doubt_in_embedding(report: dict[str, Any]) -> str:
    if report["embedding_skew"] <= report["embedding_skew_of_sign"]:
        skew, needed = report["embedding_skew"], report["embedding_skew_of_sign"]
        return f"the embedding's opposite skew {skew:.2f} is not above {needed}"
    if "embedding_gain" not in report:
        return f"fewer than {MINIMUM} rows of each class lie low in the embedding"
    return (
        f"rows that lie low in the embedding gain {report['embedding_gain']:.2f} when learnt from each other (tied: "
        f"above {LEARNT}, in no class below 0, and beyond chance)"
    )
