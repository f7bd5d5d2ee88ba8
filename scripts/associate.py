"""Find which concepts fill which band of which logit: `hf-midrange associate`, as a file for `accelerate launch`."""

import sys

from hf_midrange.commands.app import main


if __name__ == "__main__":
    main(["associate", *sys.argv[1:]])
