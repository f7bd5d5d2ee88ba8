"""Score predictions per group: `hf-midrange evaluate`, as a file.

Not called `evaluate.py`: Python puts this folder first on its path, and the name would hide the library `evaluate`.
"""

import sys

from hf_midrange.cli import main


if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
