"""Put a curated data set or a repaired model on the Hub: `hf-midrange publish`, as a file for `accelerate launch`."""

import os
import sys

from hf_midrange.commands.app import main


# Of several processes one does the work: it uses no model, and they would write the same files.
if __name__ == "__main__" and os.environ.get("RANK", "0") == "0":
    main(["publish", *sys.argv[1:]])
