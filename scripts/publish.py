"""Put a curated data set or a repaired model on the Hub: `hf-midrange publish`, as a file for `accelerate launch`."""

import sys

from hf_midrange.cli import main


if __name__ == "__main__":
    main(["publish", *sys.argv[1:]])
