"""The verdict: repaired, nothing to repair, or beyond what the features carry."""

from __future__ import annotations

from typing import Any

from hf_midrange.curation.default import IS_CLASS, SIGN_IN_EMBEDDING
from hf_midrange.curation.report import CANNOT, NOTHING, REPAIRED
from hf_midrange.curation.selection import Selection


def judge(strategy: str, selection: Selection, report: dict[str, Any]) -> tuple[str, str]:
    """Return the verdict and a sentence that explains it."""
    if strategy == "auto":
        doubt = _no_sign(report)
        if doubt:
            return NOTHING, f"{doubt}: no sign of a confounder, head left as it is"
    if report["worst_after"] < 1 / len(report["classes"]):
        reach = report["worst_after"]
        return CANNOT, f"balanced weights reach {reach:.2f} in the worst pseudo-group: the features do not carry the class there"
    return REPAIRED, f"worst pseudo-group {report['worst_before']:.2f} before, {report['worst_after']:.2f} after, cross-validated"


def _no_sign(report: dict[str, Any]) -> str:
    if report["rule"] != "embedding":
        return ""
    if report["embedding_skew"] > SIGN_IN_EMBEDDING:
        return ""
    known = [view["name"] for view in report["views"] if view["skew"] < IS_CLASS]
    lack = f"the views at hand ({', '.join(known)}) are the class itself" if known else "there is no side view"
    return f"{lack} and the embedding's opposite skew {report['embedding_skew']:.2f} is not above {SIGN_IN_EMBEDDING}"
