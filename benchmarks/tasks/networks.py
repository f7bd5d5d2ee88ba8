"""Runs whose network was trained end to end on the tied rows: a small one, on dominoes of digits."""

from __future__ import annotations

import numpy as np
import torch
from datasets import ClassLabel, Dataset, Features, Image
from torch import nn

import hf_midrange as hm
from hf_midrange import LinearHead, columns
from hf_midrange.demo.dominoes import digits, stack
from tasks.pictures import SHARES, by_class
from tasks.pool import SIZES, Run


TRAINING_ROWS, EPOCHS = 2000, 6


def trained(pair: tuple[int, int], contrary: float, seed: int) -> Run:
    """Return a run of digits below, tied to 0 or 1 above, whose head and embedding are a trained network's own.

    Args:
        pair: the digits below, the classes.
        contrary: share of training and curation rows against the tie.
        seed: of the rows and of the training.
    """
    rng, pictures = np.random.default_rng(seed), by_class(*digits())
    train, labels, _ = _rows(pictures, pair, "train", TRAINING_ROWS, contrary, rng)
    body, head = _trained(train, labels, seed)
    curation, given, tied = _rows(pictures, pair, "curation", SIZES["curation"], contrary, rng)
    test, new, new_tied = _rows(pictures, pair, "test", SIZES["test"], 0.5, rng)
    values = _embedded(body, curation)
    names = ClassLabel(names=[str(k) for k in pair])
    groups = ClassLabel(names=[f"{k}, {above} above" for k in pair for above in (0, 1)])
    images = [stack(*(255 * row[0]).astype(np.uint8).reshape(2, 28, 28)) for row in curation.numpy()]
    base = Dataset.from_dict(
        {columns.IMAGE: images, columns.LABEL: given},
        features=Features({columns.IMAGE: Image(), columns.LABEL: names}),
    )
    more = {
        columns.GROUP: (2 * given + tied, groups),
        columns.EMBEDDING: (values, columns.vector(values.shape[1])),
        columns.LOGITS: (head(values).numpy(), columns.vector(2)),
    }
    ds = hm.annotate(columns.with_columns(base, more), [hm.Thumbnail()])
    return Run(head, ds.remove_columns(columns.IMAGE), _embedded(body, test), new, 2 * new + (new_tied != new))


def _rows(pictures, pair, split, count, contrary, rng) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    """Return pictures `(n, 1, 56, 28)`, classes, and what stands above."""
    labels = np.arange(count) % 2
    tied = np.where(rng.random(count) < contrary, 1 - labels, labels)

    def one(digit: int) -> np.ndarray:
        first, last = (int(share * len(pictures[digit])) for share in SHARES[split])
        return pictures[digit][rng.integers(first, last)]

    values = [np.concatenate([one(above), one(pair[label])]) for label, above in zip(labels, tied, strict=True)]
    return torch.as_tensor(np.stack(values)[:, None] / 255).float(), labels, tied


def _trained(rows: torch.Tensor, labels: np.ndarray, seed: int) -> tuple[nn.Module, LinearHead]:
    """Return a network without its last layer, and that layer, after every training row is right."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Conv2d(1, 12, 5, stride=2), nn.ReLU(), nn.Conv2d(12, 24, 5, stride=2), nn.ReLU(), nn.Flatten(),
            nn.Linear(24 * 11 * 4, 64), nn.ReLU(),
        )  # fmt: skip
        last, rng, given = nn.Linear(64, 2), np.random.default_rng(seed), torch.as_tensor(labels)
        optimiser = torch.optim.Adam([*body.parameters(), *last.parameters()], 1e-3)
        for _ in range(EPOCHS):
            for batch in np.array_split(rng.permutation(len(labels)), 32):
                loss = nn.functional.cross_entropy(last(body(rows[batch])), given[batch])
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
    return body, LinearHead.from_weights(last.weight, last.bias)


@torch.no_grad()
def _embedded(body: nn.Module, rows: torch.Tensor) -> np.ndarray:
    return body(rows).numpy()
