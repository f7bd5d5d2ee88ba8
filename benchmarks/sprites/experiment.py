"""The published sprite experiment again: accuracy by tie level, similarity of features, and what the middle shows.

A network learns the shape of sprites whose horizontal position is tied to it to some level. Each cell, a tie level
and a seed, is written when it is done, so a command that was stopped goes on where it stopped, and more levels or
seeds add to what is there; tables are made of what is done. The default is five levels and two seeds, about an hour
on an idle core with `--bfloat16`, which halves the time on processors that have instructions for it; `--full` has all
eleven levels and five seeds.

    python benchmarks/sprites/experiment.py --bfloat16
"""

from __future__ import annotations

import argparse
from pathlib import Path

import datasets
import torch
from sprite_cells import QUICK, Cells, Size
from sprite_tables import written


LEVELS = (0.0, 0.3, 0.6, 0.9, 1.0)
ALL_LEVELS = tuple(k / 10 for k in range(11))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ties", type=float, nargs="+", help="levels, from 0 to 1")
    parser.add_argument("--seeds", type=int, nargs="+", help="0 and 1 if not given")
    parser.add_argument("--full", action="store_true", help="all eleven levels and five seeds")
    parser.add_argument("--quick", action="store_true", help="a reduced size, to see that everything works")
    parser.add_argument("--bfloat16", action="store_true", help="activations in low precision while training")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cells", type=Path, default=Path("outputs/sprites"), help="where finished cells are kept")
    parser.add_argument("--output", type=Path, default=Path("sprites"), help="of the JSON, Markdown and PNG files")
    arguments = parser.parse_args()
    ties = arguments.ties or (ALL_LEVELS if arguments.full else LEVELS)
    if not all(0 <= tie <= 1 for tie in ties):
        parser.error(f"a tie level lies between 0 and 1, got {ties}")
    seeds = arguments.seeds or range(5 if arguments.full else 2)
    datasets.disable_progress_bars()
    torch.set_num_threads(arguments.threads)
    cells = Cells(arguments.cells, (QUICK if arguments.quick else Size())._replace(low_precision=arguments.bfloat16))
    for seed in seeds:
        for tie in ties:
            if cells.facts(tie, seed) is None:
                facts = cells.run(tie, seed)
                print(f"tie {tie}, seed {seed}: {facts['accuracy']:.3f} after {facts['seconds']} s", flush=True)
                written(cells, sorted(ties), sorted(seeds), arguments.output)
    written(cells, sorted(ties), sorted(seeds), arguments.output)


if __name__ == "__main__":
    main()
