"""Single flight: identical requests at the same time share one answer, while it arrives.

The first of them leads: its call to a provider runs in a task of its own, and whatever comes is kept here for as long
as somebody reads it. All who want it, the leader's application too, are listeners, each at its own pace:

- the provider is read as fast as the fastest of them reads;
- one that falls behind by more than is kept falls off: it goes on alone if nothing was sent to it yet;
- when the last one is gone, the task is cancelled; until then it goes on, whoever began it.

Nothing here knows of HTTP, of quotas or of the store.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from llm_sidecar.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Hashable

    from llm_sidecar.budget import Held

KEPT_BYTES: Final = 1024 * 1024
"""Of a stream, so much stays for those who come later or read slowly. A larger answer is no candidate for the cache."""
AHEAD_BYTES: Final = 256 * 1024
"""How far the provider is read ahead of the fastest listener."""

Headers = list[tuple[str, str]]


class Released(Exception):
    """The flight gives this listener nothing, and nothing was sent to it yet: it may go on as if it had never joined.

    `at_fault` is False where the flight itself goes on, and only this listener cannot use it.
    """

    def __init__(self, *, at_fault: bool = True) -> None:
        super().__init__()
        self.at_fault = at_fault


class Overdue(Exception):
    """There is still no answer, for longer than such ones take: this listener need not wait for this very call."""


class FellOff(Exception):
    """What this listener would have to read next is gone, and a part of the answer was sent to it."""


class Flight:
    """One call under way, and what came of it so far."""

    def __init__(self, flights: Flights, key: Hashable, held: Held) -> None:
        self._flights = flights
        self._key = key
        self._held = held
        self._task: asyncio.Task[Any] | None = None
        self._listeners: set[Listener] = set()
        self._changed = asyncio.Event()
        self._moved = asyncio.Event()
        self._pieces: list[bytes] = []
        self._first_index = 0
        self._start = self._end = 0
        self._is_over = self._is_incomplete = self._is_broken = self._is_forgotten = False
        self.status = 0
        """0 until there is an answer."""
        self.began = 0.0
        """By the loop's clock: when it was asked for."""
        self.patience_seconds = 0.0
        """How long it may take before it is overdue."""
        self.headers: Headers = []
        self.body: bytes | None = None
        """Of an answer that came whole."""
        self.told: Any = None
        """Whatever the leader tells about its answer."""

    # --- the leader's side

    def carried_by(self, task: asyncio.Task[Any]) -> None:
        """This task makes the call. It is cancelled with the last listener, and its end is the flight's."""
        self._task = task
        task.add_done_callback(lambda _task: self.fail())

    def land(self, status: int, headers: Headers, body: bytes) -> None:
        """The whole answer is there."""
        if not self._is_over:
            self.status, self.headers, self.body = status, headers, body
            self._over()

    def begin(self, status: int, headers: Headers) -> None:
        """A stream begins."""
        self.status, self.headers = status, headers
        self._tell()

    async def push(self, piece: bytes) -> None:
        """The stream goes on with whole frames. Waits while it is too far ahead of all listeners."""
        if not piece:
            return
        self._keep(piece)
        self._tell()
        while self._listeners and self._end - max(one.position for one in self._listeners) > AHEAD_BYTES:
            self._moved.clear()
            await self._moved.wait()

    def end(self, last: bytes, *, is_complete: bool) -> None:
        """The stream ends with these bytes. An incomplete one is nothing for those who were sent nothing of it."""
        if last:
            try:
                self._keep(last)
            except Overloaded:
                self.fail()
                return
        self._is_incomplete = not is_complete
        self._over()

    def fail(self) -> None:
        """There is no answer, or not all of it; where it had come to its end, nothing changes."""
        if not self._is_over:
            self._is_incomplete = self._is_broken = True
            self._over()

    def stay(self, until: asyncio.Task[Any]) -> None:
        """Let others still join what is over: until the store has it, they would find it nowhere."""
        if self._is_over and not self._is_incomplete and not self._is_forgotten and self._start == 0:
            self._flights.add(self._key, self)
            until.add_done_callback(lambda _task: self._leave_table())

    async def settled(self) -> None:
        """Wait until the task has ended, with all that it had to tell of its answer."""
        if self._task is not None and not self._task.done():
            await asyncio.wait({self._task})

    # --- the listeners' side

    def listen(self, *, leads: bool = False) -> Listener:
        """Join. Leave in the end."""
        listener = Listener(self, leads=leads)
        self._listeners.add(listener)
        return listener

    async def wait_for_head(self, listener: Listener) -> None:
        """Wait for an answer's status. Raises `Released` where there will be none to share."""
        while not self.status and not self._is_over:
            await self._changed.wait()
        if self._is_broken:
            raise Released
        if self.body is not None and not listener.leads and not self._held.held_bytes:
            try:
                self._held.take(len(self.body))
            except Overloaded:
                raise Released(at_fault=False) from None

    async def wait_for(self, listener: Listener) -> list[bytes]:
        """What comes next for a listener, as soon as it is there; nothing at the end. Raises as `Listener.read`."""
        while True:
            if self._is_incomplete and not listener.position and not listener.leads:
                raise Released
            if listener.position < self._start:
                raise FellOff if listener.position else Released(at_fault=False)
            if listener.position < self._end:
                return self._pieces[listener.index - self._first_index :]
            if self._is_broken:
                raise FellOff
            if self._is_over:
                return []
            await self._changed.wait()

    def ends_at(self, position: int) -> bool:
        """True where it is known that nothing comes behind this place."""
        return self._is_over and not self._is_broken and position == self._end

    def moved(self) -> None:
        """A listener has taken something."""
        self._moved.set()
        if not self._is_joinable:
            self._trim(self._slowest)

    def leave(self, listener: Listener) -> None:
        """Without listeners there is no reason to go on."""
        self._listeners.discard(listener)
        self._moved.set()
        if self._listeners:
            return
        if not self._is_over or self._is_broken:
            self._flights.remove(self._key, self)
            if self._task is not None:
                self._task.cancel()
        self._forget()

    # --- what is kept

    @property
    def _is_joinable(self) -> bool:
        return self._flights.get(self._key) is self

    @property
    def _slowest(self) -> int:
        return min((one.position for one in self._listeners), default=self._end)

    def _keep(self, piece: bytes) -> None:
        if not self._listeners:  # it is being cancelled
            return
        try:
            self._held.take(len(piece))
        except Overloaded:
            # There is no room for those who are slow, nor for those who may come.
            self._flights.remove(self._key, self)
            self._trim(max(one.position for one in self._listeners))
            self._held.take(len(piece))
        self._pieces.append(piece)
        self._end += len(piece)
        if self._end - self._start > KEPT_BYTES:
            self._flights.remove(self._key, self)
            self._trim(max(self._end - KEPT_BYTES, self._slowest))

    def _trim(self, position: int) -> None:
        """Forget the pieces that end before a position."""
        count = size_bytes = 0
        for piece in self._pieces:
            if self._start + size_bytes + len(piece) > position:
                break
            count += 1
            size_bytes += len(piece)
        del self._pieces[:count]
        self._first_index += count
        self._start += size_bytes
        self._held.give_back(size_bytes)

    def _over(self) -> None:
        self._is_over = True
        self._flights.remove(self._key, self)
        self._tell()
        self._forget()

    def _leave_table(self) -> None:
        self._flights.remove(self._key, self)
        self._forget()

    def _forget(self) -> None:
        """Once nobody reads, and nobody may join, nothing is held any more."""
        if not self._listeners and not self._is_joinable:
            self._is_forgotten = True
            self._pieces.clear()
            self._held.release()

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Listener:
    """One who takes part in a flight, and how far it has come."""

    __slots__ = ("_read", "flight", "index", "leads", "position")

    def __init__(self, flight: Flight, *, leads: bool) -> None:
        self.flight = flight
        self.leads = leads
        """It has nowhere else to go: an answer that breaks off is its answer."""
        self.position = self.index = 0
        """What lies before it was sent to its application: in bytes, and in pieces."""
        self._read = (0, 0)

    async def read(self) -> bytes:
        """What comes next; empty at the end. Call `sent` once the application has it. Raises `Released`, `FellOff`."""
        pieces = await self.flight.wait_for(self)
        together = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._read = (len(pieces), len(together))
        return together

    @property
    def has_read_all(self) -> bool:
        """What was read last is the end."""
        return self.flight.ends_at(self.position + self._read[1])

    def sent(self) -> None:
        """What was read has been sent on."""
        pieces, size_bytes = self._read
        self.index += pieces
        self.position += size_bytes
        self._read = (0, 0)
        self.flight.moved()

    def leave(self) -> None:
        """Take no more part. May be called twice."""
        self.flight.leave(self)


class Flights:
    """The calls under way that others may join."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def get(self, key: Hashable) -> Flight | None:
        """The flight to join."""
        return self._flights.get(key)

    def open(self, key: Hashable, held: Held) -> Flight:
        """A new flight. `held`: what counts the bytes that it keeps, for nothing else."""
        flight = Flight(self, key, held)
        self.add(key, flight)
        return flight

    def add(self, key: Hashable, flight: Flight) -> None:
        """Let others join, unless there is a newer one."""
        self._flights.setdefault(key, flight)

    def remove(self, key: Hashable, flight: Flight) -> None:
        """Let nobody join any more."""
        if self._flights.get(key) is flight:
            del self._flights[key]
