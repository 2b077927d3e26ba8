"""An answer too large to hold is relayed while it arrives; what it spent is still read from its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import orjson
import pytest
from aiohttp import web

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Upstream, document, provider

Serve = Callable[..., Awaitable[Upstream]]

PIECE = b"0.12345678," * 100_000
PIECES = 18
BEGINNING = b'{"object":"list","model":"m","data":[{"object":"embedding","index":0,"embedding":['
REQUEST = orjson.dumps({"model": "m", "input": "a"})


def embeddings(end: bytes, *, cut: bool = False) -> Any:
    async def answer(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/json"})
        await response.prepare(request)
        await response.write(BEGINNING)
        for _ in range(PIECES):
            await response.write(PIECE)
            await asyncio.sleep(0)
        if cut:
            assert request.transport is not None
            request.transport.abort()
            return response
        await response.write(end)
        await response.write_eof()
        return response

    return answer


async def test_it_arrives_whole_is_not_cached_and_its_usage_is_measured(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    end = b'1]}],"usage":{"prompt_tokens":9,"total_tokens":9}}'
    upstream = await serve(embeddings(end))
    proxy = await start_proxy(document(provider("p", upstream.base_url), store_url=store_url, team={}))

    for _ in range(2):
        reply = await proxy.ask("POST", "/v1/embeddings", data=REQUEST)
        assert (reply.status, reply.body) == (200, BEGINNING + PIECE * PIECES + end)
        assert reply.headers["x-llm-sidecar-cache"] == "miss"
        line = await proxy.audit_line(reply.request_id)
        assert (line["usage_source"], line["charged_tokens"]) == ("measured", 9)


async def test_without_usage_at_its_end_the_charge_is_an_estimate(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve(embeddings(b"1]}]}"))
    proxy = await start_proxy(document(provider("p", upstream.base_url)))

    reply = await proxy.ask("POST", "/v1/embeddings", data=REQUEST)

    line = await proxy.audit_line(reply.request_id)
    assert line["usage_source"] == "estimated"


async def test_a_cut_one_reaches_the_application_as_incomplete(start_proxy: StartProxy, serve: Serve) -> None:
    """HTTP has one way to say so after the head: the body's end is missing."""
    upstream = await serve(embeddings(b"", cut=True))
    proxy = await start_proxy(document(provider("p", upstream.base_url)))
    received = bytearray()

    async def receive() -> None:
        async with proxy.open("POST", "/v1/embeddings", data=REQUEST) as response:
            async for piece in response.content.iter_any():
                received.extend(piece)

    with pytest.raises(aiohttp.ClientPayloadError):
        await receive()

    assert len(received) > 16 * 1024 * 1024
    assert (await proxy.last_audit_line())["interrupted"] is True
