"""Fit bands on a dataset, or apply fitted ones: `hf-midrange bands`, as a file for `accelerate launch`."""

import sys

from hf_midrange.cli import main


if __name__ == "__main__":
    main(["bands", *sys.argv[1:]])
