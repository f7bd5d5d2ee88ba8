"""Worst-group accuracy, a module for `evaluate`; it stands by itself, so that it loads from the Hub alone.

Its figures are those of `hf_midrange.group_metrics`. Each import has a line of its own, as `evaluate` reads them.
"""

import datasets
import evaluate
import numpy as np
from scipy import special


_DESCRIPTION = """
Accuracy of the worst group, of every group and of all rows, each with Wilson's score interval. A group is what a
classifier must not be worse on: a class on an unusual background, a class said with another dialect.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (`list` of `int`): Predicted class ids.
    references (`list` of `int`): True class ids.
    groups (`list` of `int`): Group ids, from 0.
    group_names (`list` of `str`, *optional*): Names of the groups, by id; ids name themselves without it.
    train_group_shares (`list` of `float`, *optional*): Each group's share of the training set, by id. With it,
        `mean_reweighted` is the mean of the groups' accuracies with these weights; groups without a row are left out
        of it and the rest rescaled.
    confidence (`float`, defaults to 0.95): Nominal coverage of the intervals.

Returns:
    `mean`, `worst_group` (`float`): Accuracies from 0 to 1, the higher the better.
    `mean_ci`, `worst_group_ci` (`tuple` of two `float`): Their intervals; the second is simultaneous over the groups.
    `worst_group_name` (`str`): The group with the lowest accuracy.
    `groups` (`dict`): For each group with a row, `accuracy`, `ci_low`, `ci_high` and `n`, its number of rows.
    `mean_reweighted` (`float`): Only with `train_group_shares`.

Examples:

    >>> metric = evaluate.load("worst_group_accuracy")
    >>> result = metric.compute(predictions=[0, 0, 1, 1], references=[0, 0, 1, 0], groups=[0, 0, 1, 1])
    >>> result["mean"], result["worst_group"], result["worst_group_name"]
    (0.75, 0.5, '1')

    >>> names = ["bird on land", "bird on water"]
    >>> result = metric.compute(predictions=[0, 0, 1, 1], references=[0, 0, 1, 0], groups=[0, 0, 1, 1],
    ...                         group_names=names, train_group_shares=[0.9, 0.1])
    >>> round(result["mean_reweighted"], 3), result["groups"]["bird on water"]["n"]
    (0.95, 2)
"""

_CITATION = """
@inproceedings{sagawa2020distributionally,
    title={Distributionally Robust Neural Networks},
    author={Sagawa, Shiori and Koh, Pang Wei and Hashimoto, Tatsunori B. and Liang, Percy},
    booktitle={International Conference on Learning Representations},
    year={2020}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class WorstGroupAccuracy(evaluate.Metric):
    """See above."""

    def _info(self) -> evaluate.MetricInfo:
        ids = {name: datasets.Value("int64") for name in ("predictions", "references", "groups")}
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(ids),
        )

    def _compute(
        self,
        predictions: list[int],
        references: list[int],
        groups: list[int],
        group_names: list[str] | None = None,
        train_group_shares: list[float] | None = None,
        confidence: float = 0.95,
    ) -> dict:
        hits = np.asarray(predictions, dtype=np.int64) == np.asarray(references, dtype=np.int64)
        ids = np.asarray(groups, dtype=np.int64)
        names = [str(k) for k in range(int(ids.max()) + 1)] if group_names is None else list(group_names)
        if ids.min() < 0 or ids.max() >= len(names):
            raise ValueError(f"group ids run from {ids.min()} to {ids.max()} but there are {len(names)} group names")
        if train_group_shares is not None and len(train_group_shares) != len(names):
            raise ValueError(f"`train_group_shares` has {len(train_group_shares)} shares for {len(names)} groups")
        rows = {name: hits[ids == k] for k, name in enumerate(names) if (ids == k).any()}
        per_group = {name: _proportion(part, confidence) for name, part in rows.items()}
        worst = min(per_group, key=lambda name: per_group[name]["accuracy"])
        mean = _proportion(hits, confidence)
        result = {
            "mean": mean["accuracy"],
            "mean_ci": (mean["ci_low"], mean["ci_high"]),
            "worst_group": per_group[worst]["accuracy"],
            "worst_group_ci": _worst_interval(list(per_group.values()), confidence),
            "worst_group_name": worst,
            "groups": per_group,
        }
        if train_group_shares is not None:
            shares = np.array([share for name, share in zip(names, train_group_shares, strict=True) if name in rows])
            accuracy = np.array([part["accuracy"] for part in per_group.values()])
            result["mean_reweighted"] = float((accuracy * shares).sum() / shares.sum())
        return result


def _proportion(hits: np.ndarray, confidence: float) -> dict:
    """Return the share of hits with the score interval of Wilson (1927): at least one row is needed."""
    n, share, z = len(hits), float(hits.mean()), float(special.ndtri(0.5 + confidence / 2))
    middle = share + z**2 / (2 * n)
    spread = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    low, high = (middle - spread) / (1 + z**2 / n), (middle + spread) / (1 + z**2 / n)
    return {
        "accuracy": share,
        "ci_low": 0.0 if share == 0 else float(low),
        "ci_high": 1.0 if share == 1 else float(high),
        "n": n,
    }


def _worst_interval(parts: list[dict], confidence: float) -> tuple[float, float]:
    """Return the interval of the lowest accuracy, whichever group has it: the upper limits hold in all at once."""
    low, high = [], []
    for part in parts:
        hits = round(part["accuracy"] * part["n"])
        failures, level = part["n"] - hits, 1 - (1 - confidence) / 2 / len(parts)
        low.append(part["ci_low"])
        high.append(1.0 if not failures else float(special.betaincinv(hits + 1.0, failures, level)))
    return min(low), min(high)
