"""What to look at next. A key stands in the queue once, however often it was marked, and is worked on by one worker
at a time; one that fails comes back later and later, and holds up no other.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import traceback
from collections.abc import Awaitable, Callable, Hashable
from pathlib import PurePath
from typing import Final, Generic, TypeVar

from llm_operator.kube import ApiError

FIRST_BACKOFF_SECONDS: Final = 0.5
LONGEST_BACKOFF_SECONDS: Final = 120.0
SOON_SECONDS: Final = 1.0
RESOLUTION_SECONDS: Final = 0.001
"""A timer may fire a hair before the time that was computed for it."""

_log: Final = logging.getLogger(__name__)

_Key = TypeVar("_Key", bound=Hashable)


class TryAgain(Exception):
    """Something is not there yet. No failure: the key comes back after this many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


class WorkQueue(Generic[_Key]):
    """Keys by the time at which they are due."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._due: dict[_Key, float] = {}
        self._heap: list[tuple[float, int, _Key]] = []
        self._tie = itertools.count()
        self._busy: set[_Key] = set()
        self._marked_while_busy: dict[_Key, float] = {}
        self._failures: dict[_Key, int] = {}
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys that wait, those for later included."""
        return len(self._due) + len(self._marked_while_busy)

    def mark(self, key: _Key, *, delay_seconds: float = 0.0) -> None:
        """Look at this, now or later; the earlier of two times counts."""
        at = self._clock() + delay_seconds
        if key in self._busy:
            self._marked_while_busy[key] = min(at, self._marked_while_busy.get(key, at))
        elif at < self._due.get(key, float("inf")):
            self._due[key] = at
            heapq.heappush(self._heap, (at, next(self._tie), key))
            self._wake.set()

    def take(self) -> _Key | None:
        """A key that is due, now the caller's until `done`."""
        while self._heap and self._heap[0][0] <= self._clock() + RESOLUTION_SECONDS:
            at, _, key = heapq.heappop(self._heap)
            if self._due.get(key) == at:
                del self._due[key]
                self._busy.add(key)
                return key
        return None

    def is_due(self, key: _Key) -> bool:
        """True while somebody works on the key, or soon will. One that failed waits for another reason."""
        if key in self._failures:
            return False
        return key in self._busy or self._due.get(key, float("inf")) <= self._clock() + SOON_SECONDS

    def done(self, key: _Key) -> None:
        """The caller has looked."""
        self._busy.discard(key)
        at = self._marked_while_busy.pop(key, None)
        if at is not None:
            self.mark(key, delay_seconds=max(0.0, at - self._clock()))

    def seconds_until_due(self) -> float | None:
        """How long until the next key is due; None where there is none."""
        while self._heap and self._due.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return max(0.0, self._heap[0][0] - self._clock()) if self._heap else None

    async def work(self, handle: Callable[[_Key], Awaitable[None]]) -> None:
        """Handle keys as they become due, for ever. Several may run beside each other."""
        while True:
            if not await self.step(handle):
                self._wake.clear()
                try:
                    async with asyncio.timeout(self.seconds_until_due()):
                        await self._wake.wait()
                except TimeoutError:
                    continue

    async def step(self, handle: Callable[[_Key], Awaitable[None]]) -> bool:
        """Handle one key that is due; False where none is."""
        key = self.take()
        if key is None:
            return False
        try:
            await handle(key)
        except TryAgain as again:
            self._failures.pop(key, None)
            self.mark(key, delay_seconds=again.seconds)
        except Exception as error:  # noqa: BLE001 - one bad object must not stop the others
            self._failed(key, error)
        else:
            self._failures.pop(key, None)
        finally:
            self.done(key)
        return True

    def _failed(self, key: _Key, error: Exception) -> None:
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        backoff = min(FIRST_BACKOFF_SECONDS * 2 ** min(failures - 1, 16), LONGEST_BACKOFF_SECONDS)
        wait = max(backoff, getattr(error, "retry_after_seconds", None) or 0.0)
        _log.warning("%s: %s; again in %.1f s", key, described(error), wait)
        self.mark(key, delay_seconds=wait)


def described(error: BaseException) -> str:
    """What happened, and where. Never the text of an error that is not our own: it may quote a Secret."""
    if isinstance(error, ApiError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({PurePath(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return type(error).__name__ + where
