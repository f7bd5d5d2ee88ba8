"""The network of the published sprite experiment, and its training."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from sprite_images import SHAPES, render
from torch import nn


EPOCHS, BATCH, RATE, HORIZON, DROPOUT = 80, 1000, 1e-3, 100, 0.2
"""Adam's learning rate falls as a cosine that would end after `HORIZON` epochs; training stops before."""


class PublishedNetwork(nn.Module):
    """Two convolutions and four linear layers, each with dropout and normalisation but the last, which is `head`.

    Source: the notebook of arXiv 2411.10019; there the logits are dropped out too, which is left out here.
    """

    def __init__(self, dropout: float = DROPOUT) -> None:
        super().__init__()

        def after(width: int, image: bool = False) -> list[nn.Module]:
            norm = nn.BatchNorm2d if image else nn.BatchNorm1d
            smaller = [nn.AvgPool2d(2)] if image else []
            return [nn.ReLU(inplace=True), *smaller, nn.Dropout(dropout), norm(width, affine=False)]

        self.body = nn.Sequential(
            nn.Conv2d(1, 6, 5), *after(6, image=True),
            nn.Conv2d(6, 16, 5), *after(16, image=True),
            nn.Flatten(), nn.Linear(16 * 13 * 13, 120), *after(120),
            nn.Linear(120, 84), *after(84),
            nn.Linear(84, 84), *after(84),
        )  # fmt: skip
        self.head = nn.Linear(84, len(SHAPES))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return logits of shape `(n, 3)` for images of shape `(n, 1, 64, 64)` with values from 0 to 1."""
        return self.head(self.body(pixel_values))


def pixel_tensor(image: Image.Image) -> torch.Tensor:
    """Return a sprite as a tensor of shape `(1, 64, 64)`: 1 inside, 0 outside."""
    return torch.from_numpy(np.array(image.convert("L"), dtype=np.float32) / 255)[None]


def trained(
    factors: np.ndarray, seed: int, epochs: int = EPOCHS, batch: int = BATCH, low_precision: bool = False
) -> PublishedNetwork:
    """Return a network fitted to the sprites of factors `(5, n)`, in evaluation mode.

    Args:
        factors: of the sprites to train on.
        seed: of the weights, the order and what is dropped.
        epochs: how often every sprite is shown.
        batch: sprites a step, at most.
        low_precision: compute activations in bfloat16; weights and their updates stay in float32.
    """
    pixels, targets = torch.from_numpy(render(*factors)), torch.from_numpy(factors[0])
    rng = np.random.default_rng([seed, 2])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # Channels last takes two thirds of the time on a CPU, for the same sums.
        network = PublishedNetwork().to(memory_format=torch.channels_last)
        optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, HORIZON)
        for _ in range(epochs):
            order = rng.permutation(len(targets))
            for rows in np.array_split(order, -(-len(order) // batch)):
                optimiser.zero_grad()
                images = pixels[rows].float().div_(255)[:, None]
                with torch.autocast("cpu", torch.bfloat16, enabled=low_precision):
                    logits = network(images.contiguous(memory_format=torch.channels_last))
                nn.functional.cross_entropy(logits.float(), targets[rows]).backward()
                optimiser.step()
            schedule.step()
    return network.eval()
