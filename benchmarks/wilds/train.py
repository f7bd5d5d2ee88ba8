"""Fine-tune a network by the recipe of a published benchmark, images cropped and flipped at random.

accelerate launch benchmarks/wilds/train.py --config benchmarks/wilds/waterbirds.yaml
"""

import sys

from wilds_crops import augmented

from hf_midrange.commands.training import parsed, train


if __name__ == "__main__":
    train(*parsed(sys.argv[1:]), prepare=augmented)
