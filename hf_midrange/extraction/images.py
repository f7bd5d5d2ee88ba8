"""One way to read an image and bring it to RGB, for classifiers and concept sources alike; it needs no torch."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from datasets import Image as ImageFeature
from PIL import Image, UnidentifiedImageError


UNREADABLE = (
    OSError, UnidentifiedImageError, SyntaxError, ValueError, TypeError, RuntimeError, EOFError, MemoryError,
    ZeroDivisionError, struct.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow, transforms and tokenisers raise on input they cannot read."""

ELONGATED = 50
"""A classifier is shown an image at most so many times as long as wide."""


def decode(cell: Any) -> Image.Image:  # noqa: ANN401 - an undecoded cell: a mapping of bytes and path, or an image
    """Return the image of a cell as it is stored.

    Raises:
        ValueError: if the cell is null; `UNREADABLE` says what else.
    """
    if cell is None:
        raise ValueError("the image is null")
    if isinstance(cell, Image.Image):
        cell.load()  # a file that was only opened so far fails here, and not in the transform
        return cell
    return ImageFeature().decode_example(cell)


def rgb(image: Image.Image) -> Image.Image:
    """Return an image of any mode with 8 bits a channel in RGB: first frame of an animation, alpha dropped.

    16-bit and 32-bit grey levels are scaled from 0..65535, float ones from 0..1 where none is above.
    """
    if image.mode == "RGB":
        return image
    if image.mode.startswith(("I", "F")):  # Pillow's own conversion clips 16-bit greys to white
        grey = np.asarray(image, dtype=np.float64)
        top = float(grey.max(initial=0))
        scale = (255 if top <= 1 else 1) if image.mode == "F" else (1 / 257 if top > 255 else 1)
        image = Image.fromarray((grey * scale).clip(0, 255).round().astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def less_elongated(image: Image.Image) -> Image.Image:
    """Return an image squeezed to at most `ELONGATED` times as long as wide.

    Transforms bring the short side to a fixed size: one line of 20,000 pixels would become gigabytes.
    """
    short, long = sorted(image.size)
    if long <= ELONGATED * max(short, 1):
        return image
    width, height = (min(side, ELONGATED * short) for side in image.size)
    return image.resize((width, height), Image.Resampling.BOX)


def fault(cell: Any, error: BaseException) -> str:  # noqa: ANN401 - an undecoded cell
    """Say what is wrong with a cell, by its file where it has one."""
    path = cell.get("path") if isinstance(cell, dict) else None
    return f"{f'file {path!r}: ' if path else ''}{type(error).__name__}: {error}"
