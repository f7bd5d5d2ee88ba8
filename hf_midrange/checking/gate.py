"""Is a model still as good, and as free of shortcuts, as before? Four questions, each answered by a test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from datasets import Dataset
from scipy import special, stats

from hf_midrange import columns
from hf_midrange.association import associate
from hf_midrange.checking.baseline import FILE, Baseline
from hf_midrange.concepts import annotate
from hf_midrange.publishing.escaping import markdown, shortened, visible
from hf_midrange.ties import shortcuts


PASS, FAIL, CANNOT_TELL = "pass", "fail", "cannot tell"
EXIT_STATUS = {PASS: 0, FAIL: 1, CANNOT_TELL: 3}

# These say what is worth a failure; they were chosen, not fitted to data.
FEWEST = 20
"""Rows without which nothing is said of a group or a class."""
LEAST_DRIFT = 0.05
"""Share of rows that must have moved to another band."""
LEAST_RISE = 0.05
"""Rise of the chance that a row with the concept stands above one without it."""
TOLD = 3
"""Groups, shortcuts or units that a message names."""


@dataclass(frozen=True)
class Judgement:
    """One question and its answer.

    Attributes:
        name: of the question.
        status: `"pass"`, `"fail"` or `"cannot tell"`.
        message: a sentence for a person; names from the data are short and hold nothing that a terminal would obey.
        p_value: the smallest, adjusted for how many were asked (Holm 1979); None where nothing was tested.
        details: the figures of each group, shortcut or unit.
    """

    name: str
    status: str
    message: str
    p_value: float | None = None
    details: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Check:
    """The outcome; `baseline` is what the model measures now, where it could be measured."""

    judgements: list[Judgement]
    baseline: Baseline | None = None

    @property
    def status(self) -> str:
        """`"fail"` if a judgement fails, else `"cannot tell"` if one cannot tell, else `"pass"`."""
        found = {judgement.status for judgement in self.judgements}
        return next((status for status in (FAIL, CANNOT_TELL) if status in found), PASS)

    @property
    def exit_status(self) -> int:
        """0 pass, 1 fail, 3 cannot tell; 2 is bad usage."""
        return EXIT_STATUS[self.status]

    def __str__(self) -> str:
        return "\n".join([self.status, *(f"  {one.name}: {one.status}: {one.message}" for one in self.judgements)])

    def to_json(self) -> str:
        """Return everything but the baseline as JSON; the same check gives the same bytes."""
        judgements = [_rounded(asdict(judgement)) for judgement in self.judgements]
        facts = {"schema_version": 1, "status": self.status, "judgements": judgements}
        return json.dumps(facts, indent=1, sort_keys=True, allow_nan=False)

    def to_markdown(self) -> str:
        """Return a summary for a pull request; names from the data are escaped."""
        lines = [f"**hf-midrange check: {self.status}**", "", "| question | answer | |", "|---|---|---|"]
        return "\n".join(
            [*lines, *(f"| {j.name} | {j.status} | {markdown(j.message)} |" for j in self.judgements), ""]
        )

    def to_junit(self) -> str:
        """Return JUnit's XML: a test case a question; one that cannot be told counts as an error."""
        count = Counter(judgement.status for judgement in self.judgements)
        numbers = {"tests": len(self.judgements), "failures": count[FAIL], "errors": count[CANNOT_TELL]}
        suite = Element("testsuite", {"name": "hf-midrange check"} | {name: str(n) for name, n in numbers.items()})
        for judgement in self.judgements:
            case = SubElement(suite, "testcase", classname="hf_midrange.check", name=judgement.name)
            if judgement.status != PASS:
                kind = "failure" if judgement.status == FAIL else "error"
                SubElement(case, kind, message=judgement.message)
        return tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _rounded(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def check(
    model: Any,  # noqa: ANN401 - what `extract` takes
    ds: Dataset,
    *,
    baseline: Any = None,  # noqa: ANN401 - a file, an id or a model
    floor: float | None = None,
    alpha: float = 0.01,
    tolerance: float = 0.02,
    sources: Sequence[Any] | None = None,
    processor: Any = None,  # noqa: ANN401 - as `extract` takes it
    seed: int = 0,
) -> Check:
    """Say whether a model is at least as good as a floor or a baseline, without new shortcuts and without drift.

    Each question is one test at level `alpha`, adjusted for its groups, shortcuts or units (Holm 1979), so that the
    same model on fresh rows fails in at most about three times `alpha` of the cases. Rows of a baseline that is a
    model are the same rows, which the tests take for others: that errs towards passing.

    Args:
        model: the classifier, as `extract` takes it; None where `ds` has `logits`.
        ds: rows that neither model was trained on, with `label`; `group`, `logits` and `concepts_*` are used if there
            are any, else extracted and annotated.
        baseline: what a good model measures: a `Baseline`, its file or folder, a repository of the Hub that holds
            one, or the other model.
        floor: accuracy that no group, nor the rows that break a confirmed shortcut, may lie below.
        alpha: level of each of the three tests.
        tolerance: fall of a group's accuracy that is let pass.
        sources: concept sources, where `ds` has no concepts; None: the usual ones.
        processor: of the model.
        seed: of the halves of `associate`.

    Raises:
        ValueError: if there is neither a floor nor a baseline, or an option is out of range.
    """
    if baseline is None and floor is None:
        raise ValueError("there is nothing to compare with: give `floor=`, such as 0.8, or `baseline=`")
    if floor is not None and not 0 < floor < 1:
        raise ValueError(f"floor is an accuracy between 0 and 1, but is {floor}")
    if not len(ds):
        return Check([Judgement("rows", CANNOT_TELL, "there are no rows to check the model on")])
    rows = _with_concepts(_extracted(ds, model, processor), model, processor, sources)
    before = None if baseline is None else _baseline(baseline, rows, processor)
    try:
        measured = Baseline.of(rows, None if before is None else before.bands)
    except ValueError as error:  # logits that are not finite, a class without rows
        return Check([Judgement("rows", CANNOT_TELL, str(error))])
    if before is not None and before.classes != measured.classes:
        named = f"{_said(', '.join(before.classes[:5]))} became {_said(', '.join(measured.classes[:5]))}"
        return Check([Judgement("classes", FAIL, f"the classes are others: {named}")], measured)
    judgements = [_worst_group(measured, before, floor, alpha, tolerance)]
    if measured.concepts:
        judgements.append(_shortcuts(rows, measured, before, floor, alpha, seed))
    if before is not None:
        judgements.append(_drift(measured, before, alpha))
    return Check(judgements, measured)


def _said(name: str) -> str:
    return visible(shortened(name))


def _extracted(ds: Dataset, model: Any, processor: Any) -> Dataset:  # noqa: ANN401
    if columns.LOGITS in ds.column_names and (model is None or _made_by(model, ds)):
        return ds
    if model is None:
        raise ValueError("these rows have no `logits`, so a model is needed to make them")
    from hf_midrange.extraction import extract

    return extract(ds, model, processor)


def _made_by(model: Any, ds: Dataset) -> bool:  # noqa: ANN401
    """Return whether the logits say that this model made them."""
    facts = columns.facts(ds.features, columns.LOGITS)
    if isinstance(model, str | Path):
        return bool(facts.get("model") == str(model))
    from hf_midrange.classifier import fingerprint

    return bool(facts.get("fingerprint") == fingerprint(model))


def _with_concepts(ds: Dataset, model: Any, processor: Any, sources: Sequence[Any] | None) -> Dataset:  # noqa: ANN401
    if sources is None and (columns.concept_columns(ds.features) or model is None):
        return ds
    if sources is None:
        from hf_midrange.concepts import LatentConcepts
        from hf_midrange.concepts.usual import usual_sources

        # Clusters of the embedding are derived from it: nothing is tested of them.
        sources = [one for one in usual_sources(ds, model, processor) if not isinstance(one, LatentConcepts)]
    return annotate(ds, sources) if sources else ds


def _baseline(given: Any, rows: Dataset, processor: Any) -> Baseline:  # noqa: ANN401
    """Return a baseline, reading it or measuring the model that is given in its place on the same rows."""
    if isinstance(given, Baseline):
        return given
    if isinstance(given, str | Path):
        place = Path(given)
        if place.is_file() or (place / FILE).is_file():
            return Baseline.from_pretrained(place)
        if not place.exists():
            try:
                return Baseline.from_pretrained(str(given))
            except FileNotFoundError:  # a model without a baseline beside it
                pass
    made = [name for name in (columns.LOGITS, columns.EMBEDDING, columns.PREDICTION) if name in rows.column_names]
    from hf_midrange.extraction import extract

    return Baseline.of(extract(rows.remove_columns(made), given, processor))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return p-values adjusted so that the chance of any false one is at most the level (Holm 1979)."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    factors = len(p) - stats.rankdata(p, method="ordinal") + 1
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate((factors * p)[order]))
    return adjusted


