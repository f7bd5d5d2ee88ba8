"""Debias a trained classifier, on rows that it was not trained on: `accelerate launch scripts/debias.py --help`."""

import sys

from launching import debias, parsed


if __name__ == "__main__":
    debias(*parsed(sys.argv[1:]))
