"""The queue of what to look at next, in virtual time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from llm_operator.kube import ApiError
from llm_operator.reconcile.queue import TryAgain, WorkQueue, described

pytestmark = pytest.mark.looptime


def _queue() -> WorkQueue[str]:
    return WorkQueue(asyncio.get_running_loop().time)


@contextlib.asynccontextmanager
async def _working(
    queue: WorkQueue[str], handle: Callable[[str], Awaitable[None]], *, workers: int = 2
) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(queue.work(handle)) for _ in range(workers)]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_key_marked_often_is_handled_once() -> None:
    queue, handled = _queue(), list[str]()

    async def handle(key: str) -> None:
        handled.append(key)

    for _ in range(10):
        queue.mark("a")
        queue.mark("b", delay_seconds=1)
    async with _working(queue, handle):
        await asyncio.sleep(5)

    assert handled == ["a", "b"]
    assert len(queue) == 0


async def test_a_key_marked_while_it_is_handled_is_handled_again_afterwards() -> None:
    queue, running, most = _queue(), list[str](), list[int]()

    async def handle(key: str) -> None:
        running.append(key)
        most.append(len(running))
        if len(most) == 1:
            queue.mark("a")
        await asyncio.sleep(1)
        running.remove(key)

    queue.mark("a")
    async with _working(queue, handle):
        await asyncio.sleep(5)

    assert most == [1, 1]


async def test_the_earlier_of_two_times_counts() -> None:
    queue, clock = _queue(), asyncio.get_running_loop().time
    began, handled = clock(), list[float]()

    async def handle(_key: str) -> None:
        handled.append(round(clock() - began, 2))

    queue.mark("a", delay_seconds=100)
    queue.mark("a", delay_seconds=2)
    queue.mark("a", delay_seconds=50)
    async with _working(queue, handle):
        await asyncio.sleep(200)

    assert handled == [2]


async def test_what_fails_comes_back_later_and_later_and_holds_up_no_other() -> None:
    queue, clock = _queue(), asyncio.get_running_loop().time
    began, handled = clock(), list[tuple[str, int]]()

    async def handle(key: str) -> None:
        handled.append((key, round(clock() - began)))
        if key == "bad":
            raise ApiError(500, "InternalError")

    queue.mark("bad")
    queue.mark("good", delay_seconds=3)
    async with _working(queue, handle, workers=1):
        await asyncio.sleep(20)

    assert [at for key, at in handled if key == "bad"] == [0, 0, 2, 4, 8, 16]
    assert ("good", 3) in handled


async def test_the_api_servers_own_pause_is_obeyed() -> None:
    queue, handled = _queue(), list[str]()

    async def handle(key: str) -> None:
        handled.append(key)
        raise ApiError(429, "TooManyRequests", retry_after_seconds=30)

    queue.mark("a")
    async with _working(queue, handle):
        await asyncio.sleep(29)
        assert handled == ["a"]
        await asyncio.sleep(2)

    assert handled == ["a", "a"]


async def test_what_is_not_there_yet_is_no_failure() -> None:
    queue, handled = _queue(), list[str]()

    async def handle(key: str) -> None:
        handled.append(key)
        if len(handled) < 4:
            raise TryAgain(1)

    queue.mark("a")
    async with _working(queue, handle):
        await asyncio.sleep(3.5)

    assert len(handled) == 4


def test_an_error_that_may_quote_a_secret_is_told_by_its_kind_alone() -> None:
    with pytest.raises(ValueError, match="sk-secret") as caught:
        raise ValueError("sk-secret")

    assert described(caught.value).startswith("ValueError (test_queue.py, line ")
    assert described(ApiError(403, "Forbidden")) == "the API server answered 403 Forbidden"