def fallen(right: int, rows: int, right_before: int, rows_before: int) -> float:
    """Return the one-sided p-value that an accuracy fell: the score test of two proportions, pooled variance."""
    pooled = (right + right_before) / (rows + rows_before)
    variance = pooled * (1 - pooled) * (1 / rows + 1 / rows_before)
    if variance == 0:
        return 1.0
    return float(stats.norm.cdf((right / rows - right_before / rows_before) / np.sqrt(variance)))


def _worst_group(
    now: Baseline, before: Baseline | None, floor: float | None, alpha: float, tolerance: float
) -> Judgement:
    """Ask whether a group lies below the floor, or fell below the baseline by more than is let pass."""
    large = {name: counts for name, counts in now.groups.items() if counts[1] >= FEWEST}
    if not large:
        return Judgement("worst group", CANNOT_TELL, f"no group has {FEWEST} rows")
    details = []
    for name, (right, rows) in large.items():
        told: dict[str, Any] = {"group": name, "accuracy": right / rows, "rows": rows, "p_value": 1.0}
        if floor is not None:
            told |= {"p_value": float(stats.binom.cdf(right, rows, floor)), "compared_with": floor}
        if before is not None and before.groups.get(name, (0, 0))[1] >= FEWEST:
            was, were = before.groups[name]
            told |= {"before": was / were}
            if was / were - right / rows > tolerance:
                told["p_value"] = min(told["p_value"], fallen(right, rows, was, were))
        details.append(told)
    adjusted = holm([told["p_value"] for told in details])
    for told, p in zip(details, adjusted, strict=True):
        told["p_adjusted"] = float(p)
    worst = min(details, key=lambda told: told["accuracy"])
    failed = [told for told in details if told["p_adjusted"] <= alpha]
    message = "; ".join(_of_group(told, floor) for told in (failed or [worst])[:TOLD])
    unsure = floor is not None and worst["accuracy"] < floor
    gone = [
        name for name, counts in (before.groups if before else {}).items() if counts[1] >= FEWEST and name not in large
    ]
    if gone and not failed:
        message = f"{_said(gone[0])} had {FEWEST} rows or more in the baseline, and has fewer now"
    status = FAIL if failed else CANNOT_TELL if unsure or gone else PASS
    return Judgement("worst group", status, message, float(adjusted.min()), details)


