"""The sprite demonstration: which positions fill the top, the middle and the bottom of each neuron's range."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets

from hf_midrange import columns
from hf_midrange.commands.tables import print_table
from hf_midrange.demo.sprite_images import REGIONS, SHAPES, TIED_REGION, sprite_dataset
from hf_midrange.demo.sprite_network import pixel_tensor, train_network
from hf_midrange.scoring import wilson_interval


TIE = 0.9
BANDS = ("low", "mid", "high")
SIDES = ("members", "strangers")
SIZES = {"train": 5000, "held out": 3000, "passes": 50_000}
QUICK_SIZES = {"train": 1000, "held out": 600, "passes": 3000}
MOST_PASSES = 200_000


def run_sprites(seeds: int, output: Path, quick: bool = False) -> dict[str, Any]:
    """Train on tied sprites, read the middle of each neuron's range on held-out ones; print, save, return the facts.

    Args:
        seeds: how many times, each with data and a network of its own; all seeds together see at most 200,000 images.
        output: folder for `facts.json` and `sprites.png`.
        quick: a reduced size, to see that everything works; its figures mean little.
    """
    from hf_midrange.demo.sprite_figure import draw_positions

    sizes = dict(QUICK_SIZES if quick else SIZES)
    sizes["passes"] = min(sizes["passes"], MOST_PASSES // seeds)
    with _one_thread():
        trials = [run_trial(seed, sizes) for seed in range(seeds)]
    rows = concatenate_datasets([held_out for held_out, _ in trials])
    facts = {
        "task": "sprites, a re-rendering of dSprites (Matthey et al. 2017)",
        "tie": TIE,
        "sizes": sizes,
        "seeds": seeds,
        "mean_logits": mean_logits(rows),
        "positions": positions_by_band(rows),
        "findings": [_briefly(findings) for _, findings in trials],
    }
    output.mkdir(parents=True, exist_ok=True)
    (output / "facts.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    draw_positions(rows, output / "sprites.png")
    _print(facts)
    return facts


def run_trial(seed: int, sizes: dict[str, int]) -> tuple[Dataset, Dataset]:
    """Return the held-out rows of one seed with logits, bands and concepts, and the findings on them."""
    import hf_midrange as hm

    drawn = sprite_dataset(sizes["train"] + sizes["held out"], TIE, seed)  # one draw, so that no sprite is in both
    train, held_out = (drawn.select(range(sizes["train"])), drawn.select(range(sizes["train"], len(drawn))))
    network = train_network(train, sizes["passes"], seed)
    held_out = hm.extract(held_out, network, pixel_tensor, batch_size=100)
    held_out = hm.LogitBands().fit(held_out).transform(held_out)
    held_out = hm.annotate(held_out, [hm.Annotations(["region", "pos_y", "scale", "orientation"])])
    return held_out, hm.associate(held_out, seed=seed)


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


def _briefly(findings: Dataset) -> list[dict[str, Any]]:
    kept = ["unit_name", "band", "concept", "odds_ratio", "ci_low", "ci_high", "q_value", "q_confirm", "confirmed"]
    return findings.filter(lambda is_one: is_one, input_columns="confounder").select_columns(kept).to_list()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep PyTorch on one thread: layers this small lose more to waiting threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _print(facts: dict[str, Any]) -> None:
    names = list(next(iter(facts["mean_logits"].values())))
    cells = [[n, *("-" if v is None else f"{v:.1f}" for v in row.values())] for n, row in facts["mean_logits"].items()]
    print_table("Mean logit on held-out sprites; the two middle columns fill the middle", ["neuron", *names], cells)
    by_cell = {(p["neuron"], p["side"], p["band"]): p for p in facts["positions"]}
    table = [
        [shape, side, by_cell[shape, side, "low"]["tied_region"], *(_cell(by_cell[shape, side, b]) for b in BANDS)]
        for shape in SHAPES
        for side in SIDES
    ]
    title = "Share of rows standing in the tied region, by band [95 % Wilson interval], rows"
    print_table(title, ["neuron", "side", "tied region", *BANDS], table)


def _cell(position: dict[str, Any]) -> str:
    if not position["rows"]:
        return "no rows"
    return f"{position['share']:.2f} [{position['ci_low']:.2f}, {position['ci_high']:.2f}] n={position['rows']}"
