"""Who is asked, in which order, and who is passed over with which reason: seen from the application."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import openai
import orjson
import pytest

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import TOKEN, Upstream, document, error, plain, provider

Serve = Callable[..., Awaitable[Upstream]]

ONCE = {"maxAttempts": 1}
MESSAGE = orjson.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "pong"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 7, "output_tokens": 3},
    }
)
CANDIDATE = orjson.dumps(
    {
        "candidates": [{"index": 0, "content": {"role": "model", "parts": [{"text": "pong"}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10},
        "modelVersion": "m",
    }
)


def priced(name: str, dollars: str) -> dict[str, Any]:
    return {
        "name": name,
        "aliases": ["small"],
        "pricing": {"inputUSDPerMillionTokens": dollars, "outputUSDPerMillionTokens": dollars},
    }


async def test_a_stand_in_of_another_language_answers_where_the_model_fails(
    start_proxy: StartProxy, serve: Serve
) -> None:
    claude, gpt = await serve(error(529)), await serve()
    proxy = await start_proxy(
        document(
            provider("a", claude.base_url, type="Anthropic", models=["claude"], priority=5, retry=ONCE),
            provider("o", gpt.base_url, models=[{"name": "gpt", "failoverFor": ["claude"]}], retry=ONCE),
        )
    )

    async with anthropic.AsyncAnthropic(base_url=proxy.base_url, api_key=TOKEN, max_retries=0) as client:
        raw = await client.messages.with_raw_response.create(
            model="claude", max_tokens=5, messages=[{"role": "user", "content": "ping"}]
        )
        message = await raw.parse()

    assert [(block.type, block.text) for block in message.content if block.type == "text"] == [("text", "pong")]
    assert (message.usage.input_tokens, message.usage.output_tokens) == (7, 3)
    assert (raw.headers["x-llm-sidecar-provider"], raw.headers["x-llm-sidecar-model"]) == ("o", "gpt")
    assert orjson.loads(gpt.seen[0].body)["model"] == "gpt"
    assert len(claude.seen) == 1


async def test_a_stand_in_is_not_asked_while_the_model_answers(start_proxy: StartProxy, serve: Serve) -> None:
    claude, gpt = await serve(plain(MESSAGE)), await serve()
    proxy = await start_proxy(
        document(
            provider("a", claude.base_url, type="Anthropic", models=["claude"], priority=5),
            provider("o", gpt.base_url, models=[{"name": "gpt", "failoverFor": ["claude"]}]),
        )
    )

    reply = await proxy.chat(model="claude")

    assert reply.json()["choices"][0]["message"]["content"] == "pong"
    assert not gpt.seen


async def test_a_model_that_the_team_is_denied_does_not_stand_in(start_proxy: StartProxy, serve: Serve) -> None:
    first, second = await serve(error(503)), await serve()
    proxy = await start_proxy(
        document(
            provider("first", first.base_url, models=["cheap"], retry=ONCE),
            provider("second", second.base_url, models=[{"name": "dear", "failoverFor": ["cheap"]}]),
            team={"models": {"deny": ["dear"]}},
        )
    )

    assert (await proxy.chat(model="cheap")).status == 503
    assert (await proxy.chat(model="dear")).code == "model_not_allowed"
    assert not second.seen


async def test_three_languages_serve_one_model_and_each_sdk_is_answered_in_its_own(
    start_proxy: StartProxy, serve: Serve
) -> None:
    """The others are there at need: two of another language share by weight."""
    a, g = await serve(plain(MESSAGE)), await serve(plain(CANDIDATE))
    others = (
        provider("a", a.base_url, type="Anthropic", weight=2),
        provider("g", g.base_url, type="Google"),
    )
    proxy = await start_proxy(document(provider("o", (await serve()).base_url), *others))
    assert {(await proxy.chat()).headers["x-llm-sidecar-provider"] for _ in range(20)} == {"o"}

    proxy = await start_proxy(document(*others))
    replies = [await proxy.chat() for _ in range(120)]

    assert {reply.json()["choices"][0]["message"]["content"] for reply in replies} == {"pong"}
    counted = Counter(reply.headers["x-llm-sidecar-provider"] for reply in replies)
    assert 60 <= counted["a"] <= 100  # 80 expected; beyond ±20 is less than one in 10,000 times
    assert counted["g"] == 120 - counted["a"]


async def test_cheapest_picks_by_price_among_equals_only(start_proxy: StartProxy, serve: Serve) -> None:
    dear, cheap, later = await serve(), await serve(), await serve()
    proxy = await start_proxy(
        document(
            provider("dear", dear.base_url, models=[priced("big", "5.00")], weight=100),
            provider("cheap", cheap.base_url, models=[priced("little", "0.50")]),
            provider("later", later.base_url, models=[priced("tiny", "0.01")], priority=1),
            team={"routing": "Cheapest"},
        )
    )

    replies = [await proxy.chat(model="small") for _ in range(10)]

    assert {reply.headers["x-llm-sidecar-provider"] for reply in replies} == {"cheap"}
    assert (len(dear.seen), len(later.seen)) == (0, 0)
    assert {reply.headers["x-llm-sidecar-cost-usd"] for reply in replies} == {"0.000005000"}
    assert proxy.metric("llm_cost_usd_total", provider="cheap", model="little") == pytest.approx(10 * 5e-6)


async def test_a_window_that_is_too_small_is_passed_over_and_explained(start_proxy: StartProxy, serve: Serve) -> None:
    small, large = await serve(), await serve()
    proxy = await start_proxy(
        document(
            provider("small", small.base_url, models=[{"name": "m", "contextWindowTokens": 100}]),
            provider("large", large.base_url, priority=1),
        )
    )

    short = await proxy.chat()
    long = await proxy.chat(messages=[{"role": "user", "content": "word " * 1000}])

    assert [reply.headers["x-llm-sidecar-provider"] for reply in (short, long)] == ["small", "large"]
    told = (await proxy.ask("GET", f"/_llm-sidecar/explain/{long.request_id}")).json()
    assert told["skipped"][0]["provider"] == "small"
    assert "context window of 100 tokens is too small" in told["skipped"][0]["reason"]


async def test_who_was_passed_over_stands_in_the_503(start_proxy: StartProxy, serve: Serve) -> None:
    small = await serve()
    proxy = await start_proxy(
        document(
            provider("small", small.base_url, models=[{"name": "m", "contextWindowTokens": 100}]),
            provider("away", "http://127.0.0.1:1", priority=1, retry=ONCE),
        )
    )

    reply = await proxy.chat(messages=[{"role": "user", "content": "word " * 1000}])

    assert (reply.status, reply.code) == (503, "no_provider_available")
    message = reply.json()["error"]["message"]
    assert "small was not asked: its context window of 100 tokens is too small" in message
    assert "away: " in message
    assert not small.seen


async def test_where_every_window_seems_too_small_the_provider_decides(start_proxy: StartProxy, serve: Serve) -> None:
    first, second = await serve(error(400)), await serve()
    tiny = [{"name": "m", "contextWindowTokens": 10}]
    proxy = await start_proxy(
        document(
            provider("first", first.base_url, models=tiny), provider("second", second.base_url, models=tiny, priority=1)
        )
    )

    assert (await proxy.chat(messages=[{"role": "user", "content": "word " * 1000}])).status == 400
    assert len(first.seen) == 1


@pytest.mark.parametrize(
    "members",
    [
        {"previous_response_id": "resp_1"},
        {"store": True},
        {"conversation": "conv_1"},
        {"background": True},
    ],
)
async def test_what_lives_at_one_provider_is_asked_of_nobody_else(
    start_proxy: StartProxy, serve: Serve, members: dict[str, Any]
) -> None:
    foreign, home, other = await serve(plain(MESSAGE)), await serve(error(500)), await serve()
    proxy = await start_proxy(
        document(
            provider("foreign", foreign.base_url, type="Anthropic", retry=ONCE),
            provider("home", home.base_url, priority=1, retry=ONCE),
            provider("other", other.base_url, priority=2, retry=ONCE),
        )
    )

    reply = await proxy.ask("POST", "/v1/responses", data=orjson.dumps({"model": "m", "input": "ping", **members}))

    assert reply.status == 500
    assert (len(foreign.seen), len(home.seen), len(other.seen)) == (0, 1, 0)
    line = await proxy.audit_line(reply.request_id)
    assert [one["provider"] for one in line["skipped"]] == ["foreign", "other"]
    assert all("lives at one provider" in one["reason"] for one in line["skipped"])


async def test_an_error_of_another_language_is_raised_as_the_sdks_own(start_proxy: StartProxy, serve: Serve) -> None:
    body = orjson.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": "messages: too odd"}})
    claude = await serve(plain(body, status=400))
    proxy = await start_proxy(document(provider("a", claude.base_url, type="Anthropic")))

    async with openai.AsyncOpenAI(base_url=f"{proxy.base_url}/v1", api_key=TOKEN, max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="too odd"):
            await client.chat.completions.create(model="m", messages=[{"role": "user", "content": "ping"}])
