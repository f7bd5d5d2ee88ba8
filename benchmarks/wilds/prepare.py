"""Write a published benchmark, from its authors' files or the Hub, as a dataset that every script reads.

Nothing is downloaded but by `load_dataset`, and only for a Hub id; images stay where they are until a row is read.

python benchmarks/wilds/prepare.py waterbirds data/waterbird_complete95_forest2water2 --output data/waterbirds
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from datasets import DatasetDict
from wilds_images import celeba, waterbirds
from wilds_texts import civilcomments, multinli

from hf_midrange.io.datasets import write_dataset


READERS: dict[str, Callable[[str], DatasetDict]] = {
    "waterbirds": waterbirds,
    "celeba": celeba,
    "multinli": multinli,
    "civilcomments-coarse": partial(civilcomments, groups="coarse"),
    "civilcomments-fine": partial(civilcomments, groups="fine"),
}
"""By name; CivilComments stands here twice, as figures by its two kinds of groups cannot be compared."""


def main() -> None:
    """Read and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", choices=list(READERS))
    parser.add_argument("source", help="the folder that the authors' archive unpacks to, or a Hub id")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    data = READERS[arguments.benchmark](arguments.source)
    write_dataset(data, arguments.output)
    rows = ", ".join(f"{name} {len(part)}" for name, part in data.items())
    print(f"wrote {arguments.output}: {rows}")


if __name__ == "__main__":
    main()
