"""The chunk store behind the Xet protocol: xorbs (runs of compressed chunks) and shards (which chunks make a file)."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa


HEADER, RECORD = 48, 48
WITH_VERIFICATION, WITH_METADATA = 1 << 31, 1 << 30
NONE, LZ4, GROUPED_LZ4 = 0, 1, 2


@dataclass(frozen=True)
class Term:
    """A run of chunks `start` to `end` (exclusive) of one xorb, `size` bytes unpacked."""

    xorb: str
    size: int
    start: int
    end: int


@dataclass(frozen=True)
class Recipe:
    """How one file is put together."""

    file_hash: str
    sha256: str | None
    terms: tuple[Term, ...]

    @property
    def size(self) -> int:
        return sum(term.size for term in self.terms)


def hash_hex(raw: bytes) -> str:
    """Return the protocol's spelling of a 32-byte hash: four little-endian words."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", raw))


def parse_shard(shard: bytes) -> list[Recipe]:
    """Return the files that a shard describes."""
    recipes, at = [], HEADER
    while shard[at : at + 32] != b"\xff" * 32:
        file_hash = hash_hex(shard[at : at + 32])
        flags, count = struct.unpack_from("<II", shard, at + 32)
        at += RECORD
        terms = []
        for k in range(count):
            entry = at + k * RECORD
            _, size, start, end = struct.unpack_from("<4I", shard, entry + 32)
            terms.append(Term(hash_hex(shard[entry : entry + 32]), size, start, end))
        at += RECORD * count * (2 if flags & WITH_VERIFICATION else 1)
        sha256 = None
        if flags & WITH_METADATA:
            sha256 = hash_hex(shard[at : at + 32])
            at += RECORD
        recipes.append(Recipe(file_hash, sha256, tuple(terms)))
    return recipes


def chunks_of(xorb: bytes) -> list[tuple[int, int, int, int]]:
    """Return (offset, packed length, scheme, unpacked length) of every chunk of a xorb; offsets are of the headers."""
    found, at = [], 0
    while at + 8 <= len(xorb) and xorb[at] == 0:
        packed, scheme = int.from_bytes(xorb[at + 1 : at + 4], "little"), xorb[at + 4]
        unpacked = int.from_bytes(xorb[at + 5 : at + 8], "little")
        if scheme > GROUPED_LZ4 or at + 8 + packed > len(xorb):
            break
        found.append((at, packed, scheme, unpacked))
        at += 8 + packed
    return found


def unpacked(data: bytes, scheme: int, size: int) -> bytes:
    if scheme == NONE:
        return data
    plain = pa.Codec("lz4").decompress(data, size).to_pybytes()
    if scheme == LZ4:
        return plain
    out, at = bytearray(size), 0  # bytes 0, 4, 8, ... stand first, then 1, 5, 9, ...
    for lane in range(4):
        length = len(range(lane, size, 4))
        out[lane::4] = plain[at : at + length]
        at += length
    return bytes(out)


class ChunkStore:
    """Xorbs and recipes in a folder."""

    def __init__(self, root: Path) -> None:
        self.xorbs, self.recipes = root / "xorbs", root / "recipes"
        self.xorbs.mkdir(parents=True, exist_ok=True)
        self.recipes.mkdir(exist_ok=True)

    def put_xorb(self, name: str, content: bytes) -> bool:
        path = self.xorbs / name
        new = not path.exists()
        path.write_bytes(content)
        return new

    def put_shard(self, shard: bytes) -> list[Recipe]:
        """Keep the recipes of a shard; return them. Raises `KeyError` naming a xorb that was never uploaded."""
        recipes = parse_shard(shard)
        for recipe in recipes:
            for term in recipe.terms:
                if not (self.xorbs / term.xorb).exists():
                    raise KeyError(term.xorb)
        for recipe in recipes:
            for key in filter(None, (recipe.file_hash, recipe.sha256)):
                (self.recipes / key).write_text(json.dumps(asdict(recipe)))
        return recipes

    def recipe(self, key: str) -> Recipe | None:
        """Return the recipe of a file by its Xet hash or its sha256."""
        path = self.recipes / key
        if not path.is_file():
            return None
        plain = json.loads(path.read_text())
        return Recipe(plain["file_hash"], plain["sha256"], tuple(Term(**term) for term in plain["terms"]))

    def content(self, recipe: Recipe) -> bytes:
        parts = []
        for term in recipe.terms:
            xorb = (self.xorbs / term.xorb).read_bytes()
            for offset, packed, scheme, size in chunks_of(xorb)[term.start : term.end]:
                parts.append(unpacked(xorb[offset + 8 : offset + 8 + packed], scheme, size))
        return b"".join(parts)

    def verified(self, sha256: str) -> bytes | None:
        """Return a file by its sha256, None if it is not there or its content is another one."""
        recipe = self.recipe(sha256)
        content = None if recipe is None else self.content(recipe)
        return content if content is not None and hashlib.sha256(content).hexdigest() == sha256 else None

    def reconstruction(self, recipe: Recipe, first: int, last: int, address: str) -> dict:
        """Return where a client fetches the bytes `first` to `last` (inclusive) of a file."""
        terms, fetch, start, offset = [], {}, 0, None
        for term in recipe.terms:
            if start <= last and start + term.size > first:
                offset = first - start if offset is None else offset
                chunks = chunks_of((self.xorbs / term.xorb).read_bytes())
                begin, final = chunks[term.start][0], chunks[term.end - 1]
                where = {"start": term.start, "end": term.end}
                terms.append({"hash": term.xorb, "unpacked_length": term.size, "range": where})
                fetch.setdefault(term.xorb, []).append(
                    {
                        "range": where,
                        "url": address.format(term.xorb),
                        "url_range": {"start": begin, "end": final[0] + 8 + final[1] - 1},
                    }
                )
            start += term.size
        return {"offset_into_first_range": offset or 0, "terms": terms, "fetch_info": fetch}
