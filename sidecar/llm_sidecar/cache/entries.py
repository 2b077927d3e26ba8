"""How an answer lies in the store: one line of JSON that tells what it is, then its body.

Whatever does not read exactly like that, names another team or another request, or does not have the body that its head
promises, is a miss.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

import orjson

from llm_sidecar.formats.base import Usage

ENTRY_VERSION: Final = 3
MAX_ENTRY_BYTES: Final = 1024 * 1024
"""Larger answers are not kept: one would push many useful ones out of a small Redis."""
COMPRESSED_FROM_BYTES: Final = 4096
"""Smaller bodies gain some hundred bytes, and cost every hit more than they save."""
_WORTH_WHILE: Final = 0.8
_LEVEL: Final = 1
"""zlib is a part of Python. zstd takes a third of the time and saves as much, for 65 ms at every start, 2.5 MB of
memory and 24 MB of image; higher levels take twice as long for a twentieth less."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A complete plain answer with status 200."""

    body: bytes
    content_type: str
    usage: Usage | None
    asked_at: float
    """Unix seconds: when its request came. Its age counts from here, and so does what a purge reaches."""
    ttl_seconds: int
    """How long it is fresh."""
    dropped: tuple[str, ...] = ()
    """What had been left out of its request, or of it: see `RequestRecord.dropped`."""

    def age_seconds(self, now: float) -> int:
        """For the header `Age`; never below zero, whatever other pods' clocks say."""
        return max(0, int(now - self.asked_at))


def encode_entry(team: str, digest: str, epochs: tuple[int, ...], answer: CachedAnswer) -> bytes:
    """The bytes that are stored. `epochs`: under which the answer was asked for."""
    body, encoding = _packed(answer.body)
    head = {
        "version": ENTRY_VERSION,
        "team": team,
        "digest": digest,
        "epochs": epochs,
        "content_type": answer.content_type,
        "usage": answer.usage,
        "asked_at": answer.asked_at,
        "ttl_seconds": answer.ttl_seconds,
        "dropped": answer.dropped,
        "encoding": encoding,
        "bytes": len(answer.body),
        "crc32": zlib.crc32(body),
    }
    return orjson.dumps(head) + b"\n" + body


def decode_entry(team: str, digest: str, epochs: tuple[int, ...], entry: bytes) -> CachedAnswer | None:
    """The answer, or None where the entry is not for this request, not under these epochs, or damaged."""
    head_bytes, _, packed = entry.partition(b"\n")
    try:
        head = orjson.loads(head_bytes)
        if (head["version"], head["team"], head["digest"]) != (ENTRY_VERSION, team, digest):
            return None
        if tuple(head["epochs"]) != epochs or head["crc32"] != zlib.crc32(packed):
            return None
        body = _unpacked(packed, head["encoding"], int(head["bytes"]))
        if body is None:
            return None
        return CachedAnswer(
            body,
            str(head["content_type"]),
            Usage(**head["usage"]) if head["usage"] is not None else None,
            float(head["asked_at"]),
            int(head["ttl_seconds"]),
            tuple(str(name) for name in head["dropped"]),
        )
    except (ValueError, TypeError, KeyError, zlib.error):
        return None


def _packed(body: bytes) -> tuple[bytes, str | None]:
    if len(body) >= COMPRESSED_FROM_BYTES:
        packed = zlib.compress(body, _LEVEL)
        if len(packed) < _WORTH_WHILE * len(body):
            return packed, "zlib"
    return body, None


def _unpacked(packed: bytes, encoding: str | None, size_bytes: int) -> bytes | None:
    """The body of exactly that size, which is bounded: a few bytes may say that they are a gigabyte."""
    if encoding is None:
        return packed if len(packed) == size_bytes else None
    if encoding != "zlib" or not 0 < size_bytes <= MAX_ENTRY_BYTES:
        return None
    unpacking = zlib.decompressobj()
    body = unpacking.decompress(packed, size_bytes)
    return body if unpacking.eof and len(body) == size_bytes and not unpacking.unused_data else None
