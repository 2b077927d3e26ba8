"""Settlements on their way to the store: in the background, many in one call, and again while the store is away."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING, Final

from llm_sidecar.quota.ledger import RELEASED
from llm_sidecar.store import StoreUnavailable

if TYPE_CHECKING:
    from llm_sidecar.quota.journal import Journal

_BATCH: Final = 64
"""Keeps one script call well under a millisecond: other callers of the store wait meanwhile."""

_MAX_PENDING: Final = 10_000
_FIRST_BACKOFF_SECONDS: Final = 0.05
_MAX_BACKOFF_SECONDS: Final = 5.0
_REFUSED_BACKOFF_SECONDS: Final = 0.25
"""Where the store is known to be away, or refuses, asking again costs nothing. Whoever waits longer goes on holding
room once it is back, and is charged no more than its input if this process is killed meanwhile."""
_MAX_REFUSALS: Final = 5
"""A script that fails five times on the same settlements will not take the sixth."""


class SettleMode(StrEnum):
    """What it means when the store does not know the id: see settle.lua."""

    FIRST = "first"
    AGAIN = "again"
    UNBACKED = "unbacked"


@dataclass(slots=True, kw_only=True)
class Settlement:
    """What a reservation came to."""

    request_id: str
    mode: SettleMode
    amounts: tuple[tuple[str, int, int, int, str], ...]
    """Of each limit: counter, amount, femto-dollars beyond it, the limit's maximum, thresholds to report."""
    words: tuple[str | int, ...] = RELEASED
    """For the ledger."""
    incarnation: str = ""
    """Of the store, when it was told first: see `seen.py`."""
    journal_end: int = 0
    """Where its line in the journal ends; 0: it is in memory alone."""

    def arguments(self) -> list[str | int]:
        """This settlement's part of the script's arguments."""
        flat: list[str | int] = [self.request_id, self.mode.value, len(self.amounts)]
        for amount in self.amounts:
            flat += amount
        flat += self.words
        return flat


