"""The report of a curation, and how it travels inside the dataset."""

from __future__ import annotations

import json
from typing import Any

from datasets import Dataset, DatasetDict, Value

from hf_midrange import columns
from hf_midrange.io.files import from_json, intact


REPAIRED = "repaired"
NOTHING = "nothing to repair"
CANNOT = "features cannot carry it"

LEFT_OUT = "left out"
"""The pseudo-group of rows that a strategy leaves out; they weigh nothing."""

LEFT_OUT_BY_HAND = ("drop", "mislabelled")
"""What a reader marks rows as that are to weigh nothing."""


def reason_feature(report: dict[str, Any]) -> Value:
    """Return the feature of the `reason` column with the report written into its `id`.

    The `id` of a feature is the one place for free text that survives `select`, `map`, `save_to_disk`, parquet and the
    YAML that `push_to_hub` writes.
    """
    return Value("string", id=json.dumps(report, ensure_ascii=True, allow_nan=False, separators=(",", ":")))


def curation_report(curated: Dataset | DatasetDict) -> dict[str, Any]:
    """Return verdict and figures of a curated dataset; they travel with it through save, push and load.

    Args:
        curated: what `curate` returned, or the same after `select`, `filter`, `shuffle`, saving and loading. Of a
            `DatasetDict`, a report per split comes back.

    Returns:
        A plain dictionary: `verdict` (`"repaired"`, `"nothing to repair"` or `"features cannot carry it"`),
        `explanation` (one sentence), `strategy`, `views`, `confirmation`, `contrary_share`, `m`, `q`, and `cells` with
        rows, weight and cross-validated accuracy before and after, each with its 95 % interval.

    Raises:
        ValueError: if the dataset was not curated, lost its report, or holds something else in its place.
    """
    if isinstance(curated, DatasetDict):
        return {name: curation_report(split) for name, split in curated.items()}
    columns.require(curated, columns.REASON)
    written = getattr(curated.features[columns.REASON], "id", None)
    if not written:
        raise ValueError("the `reason` column holds no report; `curate(ds)` writes one")
    with intact("the report in the `reason` column", "report of a curation", "curate the rows again"):
        report = from_json(dict[str, Any], json.loads(written), "report")
        splits = from_json(dict[str, dict[str, Any]], report.get("splits", {}), "splits")
        for one in splits.values() or [report]:
            from_json(str, one["verdict"], "verdict")
    if not splits:
        return report
    # Splits that share one set of features, as on the Hub, share one column description too.
    if str(curated.split) not in splits:
        raise ValueError(f"there are reports of the splits {', '.join(splits)}, not of {curated.split!r}")
    return splits[str(curated.split)]
