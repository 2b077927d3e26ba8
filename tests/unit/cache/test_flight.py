"""One call for all who ask the same: each reads at its own pace, and nobody is left behind without a word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from llm_sidecar.budget import BufferBudget
from llm_sidecar.cache.flight import AHEAD_BYTES, KEPT_BYTES, FellOff, Flight, Flights, Listener, Released

HEADERS = [("content-type", "text/event-stream")]


class Airport:
    """A table of flights, and what they hold."""

    def __init__(self, *, limit_bytes: int = 64 * 1024 * 1024) -> None:
        self.flights = Flights()
        self.budget = BufferBudget(limit_bytes)
        self.cancelled = asyncio.Event()

    def lead(self, fly: Callable[[Flight], Awaitable[None]]) -> tuple[Flight, Listener]:
        flight = self.flights.open("key", self.budget.hold())
        listener = flight.listen(leads=True)

        async def carried() -> None:
            try:
                await fly(flight)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise

        flight.carried_by(asyncio.get_running_loop().create_task(carried()))
        return flight, listener

    @property
    def is_empty(self) -> bool:
        return len(self.flights) == 0 and self.budget.held_bytes == 0


async def read_all(listener: Listener, limit_bytes: int = 1 << 40) -> bytes:
    """Everything, or as much as the limit says."""
    read = b""
    while len(read) < limit_bytes and (piece := await listener.read()):
        read += piece
        listener.sent()
    return read


async def turns(count: int = 20) -> None:
    """Let the others go on."""
    for _ in range(count):
        await asyncio.sleep(0)


def streams(*pieces: bytes, last: bytes = b"", is_complete: bool = True) -> Callable[[Flight], Awaitable[None]]:
    async def fly(flight: Flight) -> None:
        flight.begin(200, HEADERS)
        for piece in pieces:
            await asyncio.sleep(0)
            await flight.push(piece)
        flight.end(last, is_complete=is_complete)

    return fly


async def never(_flight: Flight) -> None:
    await asyncio.Event().wait()


async def test_all_get_the_same_stream_however_late_they_join() -> None:
    airport = Airport()
    gate = asyncio.Event()

    async def fly(flight: Flight) -> None:
        flight.begin(200, HEADERS)
        await flight.push(b"a")
        await gate.wait()
        await flight.push(b"b")
        flight.end(b"c", is_complete=True)

    flight, leader = airport.lead(fly)
    assert airport.flights.get("key") is flight
    early = flight.listen()
    await early.flight.wait_for_head(early)
    assert (flight.status, flight.headers, await early.read()) == (200, HEADERS, b"a")
    early.sent()
    late = flight.listen()
    gate.set()

    assert [await read_all(one) for one in (leader, early, late)] == [b"abc", b"bc", b"abc"]
    for one in (leader, early, late):
        one.leave()
    assert airport.is_empty


async def test_whole_answers_are_shared_and_counted_once() -> None:
    airport = Airport()

    async def fly(flight: Flight) -> None:
        await asyncio.sleep(0)
        flight.land(200, HEADERS, b"x" * 1000)

    flight, leader = airport.lead(fly)
    followers = [flight.listen() for _ in range(5)]
    for one in (leader, *followers):
        await flight.wait_for_head(one)

    assert flight.body == b"x" * 1000
    assert airport.budget.held_bytes == 1000
    leader.leave()
    for one in followers:
        one.leave()
    assert airport.is_empty


async def test_a_leader_that_hangs_up_leaves_the_flight_to_the_others() -> None:
    airport = Airport()
    gate = asyncio.Event()

    async def fly(flight: Flight) -> None:
        flight.begin(200, HEADERS)
        await gate.wait()
        await flight.push(b"a")
        flight.end(b"", is_complete=True)

    flight, leader = airport.lead(fly)
    follower = flight.listen()
    await turns()
    leader.leave()
    gate.set()

    assert await read_all(follower) == b"a"
    assert not airport.cancelled.is_set()


async def test_with_its_last_listener_the_call_is_cancelled_and_nobody_can_join() -> None:
    airport = Airport()
    flight, leader = airport.lead(never)
    follower = flight.listen()
    await turns()

    leader.leave()
    await turns()
    assert not airport.cancelled.is_set()
    follower.leave()
    assert airport.is_empty
    await turns()
    assert airport.cancelled.is_set()


async def test_followers_of_a_leader_that_fails_are_released_at_once() -> None:
    airport = Airport()

    async def fly(_flight: Flight) -> None:
        await turns(3)
        raise LookupError

    flight, leader = airport.lead(fly)
    followers = [flight.listen() for _ in range(3)]

    for one in followers:
        with pytest.raises(Released) as released:
            await flight.wait_for_head(one)
        assert released.value.at_fault
    with pytest.raises(Released):
        await flight.wait_for_head(leader)
    assert airport.flights.get("key") is None
    await flight.settled()


async def test_a_stream_that_breaks_off_releases_those_who_were_sent_nothing() -> None:
    """The others get its error event; and the leader, who has nowhere else to go, all of it."""
    airport = Airport()
    gate = asyncio.Event()

    async def fly(flight: Flight) -> None:
        flight.begin(200, HEADERS)
        await flight.push(b"a")
        await gate.wait()
        flight.end(b"error", is_complete=False)

    flight, leader = airport.lead(fly)
    reading, waiting = flight.listen(), flight.listen()
    assert await reading.read() == b"a"
    reading.sent()
    gate.set()
    await turns()

    with pytest.raises(Released):
        await waiting.read()
    assert await read_all(reading) == b"error"
    assert await read_all(leader) == b"aerror"


async def test_a_call_that_dies_in_the_middle_never_looks_complete() -> None:
    airport = Airport()

    async def fly(flight: Flight) -> None:
        flight.begin(200, HEADERS)
        await flight.push(b"a")
        await turns(3)
        raise LookupError

    flight, leader = airport.lead(fly)
    assert await leader.read() == b"a"
    leader.sent()
    with pytest.raises(FellOff):
        await leader.read()
    await flight.settled()


async def test_the_provider_is_read_as_fast_as_the_fastest_reads() -> None:
    airport = Airport()
    piece = b"x" * (64 * 1024)
    flight, leader = airport.lead(streams(*[piece] * 100))
    follower = flight.listen()
    await turns(200)

    assert airport.budget.held_bytes <= AHEAD_BYTES + len(piece)
    assert len(await read_all(follower)) == 100 * len(piece)
    assert airport.budget.held_bytes <= KEPT_BYTES + len(piece)
    leader.leave()
    follower.leave()
    assert airport.is_empty


async def test_one_that_falls_behind_is_told_so_once_a_part_was_sent_to_it() -> None:
    airport = Airport()
    piece = b"x" * (64 * 1024)
    flight, leader = airport.lead(streams(*[piece] * 100))
    slow, idle = flight.listen(), flight.listen()
    assert await slow.read()
    slow.sent()

    assert len(await read_all(leader)) == 100 * len(piece)
    with pytest.raises(FellOff):
        await read_all(slow)
    with pytest.raises(Released) as released:
        await idle.read()
    assert not released.value.at_fault


async def test_a_slow_one_within_what_is_kept_reads_on() -> None:
    airport = Airport()
    piece = b"x" * 1024
    flight, leader = airport.lead(streams(*[piece] * 500))
    slow = flight.listen()
    assert await read_all(leader) == piece * 500
    leader.leave()

    assert await read_all(slow) == piece * 500


async def test_nobody_joins_a_stream_whose_beginning_is_gone() -> None:
    airport = Airport()
    gate = asyncio.Event()

    async def fly(flight: Flight) -> None:
        await streams(*[b"x" * 64 * 1024] * 40)(flight)
        await gate.wait()

    _, leader = airport.lead(fly)
    await read_all(leader, 20 * 64 * 1024)

    assert airport.flights.get("key") is None


async def test_without_room_for_the_slow_the_fast_still_get_theirs() -> None:
    piece = b"x" * 1024
    airport = Airport(limit_bytes=300 * 1024)
    flight, leader = airport.lead(streams(*[piece] * 500))
    slow = flight.listen()

    assert len(await read_all(leader)) == 500 * len(piece)
    with pytest.raises(Released):
        await slow.read()


async def test_what_is_over_can_be_joined_until_it_is_stored() -> None:
    airport = Airport()
    stored = asyncio.Event()

    async def fly(flight: Flight) -> None:
        await streams(b"a", b"b")(flight)
        flight.stay(storing)

    storing = asyncio.get_running_loop().create_task(stored.wait())
    flight, leader = airport.lead(fly)
    assert await read_all(leader) == b"ab"
    leader.leave()
    await flight.settled()

    late = airport.flights.get("key")
    assert late is flight
    listener = flight.listen()
    assert await read_all(listener) == b"ab"
    listener.leave()
    stored.set()
    await storing
    await turns()
    assert airport.is_empty


async def test_a_failed_flight_cannot_be_joined_again() -> None:
    airport = Airport()
    storing = asyncio.get_running_loop().create_task(turns(5))
    flight, leader = airport.lead(streams(b"a", is_complete=False))
    await read_all(leader)
    flight.stay(storing)

    assert airport.flights.get("key") is None
    await storing


async def test_the_end_is_known_with_the_last_piece() -> None:
    """So that it can go out together with the end of the body."""
    airport = Airport()
    flight, leader = airport.lead(streams(b"a", last=b"z"))
    await flight.settled()

    assert await leader.read() == b"az"
    assert leader.has_read_all
    leader.sent()
    assert await leader.read() == b""
