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
from hf_midrange.ties import shortcuts


if TYPE_CHECKING:
    from hf_midrange.bands import LogitBands
    from hf_midrange.reporting import Report


BEFORE = "before debiasing"
CI = ("_ci_low", "_ci_high")
SCORED = {"group": "group", "pseudo_group": "pseudo-group", "class": "class"}
"""What rows are scored by, in the names of metrics, and what it is called."""


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
        control: the same with a head for which the weights were given to random rows; None where it was not fitted.
        evaluation: the evaluation set as `extract` gave it; None without one, and of a trainer's.
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
    control: Mapping[str, float] | None = None
    evaluation: Dataset | None = None
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
        if worst is None:
            return said
        said = said.partition("; worst pseudo-group")[0]  # what was measured says more than what was expected
        return f"{said}; worst {worst[0]} {worst[1]:.3f} before, {worst[2]:.3f} after"

    @cached_property
    def shortcuts(self) -> Dataset:
        """What `hm.shortcuts` says of the rows: one for each tie, most harmful first.

        Raises:
            ValueError: where an already curated set was used, which has no findings.
        """
        return shortcuts(self.curated, self._findings)

    @cached_property
    def report(self) -> Report:
        """The page with the rows that show it.

        Raises:
            ValueError: where an already curated set was used, which has no findings.
        """
        from hf_midrange.reporting import report

        return report(self.curated, self._findings, head=self.head, evaluation=self.evaluation)

    @property
    def _findings(self) -> Dataset:
        if self.findings is None:
            raise ValueError("an already curated set has no findings to report; debias the rows it was made of")
        return self.findings

    def __str__(self) -> str:
        header, rows = self.compared()
        widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in (header, *rows)
        ]
        return "\n".join([self.sentence, *self.told_shortcuts(), *(line.rstrip() for line in (lines if rows else ()))])

    def _repr_html_(self) -> str:
        from hf_midrange.reporting.rendering import table

        return table(*self.compared(), [self.sentence, *self.told_shortcuts()])

    def compared(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        """Return a table of accuracies before and after: its header, and a row for each group, the worst and all.

        They are those of the evaluation set; without one, cross-validated ones of the pseudo-groups of the curation.
        """
        if not self.before or not self.after:
            cells = self.curation.get("cells", [])
            rows = [
                (cell["name"], *(_cell("", cell[when]["accuracy"]) for when in ("before", "after"))) for cell in cells
            ]
            return ("pseudo-group", "before", "after, cross-validated"), rows
        told = {"before": self.before, "random rows": self.control, "after": self.after}
        heads = {name: metrics for name, metrics in told.items() if metrics}
        kind = next((kind for kind in SCORED if f"worst_{kind}_accuracy" in self.before), None)
        if kind is None:  # of several evaluation sets, or scored by the user's own metrics
            names = {key: key for key in self.before if key.endswith(("accuracy", "loss"))}
        else:
            prefix = f"{kind}_accuracy_"
            each = [key for key in self.before if key.startswith(prefix) and not key.endswith(CI)]
            features = {} if self.evaluation is None else self.evaluation.features
            given = features[kind].names if kind in features and len(features[kind].names) == len(each) else None
            names = dict(zip(each, given or [key.removeprefix(prefix) for key in each], strict=True))
            names |= {f"worst_{kind}_accuracy": f"worst {SCORED[kind]}", "accuracy": "all rows"}
        rows = [(said, *(_cell(key, metrics.get(key)) for metrics in heads.values())) for key, said in names.items()]
        return (SCORED.get(kind or "", "metric"), *heads), rows

    def told_shortcuts(self, most: int = 3) -> list[str]:
        """Return a line for each of the most harmful shortcuts, and one for how many more there are."""
        found = [] if self.findings is None else self.shortcuts["sentence"][:]
        more = [f"and {len(found) - most} more"] if len(found) > most else []
        return [f"{number}. {said}" for number, said in enumerate(found[:most], 1)] + more

    def _worst(self) -> tuple[str, float, float] | None:
        """Return the worst group or class of the evaluation set: what it is, and its accuracy before and after."""
        before, after = self.before or {}, self.after or {}
        for kind, said in SCORED.items():
            name = f"worst_{kind}_accuracy"
            if name in before and name in after:
                return said, before[name], after[name]
        return None

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
            "control": None if self.control is None else dict(self.control),
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


def _cell(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if name.endswith("loss") else f"{100 * value:.1f} %"
