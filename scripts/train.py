"""Fine-tune a classifier, score it by group, debias it if asked to: `accelerate launch scripts/train.py --help`."""

import sys

from launching import parsed, train


if __name__ == "__main__":
    train(*parsed(sys.argv[1:]))