def _of_group(told: dict[str, Any], floor: float | None) -> str:
    was = f", {told['before']:.1%} before" if "before" in told else ""
    below = f", floor {floor:.1%}" if floor is not None else ""
    return f"{_said(told['group'])} {told['accuracy']:.1%} of {told['rows']} rows{was}{below}"


def _shortcuts(
    rows: Dataset, now: Baseline, before: Baseline | None, floor: float | None, alpha: float, seed: int
) -> Judgement:
    """Ask whether a confirmed cue moves its logit further than before, or its exceptions lie below the floor."""
    try:
        findings = associate(now.bands.transform(rows), seed=seed)
    except ValueError as error:  # too few rows
        return Judgement("shortcuts", CANNOT_TELL, str(error))
    found = [one for one in shortcuts(rows, findings) if one["concept"] is not None]
    right = columns.matrix(rows, columns.LOGITS).argmax(axis=1) == columns.labels(rows)
    details = []
    for one in found:
        told = _of_cue(one["class"], f"{one['source']}: {one['concept']}", now, before)
        exceptions = right[one["rows"]]
        told |= {"exceptions": len(exceptions), "accuracy_on_exceptions": float(exceptions.mean())}
        if floor is not None and len(exceptions) >= FEWEST:
            below = float(stats.binom.cdf(int(exceptions.sum()), len(exceptions), floor))
            told["p_value"] = min(told["p_value"], below)
        details.append(told)
    if not details:
        return Judgement("shortcuts", PASS, "no confirmed cue is tied to a class")
    for told, p in zip(details, holm([told["p_value"] for told in details]), strict=True):
        told["p_adjusted"] = float(p)
    details.sort(key=lambda told: (told["p_adjusted"], told["class"], told["concept"]))
    failed = [told for told in details if told["p_adjusted"] <= alpha]
    if failed:
        words = [f"{_said(told['concept'])} for {_said(told['class'])}" for told in failed]
        more = f" and {len(words) - TOLD} more" if len(words) > TOLD else ""
        message = f"the model leans on {', '.join(words[:TOLD])}{more}" + (" more than before" if before else "")
    else:
        message = f"{len(details)} shortcuts, none stronger than before" if before else f"{len(details)} shortcuts"
    return Judgement("shortcuts", FAIL if failed else PASS, message, details[0]["p_adjusted"], details)


