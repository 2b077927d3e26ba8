"""Who fails again and again is left alone, tried by one request, and gets its traffic back bit by bit."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    Answer,
    Proxy,
    Reply,
    Upstream,
    document,
    error,
    plain,
    provider,
    streaming,
    until,
)
from tests.integration.proxy.wire import CHAT_CONTENT

Serve = Callable[..., Awaitable[Upstream]]

ONCE = {"maxAttempts": 1}
OPEN = 2


class Switched:
    """Answers as it is told at the moment."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer

    async def __call__(self, request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        return await self.answer(request, body)


async def two(start_proxy: StartProxy, first: Upstream, second: Upstream, **circuit: int) -> Proxy:
    return await start_proxy(
        document(
            provider("first", first.base_url, retry=ONCE, circuitBreaker=circuit),
            provider("second", second.base_url, priority=1, retry=ONCE),
        )
    )


async def why_skipped(proxy: Proxy, reply: Reply) -> list[str]:
    return [one["reason"] for one in (await proxy.audit_line(reply.request_id)).get("skipped", [])]


async def opened(proxy: Proxy, failures: int) -> None:
    for _ in range(failures):
        await proxy.chat()
    assert proxy.metric("llm_circuit_state", provider="first", model="m") == OPEN


async def until_answered_by_first(proxy: Proxy, *, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while True:
            reply = await proxy.chat()
            assert reply.status == 200
            if reply.headers["x-llm-sidecar-provider"] == "first":
                return
            await asyncio.sleep(0.02)


async def test_after_so_many_failures_in_a_row_it_is_not_asked(start_proxy: StartProxy, serve: Serve) -> None:
    first, second = await serve(error(500)), await serve()
    proxy = await two(start_proxy, first, second, failureThreshold=3, openSeconds=30)

    await opened(proxy, 3)
    replies = [await proxy.chat() for _ in range(5)]

    assert {(reply.status, reply.headers["x-llm-sidecar-attempts"]) for reply in replies} == {(200, "1")}
    assert len(first.seen) == 3
    assert await why_skipped(proxy, replies[0]) == ["circuit_open"]


async def test_an_answer_between_failures_keeps_it_closed(start_proxy: StartProxy, serve: Serve) -> None:
    switched = Switched(error(500))
    first, second = await serve(switched), await serve()
    proxy = await two(start_proxy, first, second, failureThreshold=2, openSeconds=30)

    for _ in range(3):
        switched.answer = error(500)
        await proxy.chat()
        switched.answer = plain()
        await proxy.chat()

    assert len(first.seen) == 6
    assert proxy.metric("llm_circuit_state", provider="first", model="m") == 0


async def test_another_model_of_the_same_provider_is_asked_all_the_same(start_proxy: StartProxy, serve: Serve) -> None:
    first = await serve(error(500))
    proxy = await start_proxy(
        document(
            provider(
                "first",
                first.base_url,
                models=["m", "m2"],
                retry=ONCE,
                circuitBreaker={"failureThreshold": 1, "openSeconds": 30},
            )
        )
    )

    await opened(proxy, 1)

    assert (await proxy.chat(model="m2")).status == 500
    assert len(first.seen) == 2


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_limits_keys_and_wrong_requests_open_nothing(start_proxy: StartProxy, serve: Serve, status: int) -> None:
    first, second = await serve(error(status)), await serve()
    proxy = await two(start_proxy, first, second, failureThreshold=1, openSeconds=30)

    for _ in range(4):
        await proxy.chat()

    assert len(first.seen) == 4


async def test_a_stream_that_breaks_after_its_first_content_counts(start_proxy: StartProxy, serve: Serve) -> None:
    first, second = await serve(streaming(*CHAT_CONTENT)), await serve(streaming(*CHAT_CONTENT))
    proxy = await two(start_proxy, first, second, failureThreshold=2, openSeconds=30)

    for _ in range(2):
        assert (await proxy.chat(stream=True)).status == 200

    await until(lambda: proxy.metric("llm_circuit_state", provider="first", model="m") == OPEN)


async def test_an_application_that_hangs_up_opens_nothing(start_proxy: StartProxy, serve: Serve) -> None:
    async def silent(_request: Any, _body: bytes) -> Any:
        await asyncio.Event().wait()

    first, second = await serve(silent), await serve()
    proxy = await two(start_proxy, first, second, failureThreshold=1, openSeconds=30)

    for count in range(1, 4):
        task = asyncio.ensure_future(proxy.chat())
        await until(lambda count=count: len(first.seen) == count)  # type: ignore[misc]
        task.cancel()
        await proxy.last_audit_line(count)

    assert proxy.metric("llm_circuit_state", provider="first", model="m") == 0


async def test_half_open_a_single_request_tries(start_proxy: StartProxy, serve: Serve) -> None:
    switched, go_on = Switched(error(500)), asyncio.Event()
    first, second = await serve(switched), await serve()
    proxy = await two(start_proxy, first, second, failureThreshold=1, openSeconds=1)
    await opened(proxy, 1)

    async def late(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        await go_on.wait()
        return await plain()(request, body)

    switched.answer = late
    probes: list[asyncio.Task[Reply]] = []
    async with asyncio.timeout(5):
        while len(first.seen) < 2:  # until `openSeconds` are over, all go to the second
            probes.append(asyncio.ensure_future(proxy.chat()))
            await asyncio.wait(probes[-1:], timeout=0.1)
    others = await asyncio.gather(*(proxy.chat() for _ in range(5)))
    assert {reply.headers["x-llm-sidecar-provider"] for reply in others} == {"second"}
    assert await why_skipped(proxy, others[0]) == ["circuit_probing"]
    assert len(first.seen) == 2
    assert proxy.metric("llm_circuit_state", provider="first", model="m") == 1

    go_on.set()

    assert (await probes[-1]).headers["x-llm-sidecar-provider"] == "first"
    assert proxy.metric("llm_circuit_state", provider="first", model="m") == 0


async def test_a_failed_probe_leaves_it_open_as_long_again(start_proxy: StartProxy, serve: Serve) -> None:
    first, second = await serve(error(500)), await serve()
    proxy = await two(start_proxy, first, second, failureThreshold=3, openSeconds=1)
    await opened(proxy, 3)

    async with asyncio.timeout(5):
        while len(first.seen) < 4:
            assert (await proxy.chat()).status == 200
            await asyncio.sleep(0.02)

    assert proxy.metric("llm_circuit_state", provider="first", model="m") == OPEN
    assert await why_skipped(proxy, await proxy.chat()) == ["circuit_open"]


async def test_a_recovered_provider_is_back_in_time_and_bit_by_bit(start_proxy: StartProxy, serve: Serve) -> None:
    open_seconds = 2
    switched = Switched(error(500))
    first, second = await serve(switched), await serve()
    proxy = await two(start_proxy, first, second, failureThreshold=1, openSeconds=open_seconds)
    await opened(proxy, 1)
    opened_at = time.monotonic()
    switched.answer = plain()

    async def ask() -> str:
        reply = await proxy.chat()
        assert reply.status == 200
        return reply.headers["x-llm-sidecar-provider"]

    await until_answered_by_first(proxy, seconds=open_seconds + 2)
    assert time.monotonic() - opened_at >= open_seconds - 0.1
    assert "second" in [await ask() for _ in range(20)]

    async with asyncio.timeout(open_seconds + 5):  # until its share is whole again
        while [await ask() for _ in range(20)].count("second"):
            pass


async def test_a_recovering_provider_is_asked_where_nobody_else_answers(start_proxy: StartProxy, serve: Serve) -> None:
    """To spare it is no reason to answer nobody."""
    first_switch, second_switch = Switched(error(500)), Switched(plain())
    first, second = await serve(first_switch), await serve(second_switch)
    proxy = await two(start_proxy, first, second, failureThreshold=1, openSeconds=1)
    await opened(proxy, 1)
    first_switch.answer = plain()
    await until_answered_by_first(proxy, seconds=5)

    second_switch.answer = error(500)
    replies = [await proxy.chat() for _ in range(10)]

    assert {(reply.status, reply.headers["x-llm-sidecar-provider"]) for reply in replies} == {(200, "first")}
    for reply in replies:
        skipped = (await proxy.audit_line(reply.request_id)).get("skipped", [])
        assert "first" not in {one["provider"] for one in skipped}, "it was spared at first, and asked after all"


async def test_where_all_circuits_are_open_the_application_learns_when_to_come_again(
    start_proxy: StartProxy, serve: Serve
) -> None:
    first = await serve(error(500))
    proxy = await start_proxy(
        document(
            provider("first", first.base_url, retry=ONCE, circuitBreaker={"failureThreshold": 1, "openSeconds": 30})
        )
    )
    await opened(proxy, 1)

    reply = await proxy.chat()

    assert (reply.status, reply.code) == (503, "no_provider_available")
    assert 25 <= int(reply.headers["retry-after"]) <= 30
    assert b"first was not asked: circuit_open" in reply.body
    assert len(first.seen) == 1
