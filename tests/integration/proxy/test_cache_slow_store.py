"""A store that does not answer any more costs one request its time-out, once, and nobody else anything."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import redis

from llm_sidecar.embedded_store import embedded_store
from tests.integration.background import in_background
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Proxy, Upstream
from tests.integration.proxy.test_cache import cached, twice

Serve = Callable[..., Awaitable[Upstream]]
TIMEOUT_SECONDS = 0.05


@pytest.fixture
def own_store() -> Iterator[str]:
    with in_background(embedded_store()) as url:
        yield url


@pytest.fixture
def paused(own_store: str) -> Iterator[Callable[[], None]]:
    """Stops the store, where it stands, until the end of the test."""
    with redis.Redis.from_url(own_store) as client:
        process = int(client.info("server")["process_id"])
    try:
        yield lambda: os.kill(process, signal.SIGSTOP)
    finally:
        os.kill(process, signal.SIGCONT)


async def seconds_of(proxy: Proxy, number: int) -> float:
    began = time.perf_counter()
    reply = await proxy.chat(temperature=0, seed=number)
    assert (reply.status, reply.headers["x-llm-sidecar-cache"]) == (200, "miss")
    return time.perf_counter() - began


async def test_only_the_first_request_waits_for_a_store_that_hangs(
    start_proxy: StartProxy, serve: Serve, own_store: str, paused: Callable[[], None]
) -> None:
    proxy = await cached(start_proxy, own_store, await serve())
    _, hit = await twice(proxy, own_store, temperature=0)
    assert hit.headers["x-llm-sidecar-cache"] == "hit"
    paused()

    first, *others = [await seconds_of(proxy, number) for number in range(20)]

    assert first >= TIMEOUT_SECONDS
    assert sum(one >= TIMEOUT_SECONDS for one in others) == 0, others


async def test_a_store_that_goes_on_is_used_again(
    start_proxy: StartProxy, serve: Serve, own_store: str, paused: Callable[[], None]
) -> None:
    proxy = await cached(start_proxy, own_store, await serve())
    await twice(proxy, own_store, temperature=0)
    with redis.Redis.from_url(own_store) as client:
        process = int(client.info("server")["process_id"])
    paused()
    await seconds_of(proxy, 1)
    os.kill(process, signal.SIGCONT)
    results: list[str] = []

    async with asyncio.timeout(10):
        while "hit" not in results:
            results.append((await proxy.chat(temperature=0, seed=2)).headers["x-llm-sidecar-cache"])