def _of_cue(class_name: str, concept: str, now: Baseline, before: Baseline | None) -> dict[str, Any]:
    """Return how far a concept moves a logit now and before, with the one-sided p-value that it moves it further."""
    unit = now.classes.index(class_name)
    area, error = now.of_concept(concept, unit)
    told: dict[str, Any] = {"class": class_name, "concept": concept, "area": area, "p_value": 1.0}
    if before is None:
        return told
    was, error_before = before.of_concept(concept, unit)
    told["before"] = was
    if area is not None and was is not None and error and error_before and area - max(was, 0.5) >= LEAST_RISE:
        told["p_value"] = float(special.ndtr(-(area - was) / np.hypot(error, error_before)))
    return told


def _drift(now: Baseline, before: Baseline, alpha: float) -> Judgement:
    """Ask whether rows moved between the baseline's bands: Pearson's test, members and strangers apart."""
    details = []
    for unit, name in enumerate(now.classes):
        tables = [np.array([before.shares[unit][side], now.shares[unit][side]]) for side in (0, 1)]
        details.append({"unit": name} | _moved(tables))
    if not any(told["tested"] for told in details):
        return Judgement("drift", CANNOT_TELL, f"no unit has {FEWEST} rows in its bands")
    for told, p in zip(details, holm([told["p_value"] for told in details]), strict=True):
        told["p_adjusted"] = float(p)
    failed = [told for told in details if told["p_adjusted"] <= alpha and told["moved"] >= LEAST_DRIFT]
    most = max(details, key=lambda told: told["moved"])
    message = f"at most {most['moved']:.1%} of the rows moved to another band ({_said(most['unit'])})"
    if failed:
        message = "; ".join(f"{_said(told['unit'])}: {told['moved']:.1%} of the rows moved" for told in failed[:TOLD])
    least = min(told["p_adjusted"] for told in details)
    return Judgement("drift", FAIL if failed else PASS, message, least, details)


def _moved(tables: list[np.ndarray]) -> dict[str, Any]:
    """Return Pearson's test over tables before x now by band, and the largest share that moved."""
    total, freedom, moved = 0.0, 0, 0.0
    for table in tables:
        table = table[:, table.sum(axis=0) > 0]
        if table.sum(axis=1).min(initial=FEWEST) < FEWEST or table.shape[1] < 2:
            continue
        found = stats.chi2_contingency(table, correction=False)
        total, freedom = total + float(found.statistic), freedom + int(found.dof)
        shares = table / table.sum(axis=1, keepdims=True)
        moved = max(moved, float(np.abs(shares[1] - shares[0]).sum() / 2))
    p = float(stats.chi2.sf(total, freedom)) if freedom else 1.0
    return {"moved": moved, "p_value": p, "tested": freedom > 0}
