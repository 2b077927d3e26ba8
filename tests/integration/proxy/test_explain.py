"""Why was that one answered so? The proxy remembers its last requests, without any of their content."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from llm_sidecar.explain import KEPT_REQUESTS
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import Proxy, Reply, Upstream, document, error, provider

Serve = Callable[..., Awaitable[Upstream]]

EXPLAIN = "/_llm-sidecar/explain/"
PRICED = {
    "name": "m",
    "pricing": {"inputUSDPerMillionTokens": "1.00", "outputUSDPerMillionTokens": "2.00"},
}


@pytest.fixture
async def proxy(start_proxy: StartProxy, serve: Serve, store_url: str) -> Proxy:
    """Its first candidate fails, its second answers, and a team counts."""
    bad, good = await serve(error(503)), await serve()
    return await start_proxy(
        document(
            provider("bad", bad.base_url, circuitBreaker={"failureThreshold": 1, "openSeconds": 30}),
            provider("good", good.base_url, priority=1, models=[PRICED]),
            store_url=store_url,
            team={"limits": [{"name": "daily", "per": "Day", "requests": 10}]},
        )
    )


async def explain(proxy: Proxy, reply: Reply) -> Reply:
    return await proxy.ask("GET", EXPLAIN + reply.request_id)


async def test_it_tells_attempts_skips_cache_quota_usage_and_cost(proxy: Proxy) -> None:
    first, second = await proxy.chat(), await proxy.chat()

    told = (await explain(proxy, first)).json()
    assert [(one["provider"], one["outcome"]) for one in told["attempts"]] == [
        ("bad", "overloaded"),
        ("good", "answered"),
    ]
    assert (told["provider"], told["model"], told["status"], told["cache"]) == ("good", "m", 200, "bypass")
    assert (told["usage"]["input_tokens"], told["usage"]["output_tokens"]) == (7, 3)
    assert (told["cost_nano_usd"], told["quota_remaining"]) == (13_000, "daily=9")
    assert first.headers["x-llm-sidecar-cost-usd"] == "0.000013000"

    told = (await explain(proxy, second)).json()
    assert told["skipped"] == [{"provider": "bad", "model": "m", "reason": "circuit_open"}]
    assert len(told["attempts"]) == 1


async def test_it_is_the_audit_line_and_holds_no_content(proxy: Proxy) -> None:
    asked = await proxy.chat(messages=[{"role": "user", "content": "a secret question"}])

    reply = await explain(proxy, asked)

    assert (reply.status, reply.headers["content-type"]) == (200, "application/json")
    assert reply.json() == await proxy.audit_line(asked.request_id)
    for content in (b"secret question", b"pong", b"127.0.0.1"):
        assert content not in reply.body


async def test_a_refused_request_is_explained_too(proxy: Proxy) -> None:
    refused = await proxy.chat(model="unknown")

    assert (await explain(proxy, refused)).json()["error"] == "model_not_found"


@pytest.mark.parametrize("headers", [{"authorization": ""}, {"authorization": "Bearer wrong"}])
async def test_the_token_is_required(proxy: Proxy, headers: dict[str, str]) -> None:
    asked = await proxy.chat()

    reply = await proxy.ask("GET", EXPLAIN + asked.request_id, headers=headers)

    assert (reply.status, reply.code) == (401, "wrong_pod_token")


async def test_a_web_page_learns_nothing(proxy: Proxy) -> None:
    asked = await proxy.chat()

    reply = await proxy.ask("GET", EXPLAIN + asked.request_id, headers={"origin": "https://evil.example"})

    assert (reply.status, reply.code) == (403, "cross_site_request")


@pytest.mark.parametrize("request_id", ["", "unknown", "a/b", "%2e%2e"])
async def test_an_unknown_id_is_a_404(proxy: Proxy, request_id: str) -> None:
    reply = await proxy.ask("GET", EXPLAIN + request_id)

    assert (reply.status, reply.code) == (404, "request_not_found")


async def test_it_takes_get_only(proxy: Proxy) -> None:
    reply = await proxy.ask("POST", EXPLAIN + "id", data=b"{}")

    assert (reply.status, reply.headers["allow"]) == (405, "GET")


async def test_the_last_thousand_are_kept_and_explaining_pushes_out_none(proxy: Proxy) -> None:
    oldest, second = await proxy.chat(model="unknown"), await proxy.chat(model="unknown")
    for _ in range(KEPT_REQUESTS - 2):
        await proxy.chat(model="unknown")
    assert (await explain(proxy, oldest)).status == 200

    await proxy.chat(model="unknown")

    assert (await explain(proxy, oldest)).status == 404
    assert (await explain(proxy, second)).status == 200
