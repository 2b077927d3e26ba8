"""A slow store: who was under way waits for one time-out, and nobody else for anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from llm_sidecar.cache.answers import FIND
from llm_sidecar.cache.look_ups import TRY_AGAIN_SECONDS, LookUps
from llm_sidecar.store import Reply, Script, Store, StoreUnavailable

pytestmark = pytest.mark.looptime
TIMEOUT_SECONDS = 0.05


class Shelf:
    """Answers at once, or not in time."""

    def __init__(self) -> None:
        self.available = True
        self.is_slow = False
        self.asked = 0

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        self.asked += 1
        if not self.available:
            raise StoreUnavailable("connection", maybe_executed=False)
        if self.is_slow:
            await asyncio.sleep(TIMEOUT_SECONDS)
            raise StoreUnavailable("timeout")
        return b"found"


def slow() -> tuple[Shelf, LookUps]:
    """A store that has become slow, and nobody knows it yet."""
    shelf = Shelf()
    shelf.is_slow = True
    return shelf, LookUps(cast("Store", shelf))


async def look(look_ups: LookUps) -> tuple[Reply, float]:
    """What was found, None for nothing, and how long it took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        found = await look_ups.run(FIND, (), ())
    except StoreUnavailable:
        found = None
    return found, round(clock() - began, 6)


async def test_after_one_time_out_nobody_waits() -> None:
    shelf, look_ups = slow()
    assert set(await asyncio.gather(look(look_ups), look(look_ups))) == {(None, TIMEOUT_SECONDS)}
    for _ in range(50):
        assert await look(look_ups) == (None, 0.0)
        await asyncio.sleep(0.1)
    assert 2 < shelf.asked <= 2 + 5 / TRY_AGAIN_SECONDS


async def test_it_is_believed_again_as_soon_as_it_answers_though_nobody_asks() -> None:
    """The next request may come an hour later, and its answer be there."""
    shelf, look_ups = slow()
    await look(look_ups)
    shelf.is_slow = False
    await asyncio.sleep(TRY_AGAIN_SECONDS * 1.1)
    assert await look(look_ups) == (b"found", 0.0)
    asked = shelf.asked
    await asyncio.sleep(60)
    assert shelf.asked == asked


async def test_a_write_that_succeeds_shows_that_it_is_no_longer_slow() -> None:
    shelf, look_ups = slow()
    await look(look_ups)
    shelf.is_slow = False
    look_ups.heard()
    assert await look(look_ups) == (b"found", 0.0)


async def test_one_that_is_away_is_asked_each_time_for_it_answers_at_once() -> None:
    shelf, look_ups = slow()
    await look(look_ups)
    shelf.available = False
    await asyncio.sleep(TRY_AGAIN_SECONDS * 2.2)
    assert await look(look_ups) == (None, 0.0)
    shelf.available, shelf.is_slow = True, False
    assert await look(look_ups) == (b"found", 0.0)
