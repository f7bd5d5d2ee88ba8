"""Tied images for tests of several rooms."""

from pathlib import Path

import numpy as np
from datasets import ClassLabel
from support.publish_material import NAMES, images, vit_model

import hf_midrange as hm
from hf_midrange import columns


def tied_images(place: Path) -> None:
    """48 images whose label is the class that the model says, but for one in eight."""
    vit_model(place / "vit")
    ds = images(48, 1)
    logits = columns.matrix(hm.extract(ds, str(place / "vit")), "logits")
    lead = logits[:, 1] - logits[:, 0]
    label = (lead > np.median(lead)) ^ (np.arange(48) % 8 == 0)
    columns.with_columns(ds, {"label": (label.astype(int), ClassLabel(names=NAMES))}).save_to_disk(place / "data")
