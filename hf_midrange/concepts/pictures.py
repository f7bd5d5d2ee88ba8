"""From the images of a batch to arrays of a common small size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from PIL.Image import Image


def rgb(image: Image) -> Image:
    """Return `image` in RGB with 8 bits a channel, as `extract` shows it to a classifier.

    Alpha is dropped; 16-bit and 32-bit grey levels are scaled from 0..65535, float ones from 0..1 where none is above.
    """
    from PIL import Image as pillow

    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):  # Pillow's own conversion clips 16-bit greys to white
        grey = np.asarray(image, dtype=np.float64)
        top = float(grey.max(initial=0))
        scale = (255 if top <= 1 else 1) if image.mode == "F" else (1 / 257 if top > 255 else 1)
        return pillow.fromarray((grey * scale).clip(0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        return image.convert("RGBA").convert("RGB")
    return image.convert("RGB")


def luma(colours: np.ndarray) -> np.ndarray:
    """Return the brightness of RGB values (ITU-R 601-2 luma), of the shape of `colours` without its last axis.

    Written out, because a matrix product may round a row differently when other rows stand beside it.
    """
    red, green, blue = colours[..., 0], colours[..., 1], colours[..., 2]
    return np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue


def shrunk(images: Sequence[Image], size: int) -> np.ndarray:
    """Return the images averaged over `size` x `size` boxes: float32 in 0..1, of shape `(n, size, size, 3)`."""
    from PIL.Image import Resampling

    small = [np.asarray(rgb(image).resize((size, size), Resampling.BOX)) for image in images]
    return np.stack(small).astype(np.float32) / 255 if small else np.zeros((0, size, size, 3), dtype=np.float32)
