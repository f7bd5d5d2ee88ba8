"""Retrain the last linear layer on curated rows: `hf-midrange retrain`, as a file for `accelerate launch`."""

import sys

from hf_midrange.commands.app import main


if __name__ == "__main__":
    main(["retrain", *sys.argv[1:]])
