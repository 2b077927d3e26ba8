"""Stored answers: how one lies in the store, and how it is put there and found again.

An entry begins with one line of JSON (version, digest, content type, usage, when, what was left out), then the body's
bytes as they came. Whatever does not read exactly like that is a miss.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import orjson

from llm_sidecar.contract.keys import cache_entry
from llm_sidecar.formats.base import Usage
from llm_sidecar.store import StoreUnavailable

if TYPE_CHECKING:
    from llm_sidecar.store import Store

ENTRY_VERSION: Final = 2
MAX_ENTRY_BYTES: Final = 1024 * 1024
"""Larger answers are not kept: one would push many useful ones out of a small Redis."""


@dataclass(frozen=True, slots=True)
class CachedAnswer:
    """A complete plain answer with status 200."""

    body: bytes
    content_type: str
    usage: Usage | None
    stored_at: float
    """Unix seconds."""
    dropped: tuple[str, ...] = ()
    """What had been left out of its request, or of it: see `RequestRecord.dropped`."""

    @property
    def age_seconds(self) -> int:
        """For the header `Age`."""
        return max(0, int(time.time() - self.stored_at))


def encode_entry(digest: str, answer: CachedAnswer) -> bytes:
    """The bytes that are stored."""
    head = {
        "version": ENTRY_VERSION,
        "digest": digest,
        "content_type": answer.content_type,
        "usage": answer.usage,
        "stored_at": answer.stored_at,
        "bytes": len(answer.body),
        "dropped": answer.dropped,
    }
    return orjson.dumps(head) + b"\n" + answer.body


def decode_entry(digest: str, entry: bytes) -> CachedAnswer | None:
    """The answer, or None where the entry is of another version, for another request, or cut."""
    head_bytes, newline, body = entry.partition(b"\n")
    try:
        head = orjson.loads(head_bytes)
        if (head["version"], head["digest"], head["bytes"]) != (ENTRY_VERSION, digest, len(body)) or not newline:
            return None
        usage = Usage(**head["usage"]) if head["usage"] is not None else None
        dropped = tuple(str(name) for name in head["dropped"])
        return CachedAnswer(body, str(head["content_type"]), usage, float(head["stored_at"]), dropped)
    except (ValueError, TypeError, KeyError):
        return None


class AnswerCache:
    """One team's answers in the shared store. A store that is away makes misses, never errors."""

    def __init__(self, store: Store, team: str) -> None:
        self._store = store
        self._team = team

    async def find(self, digest: str) -> CachedAnswer | None:
        """The stored answer, or None."""
        try:
            entry = await self._store.get(cache_entry(self._team, digest))
        except StoreUnavailable:
            return None
        return None if entry is None else decode_entry(digest, entry)

    async def keep(self, digest: str, answer: CachedAnswer, *, ttl_seconds: int) -> bool:
        """Store an answer; False where it was too large or the store is away."""
        if len(answer.body) > MAX_ENTRY_BYTES:
            return False
        try:
            await self._store.set(
                cache_entry(self._team, digest), encode_entry(digest, answer), ttl_seconds=ttl_seconds
            )
        except StoreUnavailable:
            return False
        return True