class SettlementQueue:
    """Takes settlements without waiting and brings them to the store, in order, by `book`, which raises
    `StoreUnavailable`.

    Bounded: what does not fit into memory waits in the journal. What does not fit there either, or comes after the
    close, is counted in `dropped` and left to the end of its lease. `on_dropped` hears of each loss, with the number
    of settlements. What is unbacked is in the journal in any case: no lease would charge it.
    """

    def __init__(
        self,
        book: Callable[[Sequence[Settlement]], Awaitable[None]],
        *,
        max_pending: int = _MAX_PENDING,
        on_dropped: Callable[[int], object] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.dropped = 0
        self._book = book
        self._on_dropped = on_dropped
        self._is_closed = False
        self._max_pending = max_pending
        self._pending: deque[Settlement] = deque()
        self._in_flight: list[Settlement] = []
        self._journal = journal
        self._wanted = asyncio.Event()
        self._drained = asyncio.Event()
        self._closing = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        if journal is not None:
            journal.resume()
            if journal.waiting:
                self._start()

    @property
    def pending(self) -> int:
        """Settlements that the store has not confirmed, wherever they wait."""
        return len(self._pending) + len(self._in_flight) + self._waiting_in_journal

    @property
    def has_unbacked(self) -> bool:
        """True while a charge waits of which the store knows nothing: the figures that it tells lack it."""
        waiting = chain(self._in_flight, self._pending)
        return self._waiting_in_journal > 0 or any(one.mode is SettleMode.UNBACKED and one.amounts for one in waiting)

    def add(self, settlement: Settlement) -> None:
        """Settle soon. Never waits."""
        if self._is_closed:
            self._add_late(settlement)
            return
        has_room = len(self._pending) + len(self._in_flight) < self._max_pending
        if not has_room:
            # It may be another process that tells it, and nobody may know then whether it was told before.
            settlement.mode = SettleMode.UNBACKED
        aside = not has_room or self._waiting_in_journal > 0  # the order of the journal's lines is that of the queue
        is_kept = settlement.mode is SettleMode.UNBACKED and self._keep(settlement, aside=aside)
        if is_kept and aside:
            self._start()
        elif has_room:
            self._pending.append(settlement)
            self._start()
        else:
            self._drop(1)

    def _add_late(self, settlement: Settlement) -> None:
        """After the close: the journal has it for the next process, or its lease ends."""
        is_kept = settlement.mode is SettleMode.UNBACKED and self._keep(settlement, aside=True)
        if self._journal is not None:
            self._journal.close()
        if not is_kept:
            self._drop(1)

    def _keep(self, settlement: Settlement, *, aside: bool) -> bool:
        return self._journal is not None and self._journal.keep(settlement, aside=aside)

    @property
    def _waiting_in_journal(self) -> int:
        return 0 if self._journal is None or self._is_closed else self._journal.waiting

    def _start(self) -> None:
        self._wanted.set()
        self._drained.clear()
        if self._worker is None:
            self._worker = asyncio.get_running_loop().create_task(self._work(), name="quota settlements")

    async def close(self, *, timeout_seconds: float) -> None:
        """Wait until all are settled, at most for so long; drop what is not in the journal either.

        May be called again, also when cancelled.
        """
        self._closing.set()
        if self._worker is not None:
            try:
                async with asyncio.timeout(timeout_seconds):
                    await self._drained.wait()
            except TimeoutError:
                pass
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
        self._is_closed = True
        lost = sum(not one.journal_end for one in (*self._in_flight, *self._pending))
        self._in_flight = []
        self._pending.clear()
        if lost:
            self._drop(lost)

    def _drop(self, count: int) -> None:
        self.dropped += count
        if self._on_dropped is not None:
            self._on_dropped(count)

    async def _work(self) -> None:
        failures = refusals = 0
        while True:
            await self._wanted.wait()
            batch = self._in_flight = self._next_batch()
            try:
                if batch:
                    await self._book(batch)
            except StoreUnavailable as unavailable:
                # After a time away, the pauses for what is lost on the way begin anew: it is another trouble.
                failures = failures + 1 if unavailable.maybe_executed else 0
                refusals = refusals + 1 if unavailable.reason == "script" else 0
                if refusals < _MAX_REFUSALS:
                    self._put_back(batch, maybe_executed=unavailable.maybe_executed)
                    await self._pause(_backoff_seconds(failures))
                    continue
                self._drop(len(batch))
            if self._journal is not None:  # also of what was dropped: another process would fare no better with it
                self._journal.settled(batch)
            self._in_flight = []
            failures = refusals = 0
            if not self.pending:
                self._wanted.clear()
                self._drained.set()

    def _next_batch(self) -> list[Settlement]:
        if self._journal is not None and len(self._pending) < _BATCH and self._journal.waiting:
            before = self._journal.waiting
            taken = self._journal.take(_BATCH)
            self._pending.extend(taken)
            unreadable = before - self._journal.waiting - len(taken)
            if unreadable:
                self._drop(unreadable)
        return [self._pending.popleft() for _ in range(min(_BATCH, len(self._pending)))]

    async def _pause(self, seconds: float) -> None:
        """Before the next try; who closes has no time for more than the shortest one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._closing.wait()
            await asyncio.sleep(_FIRST_BACKOFF_SECONDS)

    def _put_back(self, batch: list[Settlement], *, maybe_executed: bool) -> None:
        self._in_flight = []
        for settlement in reversed(batch):
            if maybe_executed and settlement.mode is SettleMode.FIRST:
                # What no limit counts has no record by which the store could tell whether it was told: rather a second
                # line with the same id in the ledger than none.
                settlement.mode = SettleMode.AGAIN if settlement.amounts else SettleMode.UNBACKED
            self._pending.appendleft(settlement)


def _backoff_seconds(failures: int) -> float:
    """`failures`: in a row, of which nobody knows what they did; 0 where the store has certainly done nothing."""
    exponential = _FIRST_BACKOFF_SECONDS * 2.0 ** min(failures, 10) if failures else _REFUSED_BACKOFF_SECONDS
    exponential = min(_MAX_BACKOFF_SECONDS, exponential)
    return exponential * random.uniform(0.5, 1.0)  # noqa: S311 - spreads a fleet, guards nothing
