"""Add embedding, logits and prediction to a dataset: `hf-midrange extract`, as a file for `accelerate launch`."""

import sys

from hf_midrange.commands.app import main


if __name__ == "__main__":
    main(["extract", *sys.argv[1:]])
