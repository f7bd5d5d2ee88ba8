"""Add concept columns to a dataset: `hf-midrange annotate`, as a file for `accelerate launch`."""

import sys

from hf_midrange.commands.app import main


if __name__ == "__main__":
    main(["annotate", *sys.argv[1:]])
