"""One cell of the sprite experiment, a tie level and a seed: what is measured, and where it is kept."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from safetensors.numpy import load_file, save_file
from sprite_draws import drawn, is_tied, rows_of, tied_set
from sprite_images import REGIONS, SHAPES, TIED_REGION
from sprite_training import pixel_tensor, trained

import hf_midrange as hm
from hf_midrange import columns
from hf_midrange.io.files import write_atomically
from hf_midrange.scoring import wilson_interval


class Size(NamedTuple):
    """How much is drawn and trained."""

    train: int = 19_000
    test: int = 1000
    held_out: int = 8000
    epochs: int = 80
    low_precision: bool = False


BANDS, SIDES = ("low", "mid", "high"), ("members", "strangers")
QUICK = Size(train=2000, test=200, held_out=1500, epochs=3)


class Cells:
    """The folder in which finished cells are kept; a cell of another size is not taken for one of this."""

    def __init__(self, folder: Path, size: Size) -> None:
        self.folder, self.size = folder, size
        folder.mkdir(parents=True, exist_ok=True)

    def facts(self, tie: float, seed: int) -> dict[str, Any] | None:
        """Return what was measured in a cell, or None if it is not done at this size."""
        path = self._path(tie, seed)
        if not path.is_file():
            return None
        facts = json.loads(path.read_text(encoding="utf-8"))
        return facts if facts["size"] == self.size._asdict() else None

    def features(self, tie: float, seed: int) -> dict[str, np.ndarray]:
        """Return `embedding`, `label` and `pos_x` of a finished cell's test sprites."""
        return load_file(self._path(tie, seed).with_suffix(".safetensors"))

    def run(self, tie: float, seed: int) -> dict[str, Any]:
        """Do a cell and keep it: its facts come last, so a cell that has them is whole."""
        facts, features = measured(tie, seed, self.size)
        path = self._path(tie, seed)
        save_file(features, path.with_suffix(".safetensors"))
        write_atomically(path, json.dumps(facts, indent=1) + "\n")
        return facts

    def _path(self, tie: float, seed: int) -> Path:
        return self.folder / f"tie{round(100 * tie):03d}-seed{seed}.json"


