"""Fine-tune a network by the recipe of a published benchmark, images cropped and flipped at random.

accelerate launch benchmarks/wilds/train.py --config benchmarks/wilds/waterbirds.yaml
"""

import sys
from pathlib import Path

from wilds_crops import augmented, refuse_lost_momentum


sys.path.append(str(Path(__file__).parents[2] / "scripts"))
from launching import parsed, train  # noqa: E402


if __name__ == "__main__":
    script, args = parsed(sys.argv[1:])
    refuse_lost_momentum(args)
    train(script, args, prepare=augmented)
