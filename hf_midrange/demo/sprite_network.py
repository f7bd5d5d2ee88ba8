"""A small convolutional network for sprites, and its training."""

from __future__ import annotations

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from torch import nn

from hf_midrange import columns
from hf_midrange.demo.sprite_images import SHAPES


class SpriteNetwork(nn.Module):
    """Two convolutions and three linear layers; the last one, `head`, gives one logit a shape.

    The layout is that of the paper's published sprite experiment (arXiv 2411.10019) with one linear layer fewer and
    no dropout: a recipe of a minute, not of an hour.
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 5, stride=2), nn.ReLU(), nn.BatchNorm2d(6, affine=False),
            nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2), nn.BatchNorm2d(16, affine=False),
            nn.Flatten(), nn.Linear(16 * 13 * 13, 120), nn.ReLU(), nn.BatchNorm1d(120, affine=False),
            nn.Linear(120, 84), nn.ReLU(), nn.BatchNorm1d(84, affine=False),
        )  # fmt: skip
        self.head = nn.Linear(84, len(SHAPES))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return logits of shape `(n, 3)` for images of shape `(n, 1, 64, 64)` with values from 0 to 1."""
        return self.head(self.body(pixel_values))


def pixel_tensor(image: Image.Image) -> torch.Tensor:
    """Return a sprite as a tensor of shape `(1, 64, 64)`: 1 inside, 0 outside."""
    return torch.from_numpy(np.array(image.convert("L"), dtype=np.float32) / 255)[None]


def train_network(train: Dataset, passes: int, seed: int, batch_size: int = 100) -> SpriteNetwork:
    """Return a network fitted to `train` with Adam and a falling learning rate.

    Args:
        train: a dataset with `image` and `label`.
        passes: how many images are shown in all, each as often as the others.
        seed: of the weights and the order.
        batch_size: images a step.
    """
    images = torch.stack([pixel_tensor(image) for image in train[columns.IMAGE]])
    targets = torch.from_numpy(columns.labels(train))
    rng = np.random.default_rng(seed)
    epochs = -(-passes // len(train))
    order = np.concatenate([rng.permutation(len(train)) for _ in range(epochs)])[:passes]
    steps = np.array_split(order, max(1, passes // batch_size))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SpriteNetwork()
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, len(steps))
    for rows in steps:
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(images[rows]), targets[rows]).backward()
        optimiser.step()
        schedule.step()
    return network.eval()
