"""A `BandSketch` as bytes: safetensors around the sketches' own format."""

from __future__ import annotations

import json

import numpy as np
from datasketches import kll_doubles_sketch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hf_midrange.bands.sketch import KEPT, BandSketch


FORMAT = 1


def pack(sketch: BandSketch) -> bytes:
    """Return the sketch as bytes."""
    facts = {"format": FORMAT, "names": sketch.names, "labelled": sketch.labelled}
    parts = [part.serialize() for part in sketch.others + sketch.members]
    tensors: dict[str, np.ndarray] = {
        "facts": np.frombuffer(json.dumps(facts).encode(), dtype=np.uint8),
        "counts": np.array([sketch.rows, sketch.right], dtype=np.int64),
        "mean": sketch.mean,
        "squares": sketch.squares,
        "sizes": np.array([len(part) for part in parts], dtype=np.int64),
        "sketches": np.frombuffer(b"".join(parts), dtype=np.uint8),
    }
    return bytes(save(tensors))


def unpack(content: bytes) -> BandSketch:
    """Return the sketch that `pack` wrote."""
    try:
        tensors = load(content)
        facts = json.loads(tensors["facts"].tobytes())
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"these bytes are no BandSketch ({error}); `BandSketch.to_bytes` writes them") from error
    if facts.get("format") != FORMAT:
        raise ValueError(f"this sketch has format {facts.get('format')!r}; this version reads format {FORMAT}")
    sketch = BandSketch(facts["names"])
    sketch.labelled = facts["labelled"]
    sketch.rows, sketch.right = (int(count) for count in tensors["counts"])
    sketch.mean, sketch.squares = tensors["mean"], tensors["squares"]
    parts = _sketches(tensors["sketches"].tobytes(), tensors["sizes"])
    units = len(sketch.names)
    if len(parts) != 2 * units or sum(part.n for part in parts[::units]) != sketch.rows:
        raise ValueError("these bytes are no whole BandSketch: they hold other units or rows than they say")
    sketch.others, sketch.members = parts[:units], parts[units:]
    return sketch


def _sketches(content: bytes, sizes: np.ndarray) -> list[kll_doubles_sketch]:
    ends = np.cumsum(sizes)
    try:
        parts = [
            kll_doubles_sketch.deserialize(content[end - size : end]) for end, size in zip(ends, sizes, strict=True)
        ]
    except (ValueError, IndexError, RuntimeError) as error:
        raise ValueError(f"these bytes are no BandSketch ({error}); `BandSketch.to_bytes` writes them") from error
    if any(part.k != KEPT for part in parts):
        raise ValueError(f"this sketch keeps other than {KEPT} values a unit and cannot be merged here")
    return parts
