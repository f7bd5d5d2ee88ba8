"""Repair a network trained on a published benchmark, and write its scores beside the published ones.

python benchmarks/wilds/compare.py waterbirds --dataset data/waterbirds --model outputs/waterbirds --output outputs
"""

import argparse
import json
from pathlib import Path

from wilds_published import FIGURES
from wilds_repair import compared, markdown

from hf_midrange.io.datasets import read_dataset


def main() -> None:
    """Extract, curate on the validation split, repair, score on the test split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=list(FIGURES))
    parser.add_argument("--dataset", required=True, help="what prepare.py wrote")
    parser.add_argument("--model", type=Path, required=True, help="the folder that train.py wrote")
    parser.add_argument("--output", type=Path, required=True, help="of the two files, .json and .md, and of shards")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    facts = compared(
        read_dataset(arguments.dataset),
        arguments.model,
        batch_size=arguments.batch_size,
        seed=arguments.seed,
        output_dir=arguments.output,
    )
    arguments.output.mkdir(parents=True, exist_ok=True)
    table = markdown(facts, arguments.benchmark)
    (arguments.output / "scores.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (arguments.output / "scores.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
