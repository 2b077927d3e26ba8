"""What a provider grants each minute is shared by all proxies: taken for each attempt, given back where unused."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import redis

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Proxy, Upstream, chat_body, document, error, provider, until

Serve = Callable[..., Awaitable[Upstream]]

ONCE = {"maxAttempts": 1}
AWAY = "redis://127.0.0.1:1"


async def limited(
    start_proxy: StartProxy, store_url: str, base_url: str, spare: Upstream | None, **rates: int
) -> Proxy:
    providers = [provider("first", base_url, retry=ONCE, rateLimits=rates)]
    if spare is not None:
        providers.append(provider("spare", spare.base_url, priority=1, retry=ONCE))
    return await start_proxy(document(*providers, store_url=store_url))


def left(store_url: str, field: str) -> float:
    """What is left of the first provider's requests (`r`) or tokens (`t`) as it was written last."""
    with redis.Redis.from_url(store_url) as client:
        key = next(iter(client.keys("*{llm-system/first}:provider:rate")))
        return float(client.hget(key, field) or "nan")


async def test_two_proxies_share_what_one_provider_grants(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    first, spare = await serve(), await serve()
    proxies = [await limited(start_proxy, store_url, first.base_url, spare, requestsPerMinute=10) for _ in range(2)]

    replies = [await proxies[number % 2].chat() for number in range(20)]

    assert {reply.status for reply in replies} == {200}
    assert 10 <= len(first.seen) <= 11  # one comes back every six seconds
    assert len(first.seen) + len(spare.seen) == 20
    last = await proxies[1].audit_line(replies[-1].request_id)
    assert last["skipped"] == [{"provider": "first", "model": "m", "reason": "rate_limits_used_up"}]
    assert [one["provider"] for one in last["attempts"]] == ["spare"]


async def test_at_once_no_more_are_let_through_than_are_granted(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    first, spare = await serve(), await serve()
    proxies = [await limited(start_proxy, store_url, first.base_url, spare, requestsPerMinute=10) for _ in range(2)]

    await asyncio.gather(*(proxy.chat() for proxy in proxies for _ in range(15)))

    assert 10 <= len(first.seen) <= 11


async def test_tokens_that_were_not_used_are_given_back(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    """Each takes some thousand ahead and uses ten: only because the rest comes back do ten fit into three thousand."""
    first, spare = await serve(), await serve()
    proxy = await limited(start_proxy, store_url, first.base_url, spare, tokensPerMinute=3000)

    for number in range(1, 11):
        assert (await proxy.chat()).headers["x-llm-sidecar-provider"] == "first"
        await until(lambda number=number: left(store_url, "t") >= 3000 - 10 * number)  # type: ignore[misc]

    assert not spare.seen


async def test_tokens_that_were_used_are_gone(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    first, spare = await serve(), await serve()
    proxy = await limited(start_proxy, store_url, first.base_url, spare, tokensPerMinute=2000)

    await proxy.chat()

    await until(lambda: left(store_url, "t") == 1990)


async def test_a_request_that_never_reached_the_provider_is_given_back(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    spare = await serve()
    proxy = await limited(start_proxy, store_url, "http://127.0.0.1:1", spare, requestsPerMinute=1)

    for _ in range(3):
        reply = await proxy.chat()
        line = await proxy.audit_line(reply.request_id)
        assert [one["outcome"] for one in line["attempts"]] == ["connection", "answered"]
        await until(lambda: left(store_url, "r") >= 1)


async def test_a_failed_request_that_reached_the_provider_counts(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    first, spare = await serve(error(500)), await serve()
    proxy = await limited(start_proxy, store_url, first.base_url, spare, requestsPerMinute=2, tokensPerMinute=100_000)

    for _ in range(4):
        assert (await proxy.chat()).status == 200

    assert len(first.seen) == 2
    await until(lambda: left(store_url, "t") == 100_000)


async def test_a_retry_waits_for_room(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    """One comes back every 100 ms: worth waiting for."""
    first = await serve()
    spec: dict[str, Any] = {"retry": {"maxAttempts": 3, "initialBackoffMilliseconds": 1}}
    proxy = await start_proxy(
        document(provider("first", first.base_url, rateLimits={"tokensPerMinute": 60_000}, **spec), store_url=store_url)
    )
    with redis.Redis.from_url(store_url) as client:
        await proxy.chat()
        await until(lambda: left(store_url, "t") > 59_000)
        key = next(iter(client.keys("*:provider:rate")))
        client.hincrbyfloat(key, "t", -59_500.0)  # another proxy's

    reply = await proxy.chat()

    assert reply.status == 200
    (attempt,) = (await proxy.audit_line(reply.request_id))["attempts"]
    assert attempt["waited_ms"] > 0


async def test_where_nobody_else_is_left_the_application_learns_when_there_is_room(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    first = await serve()
    proxy = await limited(start_proxy, store_url, first.base_url, None, requestsPerMinute=1)
    assert (await proxy.chat()).status == 200

    reply = await proxy.chat()

    assert (reply.status, reply.code) == (503, "no_provider_available")
    assert 50 <= int(reply.headers["retry-after"]) <= 60
    assert b"first was not asked: rate_limits_used_up" in reply.body
    assert len(first.seen) == 1


async def test_with_the_store_away_attempts_go_ahead(start_proxy: StartProxy, serve: Serve) -> None:
    first = await serve()
    proxy = await limited(start_proxy, AWAY, first.base_url, None, requestsPerMinute=1)

    assert [(await proxy.chat()).status for _ in range(3)] == [200] * 3


async def test_a_request_larger_than_a_minutes_worth_goes_once_the_bucket_is_full(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    first, spare = await serve(), await serve()
    proxy = await limited(start_proxy, store_url, first.base_url, spare, tokensPerMinute=100)

    reply = await proxy.ask("POST", "/v1/chat/completions", data=chat_body(max_tokens=1000))

    assert reply.headers["x-llm-sidecar-provider"] == "first"
