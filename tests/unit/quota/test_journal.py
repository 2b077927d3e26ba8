"""What waits for the store longer than memory allows, and over the ends of processes: all is booked, and once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from llm_sidecar.formats.base import Usage
from llm_sidecar.quota import journal as journal_module
from llm_sidecar.quota.journal import Journal
from llm_sidecar.quota.ledger import RELEASED, LedgerEntry
from llm_sidecar.quota.settlement import Settlement, SettlementQueue, SettleMode
from llm_sidecar.store import StoreUnavailable

pytestmark = pytest.mark.looptime
MANY = 10_500
Open = Callable[..., SettlementQueue]


class Books:
    """Knows no id again, as the store does not after an hour: what it is told twice is booked twice."""

    def __init__(self) -> None:
        self.booked: Counter[str] = Counter()
        self.order: list[str] = []
        self.modes: dict[str, SettleMode] = {}
        self.takes_more = 0
        self.reason = "connection"

    async def book(self, batch: Sequence[Settlement]) -> None:
        await asyncio.sleep(0)
        if self.takes_more < len(batch):
            raise StoreUnavailable("script" if self.reason == "script" else "connection", maybe_executed=False)
        self.takes_more -= len(batch)
        self.booked.update(one.request_id for one in batch)
        self.order += [one.request_id for one in batch]
        self.modes |= {one.request_id: one.mode for one in batch}


@pytest.fixture
def books() -> Books:
    return Books()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "team.settlements.jsonl"


@pytest.fixture
async def start(books: Books, path: Path) -> AsyncIterator[Open]:
    """A process, with what the one before it has left."""
    async with AsyncExitStack() as stack:

        def make(*, max_pending: int = 10_000) -> SettlementQueue:
            journal = Journal(path)
            queue = SettlementQueue(books.book, journal=journal, max_pending=max_pending)
            stack.callback(journal.close)
            stack.push_async_callback(queue.close, timeout_seconds=0)
            return queue

        yield make


def one(number: int, mode: SettleMode = SettleMode.UNBACKED) -> Settlement:
    counter = "daily|tokens|Day|0|9007199254740991"
    return Settlement(
        request_id=f"r{number}", mode=mode, amounts=((counter, number, 0, 10**9, "50,80"),), words=RELEASED
    )


def ids(count: int) -> list[str]:
    return [f"r{number}" for number in range(count)]


def text(path: Path) -> bytes | None:
    """None where there is no file."""
    return path.read_bytes() if path.exists() else None


def spoil(path: Path) -> None:
    """One line is garbage, and the last one was cut by a kill."""
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([lines[0], b"[broken", *lines[1:], lines[2][:20]]))


async def until(queue: SettlementQueue, pending: int) -> None:
    async with asyncio.timeout(60):
        while queue.pending > pending:  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.01)


async def test_more_than_memory_holds_is_booked_once_in_order_though_the_process_is_replaced_midway(
    start: Open, books: Books, path: Path
) -> None:
    first = start()
    for number in range(MANY):
        first.add(one(number))
    assert len(first._pending) <= 10_000
    assert (first.pending, first.dropped) == (MANY, 0)

    books.takes_more = 3000
    await until(first, MANY - 2944)  # whole batches
    await first.close(timeout_seconds=0)
    assert first.dropped == 0

    second = start()
    assert second.pending == MANY - 2944
    assert len(second._pending) <= 64
    second.add(one(MANY))
    books.takes_more = MANY
    await until(second, 0)
    assert books.order == ids(MANY + 1)
    assert text(path) is None


async def test_what_waits_in_the_file_alone_is_not_settled(start: Open) -> None:
    queue = start(max_pending=10)
    for number in range(30):
        queue.add(one(number))
    assert queue.pending == 30
    assert len(queue._pending) == 10


async def test_what_the_store_held_waits_in_the_file_where_memory_is_full(start: Open, books: Books) -> None:
    """Another process may be the one to tell it, so it closes its id."""
    queue = start(max_pending=2)
    for number in range(4):
        queue.add(one(number, SettleMode.FIRST))
    books.takes_more = 100
    await until(queue, 0)
    assert books.order == ids(4)
    assert list(books.modes.values()) == [SettleMode.FIRST] * 2 + [SettleMode.UNBACKED] * 2
    assert queue.dropped == 0


async def test_only_what_fits_neither_in_memory_nor_in_the_file_is_dropped(
    start: Open, books: Books, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "MAX_JOURNAL_BYTES", 2000)
    queue = start(max_pending=10)
    for number in range(100):
        queue.add(one(number))
    in_file = (text(path) or b"").count(b"\n")
    assert 10 < in_file < 20
    assert queue.dropped == 100 - in_file

    books.takes_more = 100
    await until(queue, 0)
    assert books.order == ids(in_file)
    assert text(path) is None


async def test_a_full_file_makes_room_for_new_ones_where_old_ones_are_settled(
    start: Open, books: Books, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = 64 * 1024
    monkeypatch.setattr(journal_module, "MAX_JOURNAL_BYTES", size)
    queue = start(max_pending=10)
    while not queue.dropped:
        queue.add(one(queue.pending))
    before = queue.pending
    books.takes_more = before * 3 // 4
    await until(queue, before - books.takes_more // 64 * 64)
    await asyncio.sleep(1)
    booked = len(books.order)
    assert booked > before // 2
    for number in range(before, before + 200):
        queue.add(one(number))
    assert queue.dropped == 1
    assert len(text(path) or b"") <= size

    await queue.close(timeout_seconds=0)
    books.takes_more = 10**6
    await until(start(), 0)
    assert books.order == ids(before + 200)
    assert text(path) is None


async def test_what_the_store_will_not_take_does_not_keep_the_file(start: Open, books: Books, path: Path) -> None:
    books.reason = "script"
    queue = start()
    for number in range(3):
        queue.add(one(number))
    await until(queue, 0)
    assert queue.dropped == 3
    assert text(path) is None


async def test_lines_that_cannot_be_read_are_told_to_be_lost(start: Open, books: Books, path: Path) -> None:
    first = start()
    for number in range(3):
        first.add(one(number))
    await first.close(timeout_seconds=0)
    spoil(path)

    second = start()
    assert second.pending == 4
    books.takes_more = 10
    second.add(one(3))  # what a kill has cut off must not spoil the next line
    await until(second, 0)
    assert books.order == ids(4)
    assert second.dropped == 1
    assert text(path) is None


async def test_a_full_disk_leaves_no_half_line(
    start: Open, books: Books, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, write = start(), os.write
    first.add(one(0))
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:10]))
    first.add(one(1))
    monkeypatch.undo()
    written = text(path)
    assert written is not None
    assert written.index(b"\n") == len(written) - 1
    assert "No space left on device" in caplog.text
    books.takes_more = 10
    await until(first, 0)
    assert books.order == ids(2)


async def test_what_ends_after_the_close_is_left_to_the_next_process(start: Open, books: Books) -> None:
    first = start()
    await first.close(timeout_seconds=0)
    first.add(one(0))
    first.add(one(1, SettleMode.FIRST))
    assert (first.dropped, first.pending) == (1, 0)

    books.takes_more = 10
    await until(start(), 0)
    assert books.order == ids(1)


async def test_what_a_confused_provider_told_fits_into_a_line(tmp_path: Path) -> None:
    entry = LedgerEntry(source="measured", usage=Usage(input_tokens=2**64 - 1), cost_femto_usd=2**90)
    journal = Journal(tmp_path / "journal")
    assert journal.keep(Settlement(request_id="a", mode=SettleMode.UNBACKED, amounts=(), words=entry.words()))
    journal.close()
