"""Limits of every kind, through a proxy: what is asked of whom, what the application is told, what is booked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import redis

from tests.integration.booked import booked
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Proxy, Upstream, document, error, held_back, plain, provider, until
from tests.integration.store.servers import single

Serve = Callable[..., Awaitable[Upstream]]
CHEAP = {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"}
DEAR = {"inputUSDPerMillionTokens": "1000", "outputUSDPerMillionTokens": "1000"}
"""A request of some 40 bytes, answered by 7 and 3 tokens, costs 0.01 USD."""


async def team_of(
    start_proxy: StartProxy, store_url: str, providers: list[Any], *limits: dict[str, Any], **team: Any
) -> Proxy:
    return await start_proxy(document(*providers, store_url=store_url, team={"limits": list(limits), **team}))


async def test_a_cost_limit_books_what_answers_cost(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    upstream = await serve()
    one = provider("p", upstream.base_url, models=[{"name": "m", "pricing": DEAR}])
    proxy = await team_of(start_proxy, store_url, [one], {"name": "budget", "per": "Month", "costUSD": "0.10"})
    reply = await proxy.chat(max_tokens=10)
    assert reply.status == 200
    assert reply.headers["x-llm-sidecar-cost-usd"] == "0.010000000"
    assert reply.headers["x-llm-sidecar-quota-remaining"].startswith("budget=0.0")
    await until(lambda: booked(store_url) == {"budget|used": 10_000_000})

    refused = await proxy.chat(max_tokens=200)
    assert (refused.status, refused.code) == (429, "team_quota_exceeded")
    error = orjson.loads(refused.body)["error"]
    assert "0.01 USD used and 0 reserved of 0.1 per month" in error["message"]
    assert "ask for at most" in error["message"]
    assert error["details"]["unit"] == "nano_usd"
    fitting = error["details"]["fitting_output_tokens"]
    assert (await proxy.chat(max_tokens=fitting - 20)).status == 200
    assert refused.headers["x-should-retry"] == "false"
    assert len(upstream.seen) == 2


async def test_a_model_without_a_price_is_refused_under_a_cost_limit(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = provider("p", (await serve()).base_url)
    budget = {"name": "budget", "per": "Month", "costUSD": "1"}
    refused = await (await team_of(start_proxy, store_url, [one], budget)).chat()
    assert (refused.status, refused.code) == (403, "model_not_allowed")
    assert b"spec.models[].pricing" in refused.body
    allowed = await team_of(start_proxy, store_url, [one], budget, unpricedRequests="Allow")
    assert (await allowed.chat()).status == 200


async def test_only_so_many_requests_run_at_the_same_time(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    gate = asyncio.Event()
    upstream = await serve(held_back(gate, plain()))
    proxy = await team_of(
        start_proxy, store_url, [provider("p", upstream.base_url)], {"name": "parallel", "concurrentRequests": 2}
    )
    running = [asyncio.create_task(proxy.chat()) for _ in range(2)]
    await until(lambda: len(upstream.seen) == 2)
    refused = await proxy.chat()
    assert (refused.status, refused.code) == (429, "team_quota_exceeded")
    assert (refused.headers["retry-after-ms"], refused.headers["x-should-retry"]) == ("1000", "true")
    assert "try again in about 1 s" in refused.json()["error"]["message"]
    gate.set()
    assert [(await one).status for one in running] == [200, 200]
    await until(lambda: booked(store_url) == {})
    assert (await proxy.chat()).status == 200


async def test_near_its_limit_a_team_gets_the_cheaper_model_and_is_told(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    dear, cheap = await serve(), await serve()
    providers = [
        provider("dear", dear.base_url, models=[{"name": "m", "pricing": DEAR}]),
        provider("cheap", cheap.base_url, models=[{"name": "small", "pricing": CHEAP, "downgradeFor": ["m"]}]),
    ]
    budget = {
        "name": "budget",
        "per": "Month",
        "costUSD": "0.1",
        "onExceeded": {"action": "Downgrade", "downgradeAtPercent": 15},
    }
    proxy = await team_of(start_proxy, store_url, providers, budget, cache={"generations": "None"})
    first = await proxy.chat(max_tokens=10)
    await until(lambda: booked(store_url) == {"budget|used": 10_000_000})
    second = await proxy.chat(max_tokens=10)
    await until(lambda: booked(store_url) == {"budget|used": 20_000_000})
    third, fourth = await proxy.chat(max_tokens=10), await proxy.chat(max_tokens=10)
    assert [one.headers["x-llm-sidecar-model"] for one in (first, second, third, fourth)] == [
        "m",
        "m",
        "small",
        "small",
    ]
    assert "x-llm-sidecar-downgraded-from" not in second.headers
    assert third.headers["x-llm-sidecar-downgraded-from"] == "m"
    await until(lambda: booked(store_url) == {"budget|used": 20_020_000})
    assert orjson.loads(cheap.seen[0].body)["model"] == "small"
    assert proxy.metric("llm_quota_downgrades_total", team="payments/payments", to="small") == 2


async def test_a_downgraded_call_falls_back_to_the_model_that_was_asked_for(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    dear, cheap = await serve(), await serve(error(500))
    providers = [
        provider("dear", dear.base_url, models=[{"name": "m", "pricing": DEAR}]),
        provider("cheap", cheap.base_url, models=[{"name": "small", "pricing": CHEAP, "downgradeFor": ["m"]}]),
    ]
    budget = {
        "name": "budget",
        "per": "Month",
        "costUSD": "0.1",
        "onExceeded": {"action": "Downgrade", "downgradeAtPercent": 1},
    }
    proxy = await team_of(start_proxy, store_url, providers, budget, cache={"generations": "None"})
    await proxy.chat(max_tokens=10)
    await until(lambda: booked(store_url) == {"budget|used": 10_000_000})
    reply = await proxy.chat(max_tokens=10)
    assert reply.headers["x-llm-sidecar-model"] == "m"
    assert "x-llm-sidecar-downgraded-from" not in reply.headers
    await until(lambda: booked(store_url) == {"budget|used": 20_000_000})


async def test_failing_over_to_a_dearer_model_reserves_its_price(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    cheap, dear = await serve(error(500)), await serve()
    providers = [
        provider("cheap", cheap.base_url, retry={"maxAttempts": 1}, models=[{"name": "m", "pricing": CHEAP}]),
        provider("dear", dear.base_url, models=[{"name": "big", "pricing": DEAR, "failoverFor": ["m"]}]),
    ]
    budget = {"name": "budget", "per": "Month", "costUSD": "0.1"}
    proxy = await team_of(start_proxy, store_url, providers, budget, cache={"generations": "None"})
    assert (await proxy.chat(max_tokens=10)).headers["x-llm-sidecar-model"] == "big"
    await until(lambda: booked(store_url) == {"budget|used": 10_000_000})

    refused = await proxy.chat(max_tokens=2000)
    assert refused.status == 500  # the only provider's that was asked
    explained = await proxy.ask("GET", f"/_llm-sidecar/explain/{refused.headers['x-llm-sidecar-request-id']}")
    assert explained.json()["skipped"] == [
        {"provider": "dear", "model": "big", "reason": "limit 'budget' has no room for what it may cost"}
    ]
    assert len(dear.seen) == 1
    await until(lambda: booked(store_url) == {"budget|used": 10_000_000})


async def test_a_shadow_limit_refuses_nothing_and_is_counted(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    limit = {"name": "shadow", "per": "Day", "requests": 1, "onExceeded": {"action": "Shadow"}}
    proxy = await team_of(start_proxy, store_url, [provider("p", (await serve()).base_url)], limit)
    replies = [await proxy.chat() for _ in range(3)]
    assert [one.status for one in replies] == [200, 200, 200]
    assert not any("x-llm-sidecar-quota-remaining" in one.headers for one in replies)
    assert proxy.metric("llm_quota_shadow_refusals_total", team="payments/payments", limit="shadow") == 2
    await until(lambda: booked(store_url) == {"shadow|used": 3})


async def test_a_shadow_cost_limit_lets_models_without_a_price_pass(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    limit = {"name": "next-year", "per": "Month", "costUSD": "300", "onExceeded": {"action": "Shadow"}}
    proxy = await team_of(start_proxy, store_url, [provider("p", (await serve()).base_url)], limit)
    assert (await proxy.chat()).status == 200


async def test_a_moment_near_a_limit_of_one_model_passes_and_the_model_is_asked_again(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    gate = asyncio.Event()
    dear, cheap = await serve(held_back(gate, plain())), await serve()
    providers = [
        provider("dear", dear.base_url, models=[{"name": "m", "pricing": DEAR}]),
        provider("cheap", cheap.base_url, models=[{"name": "small", "pricing": CHEAP, "downgradeFor": ["m"]}]),
    ]
    action = {"action": "Downgrade", "downgradeAtPercent": 80}
    budget = {"name": "budget", "per": "Month", "costUSD": "1", "models": ["m"], "onExceeded": action}
    proxy = await team_of(start_proxy, store_url, providers, budget, cache={"generations": "None"})
    large = asyncio.create_task(proxy.chat(max_tokens=850))
    await until(lambda: len(dear.seen) == 1)
    assert (await proxy.chat(max_tokens=10)).headers["x-llm-sidecar-model"] == "small"
    gate.set()
    assert (await large).headers["x-llm-sidecar-model"] == "m"
    async with asyncio.timeout(10):
        while (await proxy.chat(max_tokens=10)).headers["x-llm-sidecar-model"] != "m":  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.05)


async def test_input_that_is_not_in_the_body_is_marked_under_maximum(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    limit = {"name": "strict", "per": "Day", "tokens": 100_000, "reservation": "Maximum"}
    proxy = await team_of(start_proxy, store_url, [provider("p", (await serve()).base_url)], limit)
    await proxy.chat(max_tokens=5)
    assert proxy.metric("llm_quota_unbounded_requests_total", team="payments/payments") in {None, 0}
    image = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    await proxy.chat(max_tokens=5, messages=[{"role": "user", "content": image}])
    assert proxy.metric("llm_quota_unbounded_requests_total", team="payments/payments") == 1


async def test_with_the_store_away_a_share_is_spent_and_then_refused(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve()
    limit = {"name": "calls", "per": "Day", "requests": 30}
    async with single() as servers:
        one = provider("p", upstream.base_url)
        proxy = await team_of(start_proxy, servers.url, [one], limit, cache={"generations": "None"})
        await until(lambda: _share(servers.url) == 100_000)
        servers.nodes[0].kill()
        replies = [await proxy.chat() for _ in range(5)]
        assert [one.status for one in replies] == [200, 200, 200, 503, 503]
        assert replies[-1].code == "quota_store_unavailable"
        assert b"share of limit 'calls' is spent" in replies[-1].body
        await servers.nodes[0].start()
        await until(lambda: booked(servers.url) == {"calls|used": 3})


def _share(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        parts = [int(share.split()[0]) for key in client.keys("*:quota:shares") for share in client.hvals(key)]
        return sum(part % 10**7 - part // 10**7 for part in parts)  # from and to: see share.lua
