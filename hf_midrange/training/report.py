"""What `debias()` found and did."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datasets import Dataset

from hf_midrange import verdicts
from hf_midrange.curation.report import curation_report
from hf_midrange.head import LinearHead
from hf_midrange.io.datasets import write_dataset
from hf_midrange.io.files import to_json, write_atomically
from hf_midrange.io.folders import written_once
from hf_midrange.publishing.model import Background


if TYPE_CHECKING:
    from hf_midrange.bands import LogitBands
    from hf_midrange.reporting import Report


BEFORE = "before debiasing"
SHOWN = ("accuracy", "worst_group_accuracy", "worst_pseudo_group_accuracy", "loss")


@dataclass(frozen=True, eq=False)
class DebiasReport:
    """The outcome of a debiasing; printed, it is a few lines to read, and a notebook shows it as a table.

    `hm.report(outcome.curated, outcome.findings, head=outcome.head)` makes the page with the rows that show it.

    Attributes:
        verdict: `"shown"`, `"suspected"`, `"none seen"` or `"cannot be carried"`.
        curation: what `curation_report` says.
        findings: what `associate` returned; None where an already curated set was used.
        curated: the curated rows.
        head: the head that the model now has.
        before: metrics on the evaluation set with the old head; None without such a set.
        after: the same with the new head.
        bands: the fitted bands; None where an already curated set was used.
        model: the model with the new head; None where it is a trainer's own.
    """

    verdict: str
    curation: Mapping[str, Any]
    findings: Dataset | None
    curated: Dataset
    head: LinearHead
    before: Mapping[str, float] | None = None
    after: Mapping[str, float] | None = None
    bands: LogitBands | None = None
    model: Any = None

    @classmethod
    def of(
        cls, findings: Dataset | None, curated: Dataset, head: LinearHead, bands: LogitBands | None = None
    ) -> DebiasReport:
        """Return the report, with the verdict of the curated rows; weights of the user's own come without one."""
        try:
            curation = curation_report(curated)
        except (KeyError, ValueError):
            curation = {"verdict": verdicts.SHOWN}
        return cls(curation["verdict"], curation, findings, curated, head, bands=bands)

    def background(self, background: Background) -> Background:
        """Return what is known of the model for its card, with what was found and done here."""
        before = score_of(self.before) if self.is_changed else None
        return replace(
            background,
            head=self.head if self.is_changed else None,
            curated=self.curated if self.curation.get("cells") else None,  # not rows weighted by the user
            findings=self.findings,
            controls={BEFORE: before} if before else None,
        )

    @property
    def is_changed(self) -> bool:
        """Whether the head is another one than before."""
        return not verdicts.unchanged(self.curation)

    @property
    def is_better(self) -> bool:
        """Whether the head is another one, and no evaluation set has a worse worst group or class for it."""
        worst = self._worst()
        return self.is_changed and (worst is None or worst[2] >= worst[1])

    @property
    def sentence(self) -> str:
        """The verdict and why, in one sentence."""
        said = f"{self.verdict}: {self.curation.get('explanation', 'no report came with the curated rows')}"
        worst = self._worst()
        return said if worst is None else f"{said}; {worst[0]} {worst[1]:.3f} before, {worst[2]:.3f} after"

    @property
    def shortcuts(self) -> list[str]:
        """Concepts that were confirmed to confound a class, most certain first."""
        return [] if self.findings is None else _confounders(self.findings)

    @cached_property
    def report(self) -> Report:
        """The page with the rows that show it.

        Raises:
            ValueError: where an already curated set was used, which has no findings.
        """
        from hf_midrange.reporting import report

        if self.findings is None:
            raise ValueError("an already curated set has no findings to report; debias the rows it was made of")
        return report(self.curated, self.findings, head=self.head)

    def __str__(self) -> str:
        lines = [self.sentence]
        if self.findings is not None:
            lines.append(f"{len(self.findings)} findings on {len(self.curated)} rows{_named(self.findings)}")
        lines += [f"{name}: {before} before, {after} after" for name, before, after in self._compared()]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from hf_midrange.reporting.rendering import table

        rows = self._compared()
        told = str(self).splitlines()
        return table(("", "before", "after"), rows, told[: len(told) - len(rows)])

    def _worst(self) -> tuple[str, float, float] | None:
        """Return the worst group or class of the evaluation set: what it is, and its accuracy before and after."""
        before, after = self.before or {}, self.after or {}
        for kind in ("group", "pseudo_group", "class"):
            name = f"worst_{kind}_accuracy"
            if name in before and name in after:
                return f"worst {kind.replace('_', '-')}", before[name], after[name]
        return None

    def _compared(self) -> list[tuple[str, str, str]]:
        """Return the metrics that are told of: name, before, after."""
        before, after = self.before or {}, self.after or {}
        told = [name for name in before if name.endswith(SHOWN) and name in after]
        return [(name, f"{before[name]:.4f}", f"{after[name]:.4f}") for name in told]

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
        return to_json(self.to_dict(), indent=2)

    def write(self, folder: Path, processor: Any = None) -> None:  # noqa: ANN401 - of many classes
        """Write what came out into a folder: datasets, bands, head, page, and the model if its new head is better.

        Args:
            folder: what is there of an earlier debiasing is replaced.
            processor: preprocessing to save beside the model.
        """
        made: dict[str, Any] = {"head": self.head.save_pretrained, "curated": partial(write_dataset, self.curated)}
        if self.findings is not None:
            made["findings"] = partial(write_dataset, self.findings)
        if self.bands is not None:
            made["bands"] = self.bands.save_pretrained
        if self.is_better and hasattr(self.model, "save_pretrained"):
            made["model"] = self.model.save_pretrained
        for name in ("head", "curated", "findings", "bands", "model"):
            shutil.rmtree(folder / name, ignore_errors=True)
            if name in made:
                written_once(folder / name, made[name])
        if "model" in made and hasattr(processor, "save_pretrained"):
            processor.save_pretrained(folder / "model")
        if self.findings is not None:
            self.report.save(folder)
        self.save(folder / "debias_report.json")

    def save(self, file: Path) -> None:
        """Write the report as JSON."""
        write_atomically(file, self.to_json() + "\n")


def score_of(metrics: Mapping[str, float] | None) -> dict[str, Any] | None:
    """Return metrics as `group_metrics` names them; None where rows were not scored by group."""
    names = {"mean": "accuracy", "worst_group": "worst_group_accuracy"}
    found = metrics or {}
    if not all(0 <= found.get(name, -1) <= 1 for name in names.values()):
        return None
    score: dict[str, Any] = {key: found[name] for key, name in names.items()}
    for key, name in names.items():
        if f"{name}_ci_low" in found:
            score[f"{key}_ci"] = (found[f"{name}_ci_low"], found[f"{name}_ci_high"])
    return score


def _named(findings: Dataset) -> str:
    names = _confounders(findings)
    more = f", and {len(names) - 5} more" if len(names) > 5 else ""
    return f"; confounders: {', '.join(names[:5])}{more}" if names else ""


def _confounders(findings: Dataset) -> list[str]:
    rows = findings.select_columns(["concept", "confounder"])
    return list(dict.fromkeys(str(row["concept"]) for row in rows if row["confounder"]))
