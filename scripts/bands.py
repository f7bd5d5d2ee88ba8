"""Fit bands on a dataset, or apply fitted ones: `hf-midrange bands`, as a file for `accelerate launch`."""

import os
import sys

from hf_midrange.commands.app import main


# Of several processes one does the work: it uses no model, and they would write the same files.
if __name__ == "__main__" and os.environ.get("RANK", "0") == "0":
    main(["bands", *sys.argv[1:]])
