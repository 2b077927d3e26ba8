"""A team's limits: who is refused learns why and until when; what was used is booked to the number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from llm_sidecar.errors import BRIEF_WAIT_MILLISECONDS
from tests.integration.booked import booked
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    Proxy,
    Upstream,
    chat_body,
    document,
    error,
    plain,
    provider,
    streaming,
    until,
)
from tests.integration.proxy.wire import CHAT_STREAM

Serve = Callable[..., Awaitable[Upstream]]


async def limited(
    start_proxy: StartProxy,
    store_url: str,
    *upstreams: Upstream,
    limits: list[dict[str, Any]],
    kind: str = "OpenAI",
    **team: Any,
) -> Proxy:
    """Providers of one type, each asked once."""
    providers = [
        provider(f"p{number}", one.base_url, priority=number, type=kind, retry={"maxAttempts": 1})
        for number, one in enumerate(upstreams)
    ]
    return await start_proxy(document(*providers, store_url=store_url, team={"limits": limits, **team}))


KINDS = {
    "/v1/chat/completions": "OpenAI",
    "/v1/messages": "Anthropic",
    "/v1beta/models/m:generateContent": "Google",
}
REQUESTS = {"name": "calls", "per": "Day", "requests": 1}
TOKENS = {"name": "tokens", "per": "Day", "tokens": 100_000}


@pytest.mark.parametrize(
    "path",
    KINDS,
)
async def test_a_refusal_tells_limit_figures_and_when_to_come_again(
    start_proxy: StartProxy, serve: Serve, store_url: str, path: str
) -> None:
    upstream = await serve()
    proxy = await limited(start_proxy, store_url, upstream, limits=[REQUESTS], kind=KINDS[path])
    body = chat_body(max_tokens=5)
    assert (await proxy.ask("POST", path, data=body)).status == 200
    reply = await proxy.ask("POST", path, data=body)
    assert (reply.status, reply.code) == (429, "team_quota_exceeded")
    error_ = reply.json()["error"]
    assert "'calls'" in error_["message"]
    assert "payments/payments" in error_["message"]
    seconds = int(reply.headers["retry-after"])
    assert 0 < seconds <= 86_400
    assert seconds - 1 <= int(reply.headers["retry-after-ms"]) / 1000 <= seconds
    is_brief = int(reply.headers["retry-after-ms"]) <= BRIEF_WAIT_MILLISECONDS
    assert reply.headers["x-should-retry"] == ("true" if is_brief else "false")
    assert len(upstream.seen) == 1
    assert proxy.metric("llm_quota_refusals_total", team="payments/payments", limit="calls") == 1


async def test_what_is_left_is_told_with_each_answer(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    proxy = await limited(
        start_proxy, store_url, await serve(), limits=[{**REQUESTS, "requests": 3}, {**TOKENS, "tokens": 10**9}]
    )
    told = [(await proxy.chat()).headers["x-llm-sidecar-quota-remaining"] for _ in range(3)]
    assert told == ["calls=2", "calls=1", "calls=0"]


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_is_booked_to_the_number(
    start_proxy: StartProxy, serve: Serve, store_url: str, stream: bool
) -> None:
    upstream = await serve(streaming(*CHAT_STREAM) if stream else plain())
    proxy = await limited(start_proxy, store_url, upstream, limits=[{**REQUESTS, "requests": 100}, TOKENS])
    replies = await asyncio.gather(*(proxy.chat(stream=stream) for _ in range(10)))
    assert {reply.status for reply in replies} == {200}
    await until(lambda: booked(store_url) == {"calls|used": 10, "tokens|used": 100})
    assert proxy.metric("llm_tokens_total", kind="input") == 70
    assert proxy.metric("llm_tokens_total", kind="output") == 30


async def test_an_error_of_the_application_costs_a_call_and_no_token(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    proxy = await limited(
        start_proxy, store_url, await serve(error(400)), limits=[{**REQUESTS, "requests": 100}, TOKENS]
    )
    await proxy.chat()
    await until(lambda: booked(store_url) == {"calls|used": 1})


async def test_providers_that_all_fail_cost_nothing(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    proxy = await limited(
        start_proxy, store_url, await serve(error(500)), await serve(error(503)), limits=[REQUESTS, TOKENS]
    )
    assert [(await proxy.chat()).status for _ in range(2)] == [503, 503]
    await until(lambda: booked(store_url) == {})


async def test_a_failover_costs_one_call(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    proxy = await limited(start_proxy, store_url, await serve(error(500)), await serve(), limits=[REQUESTS, TOKENS])
    assert (await proxy.chat()).status == 200
    await until(lambda: booked(store_url) == {"calls|used": 1, "tokens|used": 10})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_bad_request_costs_nothing(start_proxy: StartProxy, serve: Serve, store_url: str, path: str) -> None:
    proxy = await limited(start_proxy, store_url, await serve(), limits=[REQUESTS], kind=KINDS[path])
    for data in (b"", b"{}", b'{"model":"unknown"}'):
        assert (await proxy.ask("POST", path, data=data)).status in {400, 404}
    assert (await proxy.ask("POST", path, data=chat_body(max_tokens=5))).status == 200


async def test_a_request_that_never_fits_says_so(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    proxy = await limited(start_proxy, store_url, await serve(), limits=[{**TOKENS, "tokens": 100}])
    reply = await proxy.chat(max_completion_tokens=1000)
    assert reply.code == "team_quota_exceeded"
    assert "never fit" in reply.json()["error"]["message"]
    assert reply.headers["x-should-retry"] == "false"
    assert "retry-after" not in reply.headers
    assert (await proxy.chat(max_completion_tokens=10)).status == 200


async def test_token_counts_are_free_of_tokens(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    upstream = await serve(plain(orjson.dumps({"input_tokens": 5000})))
    proxy = await limited(start_proxy, store_url, upstream, limits=[{**TOKENS, "tokens": 1}], kind="Anthropic")
    reply = await proxy.ask("POST", "/v1/messages/count_tokens", data=chat_body())
    assert reply.status == 200
    await until(lambda: booked(store_url) == {})


AWAY = "redis://127.0.0.1:1"


@pytest.mark.parametrize("path", KINDS)
async def test_with_the_store_away_deny_refuses(start_proxy: StartProxy, serve: Serve, path: str) -> None:
    upstream = await serve()
    proxy = await limited(start_proxy, AWAY, upstream, limits=[REQUESTS], kind=KINDS[path], onStoreUnavailable="Deny")
    reply = await proxy.ask("POST", path, data=chat_body(max_tokens=5))
    assert (reply.status, reply.code) == (503, "quota_store_unavailable")
    assert (reply.headers["x-should-retry"], reply.headers["retry-after-ms"]) == ("true", "1000")
    assert b"127.0.0.1" not in reply.body
    assert not upstream.seen


async def test_with_the_store_away_allow_lets_pass(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await limited(start_proxy, AWAY, await serve(), limits=[REQUESTS], onStoreUnavailable="Allow")
    for _ in range(3):
        reply = await proxy.chat()
        assert reply.status == 200
        assert "x-llm-sidecar-quota-remaining" not in reply.headers
    assert proxy.metric("llm_sidecar_degraded", part="store") == 1


async def test_a_refusal_leaves_no_hold(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    proxy = await limited(start_proxy, store_url, await serve(), limits=[REQUESTS, TOKENS])
    for _ in range(5):
        await proxy.chat()
    await until(lambda: booked(store_url) == {"calls|used": 1, "tokens|used": 10})


async def test_two_proxies_of_one_team_share_its_limit(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    upstream = await serve()
    limits = [{**REQUESTS, "requests": 10}]
    proxies = [await limited(start_proxy, store_url, upstream, limits=limits) for _ in range(2)]
    replies = await asyncio.gather(*(proxy.chat() for proxy in proxies for _ in range(10)))
    assert sorted(reply.status for reply in replies) == [200] * 10 + [429] * 10


async def test_a_lost_reservation_of_a_hung_up_request_is_settled(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    async def silent(_request: Any, _body: bytes) -> Any:
        await asyncio.Event().wait()

    upstream = await serve(silent)
    proxy = await limited(start_proxy, store_url, upstream, limits=[{**REQUESTS, "requests": 5}, TOKENS])
    task = asyncio.ensure_future(proxy.chat())
    await until(lambda: bool(upstream.seen))
    assert booked(store_url)["tokens|held"] > 4000
    task.cancel()
    await until(lambda: "tokens|held" not in booked(store_url))
    line = await proxy.last_audit_line()
    assert booked(store_url) == {"calls|used": 1, "tokens|used": line["charged_tokens"]}


async def test_limits_of_every_window_are_reserved_and_settled_together(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """In a time zone of the team's own: each has its counter, and the tightest is told."""
    limits = [
        {"name": per.lower(), "per": per, "requests": 100 - number}
        for number, per in enumerate(("Minute", "Hour", "Day", "Week", "Month"))
    ]
    team = {"limits": limits, "timeZone": "Australia/Lord_Howe"}
    proxy = await start_proxy(
        document(provider("p", (await serve()).base_url), store_url=store_url, team=team),
    )
    reply = await proxy.chat()

    assert reply.headers["x-llm-sidecar-quota-remaining"] == "month=95"
    await until(lambda: booked(store_url) == {f"{limit['name']}|used": 1 for limit in limits})
