"""The faulty link: it cuts where it was told to, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from tests.accounting.fault_proxy import Cut, FaultProxy


@dataclass(slots=True)
class Echo:
    """Answers everything with the same bytes, and keeps them."""

    port: int
    heard: bytearray = field(default_factory=bytearray)


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            while data := await reader.read(100):
                served.heard += data
                writer.write(data.upper())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    served = Echo(server.sockets[0].getsockname()[1])
    async with server:
        yield served


async def said(proxy: FaultProxy, data: bytes) -> bytes:
    """What comes back until the connection ends, or is as long as what was said."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(data)
    answer = bytearray()
    async with asyncio.timeout(5):
        try:
            while len(answer) < len(data) and (piece := await reader.read(100)):
                answer += piece
        except ConnectionResetError:
            pass
    writer.transport.abort()
    return bytes(answer)


@pytest.mark.parametrize(
    ("cut", "heard", "answer"),
    [
        (Cut("reply"), b"command", b""),
        (Cut("reply", 3), b"command", b"COM"),
        (Cut("command"), b"", b""),
        (Cut("command", 4), b"comm", b""),
    ],
    ids=["before the reply", "within the reply", "before the command", "within the command"],
)
async def test_a_connection_is_cut_once_and_at_the_byte(echo: Echo, cut: Cut, heard: bytes, answer: bytes) -> None:
    async with FaultProxy(echo.port).listening() as proxy:
        proxy.arm(cut)
        first = await said(proxy, b"command")
        second = await said(proxy, b"another")

    assert first in {answer, b""} if cut.place == "reply" else first == answer  # a reset may overtake the last bytes
    assert bytes(echo.heard) == heard + b"another"
    assert second == b"ANOTHER"
    assert proxy.cuts == 1


async def test_what_is_held_up_comes_when_the_link_flows_again(echo: Echo) -> None:
    async with FaultProxy(echo.port).listening() as proxy:
        proxy.freeze()
        saying = asyncio.create_task(said(proxy, b"command"))
        await asyncio.sleep(0)
        assert not echo.heard
        proxy.thaw()

        assert await saying == b"COMMAND"


async def test_what_was_held_up_in_a_dropped_connection_never_comes(echo: Echo) -> None:
    async with FaultProxy(echo.port).listening() as proxy:
        proxy.freeze()
        saying = asyncio.create_task(said(proxy, b"command"))
        async with asyncio.timeout(5):
            while not proxy._connections:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.001)
        proxy.drop()
        proxy.thaw()

        assert await saying == b""
    assert not echo.heard
