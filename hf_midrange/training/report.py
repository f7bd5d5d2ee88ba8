"""What `debias()` found and did."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_midrange import columns
from hf_midrange.curation.report import REPAIRED, curation_report
from hf_midrange.head import LinearHead
from hf_midrange.io.files import write_atomically


SHOWN = ("accuracy", "worst_group_accuracy", "worst_pseudo_group_accuracy", "loss")


@dataclass(frozen=True, eq=False)
class DebiasReport:
    """The outcome of a debiasing; printed, it is a few lines to read, and a notebook shows it as a table.

    `hm.report(outcome.curated, outcome.findings, head=outcome.head)` makes the page with the rows that show it.

    Attributes:
        verdict: `"repaired"`, `"nothing to repair"` or `"features cannot carry it"`.
        curation: what `curation_report` says.
        findings: what `associate` returned; None where an already curated set was used.
        curated: the curated rows.
        head: the head that the model now has.
        before: metrics on the evaluation set with the old head; None without such a set.
        after: the same with the new head.
    """

    verdict: str
    curation: Mapping[str, Any]
    findings: Dataset | None
    curated: Dataset
    head: LinearHead
    before: Mapping[str, float] | None = None
    after: Mapping[str, float] | None = None

    @classmethod
    def of(
        cls,
        findings: Dataset | None,
        curated: Dataset,
        head: LinearHead,
        before: Mapping[str, float] | None,
        after: Mapping[str, float] | None,
    ) -> DebiasReport:
        """Return the report, with the verdict of the curated rows; weights of the user's own come without one."""
        told = bool(getattr(curated.features.get(columns.REASON), "id", None))
        curation = curation_report(curated) if told else {"verdict": REPAIRED}
        return cls(curation["verdict"], curation, findings, curated, head, before, after)

    def __str__(self) -> str:
        lines = [f"{self.verdict}: {self.curation.get('explanation', 'no report came with the curated rows')}"]
        if self.findings is not None:
            lines.append(f"{len(self.findings)} findings on {len(self.curated)} rows{_named(self.findings)}")
        before, after = self.before or {}, self.after or {}
        lines += [f"{name}: {before[name]:.4f} before, {after[name]:.4f} after" for name in self._measured()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from hf_midrange.reporting.rendering import table

        verdict, *found = str(self).splitlines()
        before, after = self.before or {}, self.after or {}
        rows = [(name, f"{before[name]:.4f}", f"{after[name]:.4f}") for name in self._measured()]
        return table(("", "before", "after"), rows, [verdict, *found[: len(found) - len(rows)]])

    def _measured(self) -> list[str]:
        """Return the metrics that are told of before and after."""
        if self.before is None or self.after is None:
            return []
        return [name for name in self.before if name.endswith(SHOWN) and name in self.after]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON holds it; of findings their number, of the head its shape."""
        return {
            "verdict": self.verdict,
            "curation": dict(self.curation),
            "findings": None if self.findings is None else len(self.findings),
            "rows": len(self.curated),
            "head": {"classes": self.head.num_classes, "width": self.head.width},
            "before": None if self.before is None else dict(self.before),
            "after": None if self.after is None else dict(self.after),
        }

    def to_json(self) -> str:
        """Return `to_dict()` as text."""
        return json.dumps(self.to_dict(), indent=2)

    def save(self, file: Path) -> None:
        """Write the report as JSON."""
        write_atomically(file, self.to_json() + "\n")


def _named(findings: Dataset) -> str:
    confounders = [row for row in findings.select_columns(["concept", "confounder"]) if row["confounder"]]
    names = list(dict.fromkeys(str(row["concept"]) for row in confounders))
    more = f", and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; confounders: {', '.join(names[:5])}{more}" if names else ""
