"""How an answer lies in the store: one line of JSON that tells what it is, then its body.

Whatever does not read exactly like that, names another team or another request, or does not have the body that its head
promises, is a miss. So is a head with anything in it that we would not have written: what is taken from here is
counted, priced and sent, and must not fail there.
"""

from __future__ import annotations

import re
import time
import zlib
from dataclasses import dataclass
from typing import Final

import orjson

from llm_sidecar.contract.fields import MAX_TTL_SECONDS
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
MAX_TOKENS: Final = 2**31
"""More than any answer takes. Whatever is summed up, priced and logged of it still has 64 bits."""
_CLOCKS_DIFFER_SECONDS: Final = 60.0
"""So far ahead another pod's clock may be. An entry from later than that would stay fresh for as long as it lies."""
_ONE_LINE: Final = re.compile(r"[ -~]{1,256}")


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
        body = _unpacked(packed, head["encoding"], whole_number(head["bytes"]))
        if body is None:
            return None
        return CachedAnswer(
            body,
            _content_type(head["content_type"]),
            _usage(head["usage"]),
            past_time(head["asked_at"]),
            whole_number(head["ttl_seconds"], at_most=MAX_TTL_SECONDS),
            _names(head["dropped"]),
        )
    except (ValueError, TypeError, KeyError, zlib.error):
        return None


def whole_number(value: object, *, at_most: int = MAX_TOKENS) -> int:
    """A number of an entry, if it is one that we could have written. Raises `ValueError`."""
    if type(value) is not int or not 0 <= value <= at_most:
        raise ValueError("no whole number within its bounds")
    return value


def past_time(value: object) -> float:
    """Unix seconds that have been, by anybody's clock. Raises `ValueError`, `TypeError`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError("no number")
    if not 0 <= value <= time.time() + _CLOCKS_DIFFER_SECONDS:
        raise ValueError("no time that has been")
    return float(value)


def _content_type(value: str) -> str:
    if _ONE_LINE.fullmatch(value) is None:
        raise ValueError("no content type: it goes out as it is, and a line break would make another header")
    return value


def _usage(told: object) -> Usage | None:
    if told is None:
        return None
    if not isinstance(told, dict):
        raise TypeError("no usage")
    return Usage(**{name: None if value is None else whole_number(value) for name, value in told.items()})


def _names(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name.isprintable() for name in value):
        raise ValueError("no list of names")
    return tuple(value)


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
