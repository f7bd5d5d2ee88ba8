"""A `BandSketch` as bytes: safetensors around the sketches' own format."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from datasketches import kll_doubles_sketch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from hf_midrange.bands.sketch import KEPT, BandSketch
from hf_midrange.io.files import intact


FORMAT = 2


def pack(sketch: BandSketch) -> bytes:
    """Return the sketch as bytes."""
    parts = [part.serialize() for part in sketch.others + sketch.members]
    tensors: dict[str, np.ndarray] = {
        "counts": np.array([sketch.rows, sketch.right], dtype=np.int64),
        "mean": sketch.mean,
        "squares": sketch.squares,
        "sizes": np.array([len(part) for part in parts], dtype=np.int64),
        "sketches": np.frombuffer(b"".join(parts), dtype=np.uint8),
    }
    facts = {"format": FORMAT, "names": list(sketch.names), "labelled": sketch.labelled}
    text = json.dumps({**facts, "sha256": _checksum(facts, tensors)})
    return bytes(save({**tensors, "facts": np.frombuffer(text.encode(), dtype=np.uint8)}))


def unpack(content: bytes) -> BandSketch:
    """Return the sketch that `pack` wrote."""
    what, remedy = "BandSketch", "`BandSketch.to_bytes` writes them"
    with intact("this content", what, remedy):
        try:
            tensors = load(content)
        except SafetensorError as error:
            raise ValueError(error) from error
        facts = json.loads(tensors.pop("facts").tobytes())
        if facts.get("format") != FORMAT:
            raise ValueError(f"it has format {facts.get('format')!r}; this version reads format {FORMAT}")
        if facts.pop("sha256") != _checksum(facts, tensors):
            raise ValueError("it was changed after it was written: its checksum is another")
        return _restored(facts, tensors)


def _restored(facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> BandSketch:
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


def _checksum(facts: dict[str, Any], tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, values in sorted(tensors.items()):
        digest.update(f"{name} {values.dtype} {values.shape} ".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


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
