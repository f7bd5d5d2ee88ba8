"""From the images of a batch to arrays of a common small size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np


if TYPE_CHECKING:
    from PIL.Image import Image


def rgb(image: Image) -> Image:
    """Return `image` in RGB with 8 bits a channel; 16-bit, 32-bit and float grey images are scaled by their own range.

    Transparent pixels are shown on white, as a page would show them.
    """
    from PIL import Image as pillow

    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F", "I;16", "I;16B", "I;16L"):
        values = np.asarray(image, dtype=np.float32)
        low, high = float(values.min()), float(values.max())
        scaled = (values - low) * (255 / (high - low) if high > low else 0.0)
        return pillow.fromarray(scaled.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layers = image.convert("RGBA")
        return pillow.alpha_composite(pillow.new("RGBA", layers.size, "white"), layers).convert("RGB")
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
