"""Score predictions per group: `hf-midrange evaluate`, as a file for `accelerate launch`."""

import sys

from hf_midrange.cli import main


if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