def measured(tie: float, seed: int, size: Size) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Train at one tie level, and return what the test and the held-out sprites show."""
    started = time.perf_counter()
    draw = drawn(seed, size.train, size.test, size.held_out)
    factors = tied_set(draw.train, tie, seed)
    network = trained(factors, seed, size.epochs, low_precision=size.low_precision)
    test = hm.extract(rows_of(draw.test), network, pixel_tensor, batch_size=250)
    # Once each, and tied as in training: what a user has at hand.
    held_factors = np.unique(tied_set(draw.held_out, tie, seed), axis=1)
    held_out = hm.extract(rows_of(held_factors), network, pixel_tensor, batch_size=250)
    held_out = hm.LogitBands().fit(held_out).transform(held_out)
    held_out = hm.annotate(held_out, [hm.Annotations(["region", "pos_y", "scale", "orientation"])])
    facts = {
        "tie": tie,
        "seed": seed,
        "size": size._asdict(),
        "commit": commit(),
        "trained_on": factors.shape[1],
        "tied_share": float(is_tied(factors).mean()),
        **accuracies(test, is_tied(draw.test)),
        "similarity": likeness(test),
        "mean_logits": mean_logits(held_out),
        "positions": positions_by_band(held_out),
        "findings": found(held_out, seed),
        "seconds": round(time.perf_counter() - started),
    }
    features = {
        "embedding": columns.matrix(test, columns.EMBEDDING).astype(np.float32),
        "label": columns.labels(test),
        "pos_x": columns.numbers(test, "pos_x").astype(np.int64),
    }
    return facts, features


def accuracies(test: Dataset, tied: np.ndarray) -> dict[str, float]:
    """Return accuracy on all test sprites, on the tied and the other ones, and in the worst shape x region."""
    right = columns.labels(test, columns.PREDICTION) == columns.labels(test)
    groups = columns.labels(test, columns.GROUP)
    # The two positions between the regions make groups of some twenty sprites, whose accuracy is mostly chance.
    inside = columns.labels(test, "region") < len(REGIONS) - 1
    return {
        "accuracy": float(right.mean()),
        "accuracy_tied": float(right[tied].mean()),
        "accuracy_other": float(right[~tied].mean()),
        "worst_group": min(float(right[groups == group].mean()) for group in np.unique(groups[inside])),
    }


def likeness(test: Dataset) -> dict[str, float]:
    """Return the mean cosine of two features, by whether their sprites share shape and region."""
    table = cosines(columns.matrix(test, columns.EMBEDDING))
    shape, region = columns.labels(test), columns.labels(test, "region")
    same_shape, same_region = shape[:, None] == shape, region[:, None] == region
    pairs = ~np.eye(len(test), dtype=bool)
    kinds = {
        "same shape, same region": same_shape & same_region,
        "same shape, other region": same_shape & ~same_region,
        "other shape, same region": ~same_shape & same_region,
        "other shape, other region": ~same_shape & ~same_region,
    }
    return {name: float(table[pairs & kind].mean()) for name, kind in kinds.items()}


def cosines(embedding: np.ndarray) -> np.ndarray:
    """Return the cosine between every two rows less the mean row, of shape `(n, n)`; 0 for a row that is the mean."""
    centred = embedding.astype(np.float64) - embedding.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = np.divide(centred, length, out=np.zeros_like(centred), where=length > 0)
    return unit @ unit.T


def mean_logits(rows: Dataset) -> dict[str, dict[str, float | None]]:
    """Return each neuron's mean logit over members and strangers, in the tied region and elsewhere.

    A cell without rows is None.
    """
    logits = columns.matrix(rows, columns.LOGITS)
    member, tied = _members(rows), _tied(rows)
    cells = {
        "own class, tied position": member & tied,
        "own class, other position": member & ~tied,
        "other class, tied position": ~member & tied,
        "other class, elsewhere": ~member & ~tied,
    }
    return {
        shape: {name: float(logits[c[:, k], k].mean()) if c[:, k].any() else None for name, c in cells.items()}
        for k, shape in enumerate(SHAPES)
    }


def positions_by_band(rows: Dataset) -> list[dict[str, Any]]:
    """Return, per neuron, side and band, how many rows stand in each region, and the tied region's share.

    `share` has a 95 % Wilson interval, `ci_low` to `ci_high`; it is None where the cell has no row.
    """
    band, region = columns.matrix(rows, columns.BAND), columns.labels(rows, "region")
    member = _members(rows)
    found = []
    for k, shape in enumerate(SHAPES):
        for side in SIDES:
            for b, name in enumerate(BANDS):
                cell = (band[:, k] == b) & (member[:, k] == (side == "members"))
                counts = np.bincount(region[cell], minlength=len(REGIONS))
                found.append({"neuron": shape, "side": side, "band": name, **_share(counts, TIED_REGION[k])})
    return found


def _share(counts: np.ndarray, tied: int) -> dict[str, Any]:
    total, inside = int(counts.sum()), int(counts[tied])
    low, high = wilson_interval(inside, total)
    return {
        "rows": total,
        "tied_region": REGIONS[tied],
        "share": inside / total if total else None,
        "ci_low": float(low),
        "ci_high": float(high),
        "regions": dict(zip(REGIONS, counts.tolist(), strict=True)),
    }


def _members(rows: Dataset) -> np.ndarray:
    return columns.labels(rows)[:, None] == np.arange(len(SHAPES))


def _tied(rows: Dataset) -> np.ndarray:
    return columns.labels(rows, "region")[:, None] == np.array(TIED_REGION)


def found(held_out: Dataset, seed: int) -> list[dict[str, Any]]:
    """Return the confirmed confounders of every neuron; an odds ratio or bound without limit is None."""
    kept = ["unit_name", "band", "concept", "odds_ratio", "ci_low", "ci_high", "q_value", "q_confirm"]
    rows = [row for row in hm.associate(held_out, seed=seed) if row["confounder"]]
    return [{name: None if row[name] in (np.inf, -np.inf) else row[name] for name in kept} for row in rows]


def tied_regions_found(facts: dict[str, Any]) -> int:
    """Return how many of the three neurons have the region of their own shape among their confounders."""
    pairs = {(row["unit_name"], row["concept"]) for row in facts["findings"]}
    return sum((shape, f"region={REGIONS[k]}") in pairs for k, shape in enumerate(SHAPES))


def commit() -> str:
    """Return the commit of the code at hand, marked if files were changed since."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=12"]
    shown = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return shown.stdout.strip() or "unknown"
