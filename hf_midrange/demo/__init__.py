"""The demonstration: a real pretrained network, a tie in its training data, the shortcut found, the head repaired."""

from __future__ import annotations

from pathlib import Path
from typing import Any


TASKS = ("dominoes", "sprites")


def run_demo(
    task: str = "dominoes", seeds: int = 3, output: Path = Path("outputs/demo"), quick: bool = False
) -> dict[str, Any]:
    """Run one task end to end, print its tables, write its files to `output`, and return its facts.

    Args:
        task: `"dominoes"`, real digits and a pretrained network, or `"sprites"`, the paper's synthetic experiment.
        seeds: how many times, each with data of its own.
        output: folder for facts (JSON), the picture (PNG), the curated dataset and the repaired model.
        quick: a reduced size, to see that everything works; its figures mean little.

    Raises:
        ValueError: if the task is unknown or `seeds` is not positive.
    """
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; choose one of {', '.join(TASKS)}")
    if seeds < 1:
        raise ValueError(f"`seeds` must be at least 1, got {seeds}")
    if task == "sprites":
        from hf_midrange.demo.sprites import run_sprites

        return run_sprites(seeds, Path(output), quick)
    from hf_midrange.demo.domino_trial import run_dominoes

    return run_dominoes(seeds, Path(output), quick)
