"""A failure that may pass is tried again at the same provider: after a pause, within a budget, by one owner."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest
from aiohttp import web

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_ANSWER,
    TOKEN,
    Answer,
    Upstream,
    document,
    error,
    plain,
    provider,
    streaming,
)
from tests.integration.proxy.wire import CHAT_STREAM, OPENING

Serve = Callable[..., Awaitable[Upstream]]

SOON = {"maxAttempts": 3, "initialBackoffMilliseconds": 1}


def in_turn(*answers: Answer) -> Answer:
    """One after the other; the last one for ever."""
    left = list(answers)

    async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        return await (left.pop(0) if len(left) > 1 else left[0])(request, body)

    return answer


@pytest.mark.parametrize("status", [429, 500, 502, 503, 529])
async def test_a_failure_that_passes_is_tried_again_at_the_same_provider(
    start_proxy: StartProxy, serve: Serve, status: int
) -> None:
    upstream = await serve(in_turn(error(status), error(status), plain()))
    proxy = await start_proxy(document(provider("p", upstream.base_url, retry=SOON)))

    reply = await proxy.chat()

    assert (reply.status, reply.body) == (200, CHAT_ANSWER)
    assert (reply.headers["x-llm-sidecar-attempts"], len(upstream.seen)) == ("3", 3)
    assert proxy.metric("llm_retries_total", provider="p") == 2
    assert proxy.metric("llm_failovers_total") == 0
    attempts = (await proxy.audit_line(reply.request_id))["attempts"]
    assert [one["status"] for one in attempts] == [status, status, 200]
    assert {one["model"] for one in attempts} == {"m"}


async def test_a_stream_is_tried_again_before_its_first_content(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve(in_turn(streaming(OPENING), streaming(OPENING, cut=True), streaming(*CHAT_STREAM)))
    proxy = await start_proxy(document(provider("p", upstream.base_url, retry=SOON)))

    reply = await proxy.chat(stream=True, stream_options={"include_usage": True})

    assert (reply.status, reply.body, len(upstream.seen)) == (200, b"".join(CHAT_STREAM), 3)


@pytest.mark.parametrize(
    "hint", [{"retry_after_ms": "250"}, {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "250ms"}]
)
async def test_the_wait_is_never_shorter_than_the_provider_asks_for(
    start_proxy: StartProxy, serve: Serve, hint: dict[str, str]
) -> None:
    upstream = await serve(in_turn(plain(b"{}", status=429, **hint), plain()))
    proxy = await start_proxy(document(provider("p", upstream.base_url, retry=SOON)))

    began = time.monotonic()
    reply = await proxy.chat()

    assert reply.status == 200
    assert time.monotonic() - began >= 0.25
    first, second = (await proxy.audit_line(reply.request_id))["attempts"]
    assert "waited_ms" not in first
    assert second["waited_ms"] >= 250


async def test_who_asks_for_a_longer_wait_than_ours_is_left_for_the_next(start_proxy: StartProxy, serve: Serve) -> None:
    busy, good = await serve(plain(b"{}", status=429, retry_after="30")), await serve()
    policy = {"maxAttempts": 3, "maxBackoffSeconds": 1}
    proxy = await start_proxy(
        document(provider("busy", busy.base_url, retry=policy), provider("good", good.base_url, priority=1))
    )

    reply = await asyncio.wait_for(proxy.chat(), 5)

    assert (reply.status, reply.headers["x-llm-sidecar-provider"], len(busy.seen)) == (200, "good", 1)


async def test_where_nobody_else_is_left_the_application_learns_how_long_to_wait(
    start_proxy: StartProxy, serve: Serve
) -> None:
    busy = await serve(plain(b'{"error":{"message":"slower"}}', status=429, retry_after="30"))
    proxy = await start_proxy(document(provider("busy", busy.base_url)))

    reply = await asyncio.wait_for(proxy.chat(), 5)

    assert (reply.status, reply.headers["retry-after"], len(busy.seen)) == (429, "30", 1)


async def test_after_its_attempts_the_next_provider_is_asked(start_proxy: StartProxy, serve: Serve) -> None:
    bad, good = await serve(error(500)), await serve()
    proxy = await start_proxy(
        document(provider("bad", bad.base_url, retry=SOON), provider("good", good.base_url, priority=1))
    )

    reply = await proxy.chat()

    assert (reply.headers["x-llm-sidecar-provider"], len(bad.seen), len(good.seen)) == ("good", 3, 1)
    assert proxy.metric("llm_retries_total", provider="bad", reason="server") == 2
    assert proxy.metric("llm_failovers_total", reason="server", to="good") == 1


async def test_an_overloaded_provider_is_left_alone_while_another_is_there(
    start_proxy: StartProxy, serve: Serve
) -> None:
    bad, good = await serve(error(529)), await serve()
    proxy = await start_proxy(
        document(provider("bad", bad.base_url, retry=SOON), provider("good", good.base_url, priority=1))
    )

    assert (await proxy.chat()).status == 200
    assert len(bad.seen) == 1


@pytest.mark.parametrize(("on_timeout", "asked"), [(False, 1), (True, 2)])
async def test_a_timeout_is_retried_only_where_that_is_wanted(
    start_proxy: StartProxy, serve: Serve, on_timeout: bool, asked: int
) -> None:
    async def silent(_request: Any, _body: bytes) -> Any:
        await asyncio.Event().wait()

    upstream = await serve(silent)
    policy = {"maxAttempts": 2, "initialBackoffMilliseconds": 1, "onTimeout": on_timeout}
    proxy = await start_proxy(document(provider("p", upstream.base_url, retry=policy, timeouts={"responseSeconds": 1})))

    assert (await proxy.chat()).code == "no_provider_available"
    assert len(upstream.seen) == asked


async def test_retries_of_an_sdk_are_not_multiplied(start_proxy: StartProxy, serve: Serve) -> None:
    """Three attempts for the SDK's first, one for each of its own two retries: five, not nine."""
    body = b'{"error":{"message":"no","type":"server_error","code":null,"param":null}}'
    upstream = await serve(plain(body, status=500, retry_after_ms="10"))
    spec = {"retry": SOON, "circuitBreaker": {"failureThreshold": 1000}}
    proxy = await start_proxy(document(provider("p", upstream.base_url, **spec)))

    async with openai.AsyncOpenAI(base_url=f"{proxy.base_url}/v1", api_key=TOKEN, max_retries=2) as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "ping"}])

    assert [seen.headers["x-stainless-retry-count"] for seen in upstream.seen] == ["0", "0", "0", "1", "2"]
    counts = [line.get("sdk_retry_count", 0) for line in (await proxy.last_audit_line(3), *proxy.audit_lines())[1:]]
    assert counts == [0, 1, 2]


async def test_a_budget_bounds_all_retries_at_one_provider(start_proxy: StartProxy, serve: Serve) -> None:
    """Ten at once, one for five requests, one for two seconds: not two for each request."""
    upstream = await serve(error(500))
    spec = {"retry": SOON, "circuitBreaker": {"failureThreshold": 1000}}
    proxy = await start_proxy(document(provider("p", upstream.base_url, **spec)))

    began = time.monotonic()
    for _ in range(40):
        assert (await proxy.chat()).status == 500
    took_seconds = time.monotonic() - began

    retries = len(upstream.seen) - 40
    assert 10 <= retries <= 10 + 0.2 * 40 + 0.5 * took_seconds
    assert proxy.metric("llm_retries_total", provider="p", reason="server") == retries
