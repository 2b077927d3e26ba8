"""What a team's `optimization` changes of a request on its way, and what it tells of it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import redis

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import CHAT_ANSWER, CHAT_PATH, Proxy, Upstream, document, plain, provider, until

Serve = Callable[..., Awaitable[Upstream]]
LONG = "word " * 2000
MARK = {"type": "ephemeral"}
MESSAGES_PATH = "/v1/messages"
PRICES = {
    "inputUSDPerMillionTokens": "1",
    "cachedInputUSDPerMillionTokens": "0.1",
    "cacheWriteUSDPerMillionTokens": "1.25",
    "outputUSDPerMillionTokens": "5",
}
CLAUDE: dict[str, Any] = {"type": "Anthropic", "models": [{"name": "claude-sonnet-4-5", "pricing": PRICES}]}


def message(**usage: int) -> bytes:
    told = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-4-5",
        "content": [{"type": "text", "text": "pong"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 3, **usage},
    }
    return orjson.dumps(told)


async def proxy_with(
    start_proxy: StartProxy, one: Upstream, *, store_url: str | None = None, limits: Any = (), **options: Any
) -> Proxy:
    spec = options.pop("spec", {})
    team = {"optimization": options, "limits": limits}
    return await start_proxy(document(provider("p", one.base_url, **spec), store_url=store_url, team=team))


async def ask_claude(proxy: Proxy, **members: Any) -> Any:
    body = {"model": "claude-sonnet-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "?"}], **members}
    return await proxy.ask("POST", MESSAGES_PATH, data=json.dumps(body).encode())


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_the_clamp_changes_the_bound_and_nothing_else(
    start_proxy: StartProxy, serve: Serve, *, stream: bool
) -> None:
    one = await serve()
    proxy = await proxy_with(start_proxy, one, maxOutputTokens=4096, spec={"streamUsage": "Never"})
    body = b'{ "model": "m", "max_tokens" :  9000, "messages": [{"role":"user","content":"ping"}] }'
    if stream:
        body = body.replace(b'"model"', b'"stream": true, "model"')
    reply = await proxy.ask("POST", CHAT_PATH, data=body)

    assert one.seen[0].body == body.replace(b"9000", b"4096")
    if not stream:
        assert reply.headers["x-llm-sidecar-output-clamped"] == "4096"
        line = await proxy.audit_line(reply.request_id)
        assert line["output_clamped_tokens"] == 4096
        assert proxy.metric("llm_optimization_clamped_requests_total", team="payments/payments") == 1
        assert proxy.metric("llm_optimization_saved_tokens_total") == 0


async def test_a_request_without_a_bound_gets_one(start_proxy: StartProxy, serve: Serve) -> None:
    one = await serve()
    proxy = await proxy_with(start_proxy, one, maxOutputTokens=4096)
    await proxy.chat()

    assert orjson.loads(one.seen[0].body)["max_completion_tokens"] == 4096


async def test_a_request_within_the_clamp_passes_byte_by_byte(start_proxy: StartProxy, serve: Serve) -> None:
    one = await serve()
    proxy = await proxy_with(start_proxy, one, maxOutputTokens=4096, promptCaching="Auto")
    body = b'{ "model": "m", "max_tokens":4096 ,"messages": [] }'
    reply = await proxy.ask("POST", CHAT_PATH, data=body)

    assert one.seen[0].body == body
    assert "x-llm-sidecar-output-clamped" not in reply.headers


async def test_without_optimization_nothing_changes(start_proxy: StartProxy, serve: Serve) -> None:
    one = await serve(plain(message()))
    proxy = await proxy_with(start_proxy, one, spec=CLAUDE)
    await ask_claude(proxy, system=LONG, max_tokens=100_000)

    sent = orjson.loads(one.seen[0].body)
    assert (sent["system"], sent["max_tokens"]) == (LONG, 100_000)


async def test_the_clamp_holds_in_the_language_of_another_provider(start_proxy: StartProxy, serve: Serve) -> None:
    one = await serve(plain(message()))
    models = [{"name": "claude-sonnet-4-5", "aliases": ["m"]}]
    proxy = await proxy_with(start_proxy, one, maxOutputTokens=2000, spec={"type": "Anthropic", "models": models})
    reply = await proxy.chat(max_tokens=9000)

    assert orjson.loads(one.seen[0].body)["max_tokens"] == 2000
    assert (reply.status, reply.headers["x-llm-sidecar-output-clamped"]) == (200, "2000")


async def test_the_clamp_stays_above_a_thinking_budget(start_proxy: StartProxy, serve: Serve) -> None:
    one = await serve(plain(message()))
    proxy = await proxy_with(start_proxy, one, maxOutputTokens=4096, spec=CLAUDE)
    reply = await ask_claude(proxy, max_tokens=64_000, thinking={"type": "enabled", "budget_tokens": 16_000})

    assert orjson.loads(one.seen[0].body)["max_tokens"] == 17_024
    assert reply.headers["x-llm-sidecar-output-clamped"] == "17024"


async def test_what_is_reserved_is_the_clamped_bound(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    """A request that would not fit into the limit by its own bound fits with the clamp."""
    one = await serve()
    limits = [{"name": "t", "per": "Day", "tokens": 1000, "reservation": "Maximum"}]
    proxy = await proxy_with(start_proxy, one, store_url=store_url, limits=limits, maxOutputTokens=500)

    assert (await proxy.chat(max_tokens=900_000)).status == 200


async def test_what_is_reserved_leaves_room_for_thinking(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    """What is sent allows 17,024 tokens, whatever the clamp says; so it is they that must fit."""
    one = await serve(plain(message()))
    limits = [{"name": "t", "per": "Day", "tokens": 10_000, "reservation": "Maximum"}]
    proxy = await proxy_with(start_proxy, one, store_url=store_url, limits=limits, maxOutputTokens=4096, spec=CLAUDE)
    reply = await ask_claude(proxy, max_tokens=64_000, thinking={"type": "enabled", "budget_tokens": 16_000})

    assert reply.code == "team_quota_exceeded"
    assert one.seen == []


async def test_requests_that_are_sent_alike_share_an_answer(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve()
    proxy = await proxy_with(start_proxy, one, store_url=store_url, maxOutputTokens=500)
    await proxy.chat(temperature=0, max_tokens=900)
    with redis.Redis.from_url(store_url) as client:
        await until(lambda: bool(client.keys("*:cache:*")))
    reply = await proxy.chat(temperature=0, max_tokens=1000)

    assert (reply.headers["x-llm-sidecar-cache"], reply.body) == ("hit", CHAT_ANSWER)
    assert [orjson.loads(seen.body)["max_tokens"] for seen in one.seen] == [500]


async def test_long_prefixes_are_marked_and_the_rest_of_the_body_stays(start_proxy: StartProxy, serve: Serve) -> None:
    one = await serve(plain(message(cache_creation_input_tokens=2000)))
    proxy = await proxy_with(start_proxy, one, promptCaching="Auto", spec=CLAUDE)
    body = b'{ "model":"claude-sonnet-4-5", "max_tokens":5,"system" : "%b", "messages":[] }' % LONG.encode()
    reply = await proxy.ask("POST", MESSAGES_PATH, data=body)

    marked = b'[{"type":"text","text":"%b","cache_control":{"type":"ephemeral"}}]' % LONG.encode()
    assert one.seen[0].body == body.replace(b'"%b"' % LONG.encode(), marked)
    assert (await proxy.audit_line(reply.request_id))["prompt_cache_marks"] == 1


async def test_marks_are_put_into_what_was_translated(start_proxy: StartProxy, serve: Serve) -> None:
    one = await serve(plain(message()))
    models = [{"name": "claude-sonnet-4-5", "aliases": ["m"]}]
    proxy = await proxy_with(start_proxy, one, promptCaching="Auto", spec={"type": "Anthropic", "models": models})
    turns = [{"role": "system", "content": LONG}, {"role": "user", "content": "?"}]
    reply = await proxy.chat(messages=turns)

    assert reply.status == 200
    assert orjson.loads(one.seen[0].body)["system"][-1]["cache_control"] == MARK


async def test_a_saving_counts_only_once_it_has_earned_back_what_it_cost(start_proxy: StartProxy, serve: Serve) -> None:
    """2,000 tokens written cost a quarter of a dollar per million more; each read saves nine tenths."""
    told = iter([{"cache_creation_input_tokens": 2000}, {"cache_read_input_tokens": 2000}])

    async def answer(request: Any, body: bytes) -> Any:
        return await plain(message(**next(told)))(request, body)

    one = await serve(answer)
    proxy = await proxy_with(start_proxy, one, promptCaching="Auto", spec=CLAUDE)
    saved = []
    for _ in range(2):
        await ask_claude(proxy, system=LONG)
        saved.append(proxy.metric("llm_optimization_saved_usd_total", strategy="prompt_caching"))

    assert saved == [0, pytest.approx(2000 * 0.9e-6 - 2000 * 0.25e-6)]
    assert proxy.metric("llm_optimization_saved_tokens_total", strategy="prompt_caching") == 2000
    assert proxy.metric("llm_cost_usd_total") == pytest.approx((20 * 1 + 2000 * 1.25 + 2000 * 0.1 + 6 * 5) / 1e6)


async def test_what_a_providers_cache_does_by_itself_is_not_our_saving(start_proxy: StartProxy, serve: Serve) -> None:
    one = await serve(plain(message(cache_read_input_tokens=2000)))
    proxy = await proxy_with(start_proxy, one, promptCaching="Auto", spec=CLAUDE)
    await ask_claude(proxy, system=[{"type": "text", "text": LONG, "cache_control": MARK}])

    assert orjson.loads(one.seen[0].body)["system"] == [{"type": "text", "text": LONG, "cache_control": MARK}]
    assert proxy.metric("llm_optimization_saved_tokens_total", strategy="prompt_caching") == 0
