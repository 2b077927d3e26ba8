"""Real servers of each kind, and stores on them that are closed after the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from functools import partial
from typing import Final, Protocol

import pytest
import uvloop

from llm_sidecar.redis_connection import RedisConnection, packed
from llm_sidecar.redis_kinds import make_store
from llm_sidecar.redis_store import ServerVerbs
from llm_sidecar.store import Reply, SharedStore
from tests.integration.background import in_background
from tests.integration.store.servers import REDIS, Server, Servers, cluster, sentinel, single


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One suite over both: production runs on uvloop, and where there is none on asyncio's own."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


needs_redis: Final = pytest.mark.needs("redis-server")

KINDS: Final[dict[str, Callable[[], AbstractAsyncContextManager[Servers]]]] = {
    "valkey": single,
    "redis-tls": partial(single, program=REDIS, tls=True, password="open sesame/:@"),
    "valkey-sentinel": partial(sentinel, password="open sesame"),
    "redis-sentinel": partial(sentinel, program=REDIS),
    "valkey-cluster": cluster,
    "redis-cluster-tls": partial(cluster, program=REDIS, tls=True, password="open sesame"),
}
"""Everything a store may be on: both programs, each kind, with TLS and passwords somewhere."""

every_kind: Final = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=needs_redis if "redis" in kind else ()) for kind in KINDS]
)


async def command(store: SharedStore, *words: str | int | bytes) -> Reply:
    """Any command, for what the store's own verbs do not reach. On one server."""
    assert isinstance(store, ServerVerbs)
    return await store._call(packed(*words))


def connection_of(store: SharedStore) -> RedisConnection | None:
    """The one connection of a store on one server."""
    assert isinstance(store, ServerVerbs)
    return store._connection


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens by itself, at most for twenty seconds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.002)


async def until_done(attempt: Callable[[], Awaitable[object]], failure: type[Exception]) -> None:
    """Repeat what fails until it does not, at most for twenty seconds."""
    async with asyncio.timeout(20):
        while True:
            try:
                await attempt()
            except failure:
                await asyncio.sleep(0.01)
            else:
                return


class OpenStore(Protocol):
    """Makes stores that are closed after the test. Their time-out is long: this machine may be busy."""

    def __call__(self, servers: Servers | str, **options: object) -> SharedStore:
        """On these servers, or by a URL. Options are those of `make_store`."""
        ...


@pytest.fixture
async def valkey() -> AsyncIterator[Server]:
    """One Valkey that the test may pause, end and start again."""
    async with single() as servers:
        yield servers.nodes[0]


@pytest.fixture
async def open_store() -> AsyncIterator[OpenStore]:
    async with AsyncExitStack() as stack:

        def make(servers: Servers | str, **options: object) -> SharedStore:
            if isinstance(servers, Servers):
                options.setdefault("ca_bundle", servers.ca_pem)
            options.setdefault("timeout_seconds", 2.0)
            url = servers if isinstance(servers, str) else servers.url
            store = make_store(url, **options)  # type: ignore[arg-type]
            stack.push_async_callback(store.close)
            return store

        yield make


@pytest.fixture(scope="session")
def started() -> Iterator[Callable[[str], Servers]]:
    """Servers of a kind, started when first asked for and kept for all tests. Leave them as they were."""
    running: dict[str, Servers] = {}
    with ExitStack() as stack:

        def start(kind: str) -> Servers:
            if kind not in running:
                running[kind] = stack.enter_context(in_background(KINDS[kind]()))
            return running[kind]

        yield start


@pytest.fixture
def servers(kind: str, started: Callable[[str], Servers]) -> Servers:
    """The servers of the test's kind (mark it with `every_kind`), shared with other tests."""
    return started(kind)
