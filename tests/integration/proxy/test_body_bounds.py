"""What an application sends must not shut others out: neither by its size, nor by its shape, nor by its pace."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable

import pytest

from llm_sidecar import body as body_module
from llm_sidecar.budget import BufferBudget
from llm_sidecar.formats import json_body
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import CHAT_PATH, TOKEN, Proxy, Upstream, document, provider, until

Serve = Callable[..., Awaitable[Upstream]]
MEBI = 1024 * 1024


@pytest.fixture
async def proxy(start_proxy: StartProxy, serve: Serve) -> Proxy:
    return await start_proxy(document(provider("p", (await serve()).base_url)))


def budget_of(proxy: Proxy) -> BufferBudget:
    budget = proxy.sidecar._pipeline._budget  # type: ignore[union-attr]
    assert isinstance(budget, BufferBudget)
    return budget


async def begin(proxy: Proxy, length: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send the head of a request that declares a body."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write(f"{head}Content-Length: {length}\r\n\r\n".encode())
    await writer.drain()
    return reader, writer


async def test_bodies_that_are_only_declared_shut_nobody_out(proxy: Proxy) -> None:
    writers = [(await begin(proxy, 32 * MEBI))[1] for _ in range(5)]
    await proxy.is_well()
    assert budget_of(proxy).held_bytes == 0
    for writer in writers:
        writer.close()
    await proxy.last_audit_line(6)


async def test_a_body_holds_what_has_come_of_it(proxy: Proxy) -> None:
    _, writer = await begin(proxy, 32 * MEBI)
    writer.write(bytes(MEBI))
    await until(lambda: budget_of(proxy).held_bytes == MEBI)
    writer.write(bytes(MEBI))
    await until(lambda: budget_of(proxy).held_bytes == 2 * MEBI)
    writer.close()
    await until(lambda: budget_of(proxy).held_bytes == 0)


async def test_a_body_that_comes_too_slowly_as_a_whole_gets_a_408(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Although its pieces follow each other well within the idle bound."""
    monkeypatch.setattr(body_module, "TOTAL_SECONDS", 0.1)
    reader, writer = await begin(proxy, MEBI)
    answer = asyncio.ensure_future(reader.readuntil(b"}}"))

    def one_more_byte() -> bool:
        if not answer.done():
            writer.write(b" ")
        return answer.done()

    await until(one_more_byte)
    told = await answer
    writer.close()
    assert told.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in told
    assert b"not complete within 0.1 seconds" in told
    await until(lambda: budget_of(proxy).held_bytes == 0)
    await proxy.is_well()


async def test_a_body_that_would_fill_the_memory_once_parsed_is_a_413_and_is_not_parsed(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b'{"model":"m","messages":[' + b"[]," * (2 * MEBI) + b"[]]}"
    with monkeypatch.context() as patch:
        patch.delattr(json_body, "orjson")
        reply = await proxy.ask("POST", CHAT_PATH, data=io.BytesIO(data))
    assert (reply.status, reply.code) == (413, "body_too_large")
    assert "once parsed" in reply.json()["error"]["message"]
    await proxy.is_well()


async def test_more_keys_than_any_request_has_are_a_400(proxy: Proxy) -> None:
    data = b'{"model":"m",%b}' % b",".join(b'"k%d":1' % number for number in range(15_000))
    reply = await proxy.ask("POST", CHAT_PATH, data=data)
    assert (reply.status, reply.code) == (400, "malformed_request")
    assert "256 keys" in reply.json()["error"]["message"]
    await proxy.is_well()
