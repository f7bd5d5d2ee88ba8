"""One way to read an image and bring it to RGB, for classifiers and concept sources alike; it needs no torch."""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from io import BytesIO
from subprocess import SubprocessError
from typing import Any

import numpy as np
from datasets.utils.file_utils import is_local_path, xopen
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError


UNREADABLE = (
    OSError, UnidentifiedImageError, SyntaxError, ValueError, TypeError, RuntimeError, EOFError, MemoryError,
    ZeroDivisionError, struct.error, Image.DecompressionBombError, SubprocessError,
)  # fmt: skip
"""What Pillow, transforms and tokenisers raise on input they cannot read."""

FORMATS = (
    "AVIF", "BMP", "DDS", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "JXL", "MPO", "PCX", "PNG", "PPM", "QOI",
    "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip
"""Formats that are read, where Pillow or a plugin of it knows them: those of pictures, decoded in this process. EPS is
none of them: Pillow hands it to Ghostscript, which runs what is written in it."""

FETCH = "HF_MIDRANGE_FETCH"
"""Environment variable that lets rows make this machine ask the addresses that they name."""

LARGE = 2**26
"""Pixels above which an image is averaged down before it is brought to RGB, which takes four bytes a pixel."""

ELONGATED = 50
"""A classifier is shown an image at most so many times as long as wide."""


def decode(cell: Any) -> Image.Image:  # noqa: ANN401 - an undecoded cell: a mapping of bytes and path, or an image
    """Return the image of a cell as it is stored, upright; one of more than `LARGE` pixels averaged down.

    Raises:
        ValueError: if the cell is null, or names an address outside the Hub; `UNREADABLE` says what else.
    """
    if cell is None:
        raise ValueError("the image is null")
    image = cell if isinstance(cell, Image.Image) else _upright(_opened(cell.get("bytes"), cell.get("path")))
    image.load()  # what cannot be read fails here, and not in the transform
    times = 1
    while image.width * image.height > LARGE * times**2:
        times += 1
    return image if times == 1 else _averaged(image, times)


def _opened(content: bytes | None, path: str | None) -> Image.Image:
    Image.init()
    formats = [name for name in FORMATS if name in Image.OPEN]
    if content is None:
        if path is None:
            raise ValueError("the image has neither bytes nor a path")
        if is_local_path(path):
            return Image.open(path, formats=formats)
        if not path.split("::")[-1].startswith("hf://") and not os.environ.get(FETCH):  # of a stream from the Hub
            raise ValueError(f"it is an address, which is not fetched; download it first, or set {FETCH}=1")
        with xopen(path, "rb") as file:
            content = file.read()
    return Image.open(BytesIO(content), formats=formats)


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turned = image.getexif().get(ExifTags.Base.Orientation) is not None
    return ImageOps.exif_transpose(image) if turned else image


def _averaged(image: Image.Image, times: int) -> Image.Image:
    if image.mode in ("1", "P", "PA"):  # colours by number have no mean
        image = image.convert("L" if image.mode == "1" else "RGB")
    return image.reduce(times) if not image.mode.startswith("I;") else rgb(image).reduce(times)


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
    path = cell.get("path") if isinstance(cell, Mapping) else None
    return f"{f'file {path!r}: ' if path else ''}{type(error).__name__}: {error}"
