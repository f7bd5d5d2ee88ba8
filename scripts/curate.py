"""Choose the rows to retrain the head on: `hf-midrange curate`, as a file for `accelerate launch`."""

import sys

from hf_midrange.cli import main


if __name__ == "__main__":
    main(["curate", *sys.argv[1:]])
