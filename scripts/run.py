"""Go all the way from a dataset and a model to the repaired model: `hf-midrange run`, for `accelerate launch`."""

import sys

from hf_midrange.commands.app import main


if __name__ == "__main__":
    main(["run", *sys.argv[1:]])
