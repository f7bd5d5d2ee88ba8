"""Write what was found and done as one page: `hf-midrange report`, as a file for `accelerate launch`."""

import os
import sys

from hf_midrange.commands.app import main


# Of several processes one does the work: it uses no model, and they would write the same files.
if __name__ == "__main__" and os.environ.get("RANK", "0") == "0":
    main(["report", *sys.argv[1:]])
