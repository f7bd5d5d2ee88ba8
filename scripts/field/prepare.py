"""Write a benchmark of the field, from its original files or the Hub, as a dataset that every script reads.

python scripts/field/prepare.py waterbirds data/waterbird_complete95_forest2water2 --output data/waterbirds
"""

import argparse
from pathlib import Path

from hf_midrange.field import READERS
from hf_midrange.storage.datafiles import write_dataset


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
