"""The answers found last, for a moment: what one pod asks again at once costs no way to the store."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_sidecar.cache.entries import CachedAnswer

LIFETIME_SECONDS: Final = 2.0
"""So long, at most, a purge is not heard of here."""
MAX_MEMORY_BYTES: Final = 4 * 1024 * 1024
MAX_REMEMBERED_BYTES: Final = 256 * 1024
"""A larger answer would push out too many others."""
OVERHEAD_BYTES: Final = 1024
"""What one answer costs beside its body, roughly."""


class Remembered:
    """One answer, and the streams that were made of it."""

    __slots__ = ("answer", "expires", "size_bytes", "streams")

    def __init__(self, answer: CachedAnswer, expires: float) -> None:
        self.answer = answer
        self.expires = expires
        self.size_bytes = len(answer.body) + OVERHEAD_BYTES
        self.streams: dict[tuple[bool, bool], bytes] = {}


class Memory:
    """Answers by digest, bounded in bytes and in time."""

    def __init__(self, *, max_bytes: int = MAX_MEMORY_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._answers: OrderedDict[str, Remembered] = OrderedDict()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, digest: str) -> CachedAnswer | None:
        """The answer, if it is still remembered."""
        found = self._answers.get(digest)
        if found is None:
            return None
        if found.expires < self._clock():
            self._remove(digest)
            return None
        self._answers.move_to_end(digest)
        return found.answer

    def put(self, digest: str, answer: CachedAnswer) -> None:
        """Remember an answer, and forget those that were not asked for longest."""
        self._remove(digest)
        if len(answer.body) > MAX_REMEMBERED_BYTES:
            return
        self._answers[digest] = kept = Remembered(answer, self._clock() + LIFETIME_SECONDS)
        self._grow(kept.size_bytes)

    def stream(
        self, digest: str, answer: CachedAnswer, kind: tuple[bool, bool], make: Callable[[], bytes | None]
    ) -> bytes | None:
        """An answer as a stream of some kind, made once for as long as this very answer is remembered."""
        found = self._answers.get(digest)
        if found is None or found.answer is not answer:
            return make()
        made = found.streams.get(kind) or make()
        if made is not None and kind not in found.streams:
            found.streams[kind] = made
            found.size_bytes += len(made)
            self._grow(len(made))
        return made

    def clear(self) -> None:
        """Forget everything."""
        self._answers.clear()
        self.size_bytes = 0

    def _grow(self, by_bytes: int) -> None:
        self.size_bytes += by_bytes
        while self.size_bytes > self._max_bytes:
            _, oldest = self._answers.popitem(last=False)
            self.size_bytes -= oldest.size_bytes

    def _remove(self, digest: str) -> None:
        found = self._answers.pop(digest, None)
        if found is not None:
            self.size_bytes -= found.size_bytes


def unheard(asked_at: float) -> int:
    """Stands for what purges have counted, where the store did not tell it, for who asked at a time (Unix seconds).

    Equal for a moment only: an answer that is under way is shared no longer after a purge than one from here.
    """
    return int(asked_at // LIFETIME_SECONDS)
