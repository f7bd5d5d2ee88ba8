"""Score predictions per group: `hf-midrange evaluate`, as a file.

Not called `evaluate.py`: Python puts this folder first on its path, and the name would hide the library `evaluate`.
"""

import os
import sys

from hf_midrange.commands.app import main


# Of several processes one does the work: it uses no model, and they would write the same files.
if __name__ == "__main__" and os.environ.get("RANK", "0") == "0":
    main(["evaluate", *sys.argv[1:]])
