"""What was answered once is answered again without a provider, where that can be no other answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import redis

from llm_sidecar.cache import entries as form
from llm_sidecar.cache import memory
from llm_sidecar.contract.keys import cache_epochs
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_ANSWER,
    TOKEN,
    Proxy,
    Reply,
    Upstream,
    document,
    error,
    plain,
    provider,
    until,
)

Serve = Callable[..., Awaitable[Upstream]]


def entries(store_url: str) -> list[bytes]:
    with redis.Redis.from_url(store_url) as client:
        return list(client.keys("*:cache:*"))


@pytest.fixture
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store alone answers: what the process remembers of it for two seconds is another matter."""
    monkeypatch.setattr(memory, "LIFETIME_SECONDS", -1.0)


@pytest.fixture
async def counted(serve: Serve) -> Upstream:
    return await serve()


async def cached(start_proxy: StartProxy, store_url: str, *upstreams: Upstream, team: Any = None, **spec: Any) -> Proxy:
    providers = [provider(f"p{number}", one.base_url, priority=number, **spec) for number, one in enumerate(upstreams)]
    return await start_proxy(document(*providers, store_url=store_url, team=team or {}))


async def twice(proxy: Proxy, store_url: str, **members: Any) -> tuple[Reply, Reply]:
    before = len(entries(store_url))
    first = await proxy.chat(**members)
    await until(lambda: len(entries(store_url)) > before)
    return first, await proxy.chat(**members)


async def test_the_second_time_is_a_hit(start_proxy: StartProxy, counted: Upstream, store_url: str) -> None:
    proxy = await cached(start_proxy, store_url, counted, team={"limits": [{"name": "r", "per": "Day", "requests": 1}]})
    first, second = await twice(proxy, store_url, temperature=0)
    assert (first.headers["x-llm-sidecar-cache"], second.headers["x-llm-sidecar-cache"]) == ("miss", "hit")
    assert first.body == second.body == CHAT_ANSWER
    assert (second.status, second.headers["content-type"]) == (200, "application/json")
    assert second.headers["x-llm-sidecar-provider"] == "p0"
    assert "age" in second.headers
    assert len(counted.seen) == 1
    assert proxy.metric("llm_cache_requests_total", result="hit") == 1
    assert proxy.metric("llm_cache_saved_tokens_total") == 10
    assert proxy.metric("llm_tokens_total") == 10
    line = await proxy.audit_line(second.request_id)
    assert (line["cache"], line["charged_tokens"]) == ("hit", 0)


@pytest.mark.parametrize(
    "members",
    [{}, {"temperature": 0.5}, {"temperature": 0, "n": 2}, {"temperature": 0, "store": True}],
)
async def test_what_may_be_answered_otherwise_is_asked_again(
    start_proxy: StartProxy, counted: Upstream, store_url: str, members: dict[str, Any]
) -> None:
    proxy = await cached(start_proxy, store_url, counted)
    replies = [await proxy.chat(**members) for _ in range(2)]
    assert [reply.headers["x-llm-sidecar-cache"] for reply in replies] == ["bypass", "bypass"]
    assert len(counted.seen) == 2


async def test_all_keeps_every_generation(start_proxy: StartProxy, counted: Upstream, store_url: str) -> None:
    proxy = await cached(start_proxy, store_url, counted, team={"cache": {"generations": "All"}})
    _, second = await twice(proxy, store_url)
    assert second.headers["x-llm-sidecar-cache"] == "hit"


async def test_none_keeps_no_generation(start_proxy: StartProxy, counted: Upstream, store_url: str) -> None:
    proxy = await cached(start_proxy, store_url, counted, team={"cache": {"generations": "None"}})
    for _ in range(2):
        assert (await proxy.chat(temperature=0)).headers["x-llm-sidecar-cache"] == "bypass"


@pytest.mark.parametrize(
    ("team", "spec", "expected"),
    [
        ({}, {}, 3600 + 3600),
        ({}, {"cache": {"ttlSeconds": {"generation": 60}}}, 60 + 3600),
        ({"cache": {"maxTTLSeconds": 30}}, {}, 30),
        ({"cache": {"maxTTLSeconds": 4000}}, {}, 4000),
    ],
)
async def test_an_entry_lives_an_hour_longer_than_it_is_fresh_but_never_longer_than_the_team_allows(  # noqa: PLR0917 - fixtures and parameters
    start_proxy: StartProxy, counted: Upstream, store_url: str, team: Any, spec: Any, expected: int
) -> None:
    proxy = await cached(start_proxy, store_url, counted, team=team, **spec)
    await twice(proxy, store_url, temperature=0)
    with redis.Redis.from_url(store_url) as client:
        assert client.ttl(entries(store_url)[0]) in {expected, expected - 1}


@pytest.mark.parametrize("spec", [{"cache": {"ttlSeconds": {"generation": 0}}}, {}])
async def test_a_time_of_zero_keeps_nothing(
    start_proxy: StartProxy, counted: Upstream, store_url: str, spec: Any
) -> None:
    team = {} if spec else {"cache": {"maxTTLSeconds": 0}}
    proxy = await cached(start_proxy, store_url, counted, team=team, **spec)
    for _ in range(2):
        assert (await proxy.chat(temperature=0)).headers["x-llm-sidecar-cache"] == "bypass"
    assert not entries(store_url)


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_an_expired_entry_is_a_miss(start_proxy: StartProxy, counted: Upstream, store_url: str) -> None:
    proxy = await cached(start_proxy, store_url, counted)
    await twice(proxy, store_url, temperature=0)
    with redis.Redis.from_url(store_url) as client:
        client.pexpire(entries(store_url)[0], 1)
    await until(lambda: not entries(store_url))
    assert (await proxy.chat(temperature=0)).headers["x-llm-sidecar-cache"] == "miss"


@pytest.mark.parametrize(
    ("kind", "path", "body", "answer"),
    [
        (
            "OpenAI",
            "/v1/responses/input_tokens",
            {"model": "m", "input": "x"},
            {"object": "response.input_tokens", "input_tokens": 5},
        ),
        ("Anthropic", "/v1/messages/count_tokens", {"model": "m", "messages": []}, {"input_tokens": 5}),
        ("Google", "/v1beta/models/m:countTokens", {"contents": []}, {"totalTokens": 5}),
        (
            "Google",
            "/v1beta/models/m:embedContent",
            {"content": {"parts": [{"text": "x"}]}},
            {"embedding": {"values": [0.1]}},
        ),
    ],
)
async def test_token_counts_and_single_embeddings_are_kept_whatever_the_team_says_of_generations(  # noqa: PLR0917 - fixtures and parameters
    start_proxy: StartProxy, serve: Serve, store_url: str, kind: str, path: str, body: Any, answer: Any
) -> None:
    upstream = await serve(plain(orjson.dumps(answer)))
    proxy = await cached(start_proxy, store_url, upstream, team={"cache": {"generations": "None"}}, type=kind)
    first = await proxy.ask("POST", path, data=orjson.dumps(body))
    await until(lambda: len(entries(store_url)) == 1)
    second = await proxy.ask("POST", path, data=orjson.dumps(body))
    assert [one.headers["x-llm-sidecar-cache"] for one in (first, second)] == ["miss", "hit"]
    assert first.body == second.body


CUT = orjson.dumps({**orjson.loads(CHAT_ANSWER), "choices": [{"index": 0, "message": {}, "finish_reason": "length"}]})


NOT_KEPT = {
    "bad-request": error(400),
    "rate-limited": error(429),
    "server-error": error(500),
    "cut-by-a-limit": plain(CUT),
    "error-with-200": plain(b'{"error":{"message":"x"}}'),
}


@pytest.mark.parametrize("case", NOT_KEPT)
async def test_only_complete_answers_are_kept(start_proxy: StartProxy, serve: Serve, store_url: str, case: str) -> None:
    upstream = await serve(NOT_KEPT[case])
    proxy = await cached(start_proxy, store_url, upstream, retry={"maxAttempts": 1})
    for _ in range(2):
        await proxy.chat(temperature=0)
    await proxy.sidecar._pipeline.close()  # type: ignore[union-attr]
    assert not entries(store_url)
    assert len(upstream.seen) == 2


async def test_another_question_is_another_entry(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    upstream = await serve()
    proxy = await cached(start_proxy, store_url, upstream, models=["m", "m2"])
    await twice(proxy, store_url, temperature=0)
    different: list[dict[str, Any]] = [
        {"model": "m2"},
        {"messages": [{"role": "user", "content": "Ping"}]},
        {"seed": 1},
        {"tools": []},
        {"headers": {"openai-beta": "x"}},
        {"headers": {"x-nobody-thought-of-it": "x"}},
        {"unknown_member": 1},
    ]
    for members in different:
        assert (await proxy.chat(temperature=0, **members)).headers["x-llm-sidecar-cache"] == "miss", members
    same: list[dict[str, Any]] = [{"user": "u"}, {"metadata": {"a": "b"}}, {"headers": {"x-request-id": "1"}}]
    for members in same:
        assert (await proxy.chat(temperature=0, **members)).headers["x-llm-sidecar-cache"] == "hit", members


async def test_order_and_space_of_the_body_do_not_matter(
    start_proxy: StartProxy, counted: Upstream, store_url: str
) -> None:
    proxy = await cached(start_proxy, store_url, counted)
    await twice(proxy, store_url, temperature=0)
    other = b'{ "temperature":0.0, "messages": [{"content":"ping","role":"user"}], "model":"m" }'
    reply = await proxy.ask("POST", "/v1/chat/completions", data=other)
    assert reply.headers["x-llm-sidecar-cache"] in {"hit", "miss"}
    exact = b'{ "temperature":0, "messages": [{"content":"ping","role":"user"}], "model":"m" }'
    assert (await proxy.ask("POST", "/v1/chat/completions", data=exact)).headers["x-llm-sidecar-cache"] == "hit"


async def test_teams_do_not_see_each_others_answers(start_proxy: StartProxy, counted: Upstream, store_url: str) -> None:
    ours = await cached(start_proxy, store_url, counted)
    await twice(ours, store_url, temperature=0)
    theirs = await start_proxy(document(provider("p0", counted.base_url), store_url=store_url))
    assert (await theirs.chat(temperature=0)).headers["x-llm-sidecar-cache"] == "miss"


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_an_entry_of_another_version_or_damaged_is_a_miss(
    start_proxy: StartProxy, counted: Upstream, store_url: str
) -> None:
    proxy = await cached(start_proxy, store_url, counted)
    await twice(proxy, store_url, temperature=0)
    with redis.Redis.from_url(store_url) as client:
        key = entries(store_url)[0]
        good = client.get(key)
        assert isinstance(good, bytes)
        damaged = [
            good.replace(b'"version":%d' % form.ENTRY_VERSION, b'"version":%d' % (form.ENTRY_VERSION + 1)),
            good.replace(b'"team":"payments', b'"team":"invoices'),
            good.replace(b'"digest":"', b'"digest":"0'),
            good.replace(b"pong", b"gong"),
            good[:-1],
            b"",
            b"\n",
            b"[]\n{}",
            b"null\n",
            good.replace(b'"content_type"', b'"contents"'),
        ]
        for entry in damaged:
            assert entry != good
            client.set(key, entry)
            reply = await proxy.chat(temperature=0)
            assert (reply.status, reply.headers["x-llm-sidecar-cache"]) == (200, "miss")
            await until(lambda: client.get(key) != entry)  # noqa: B023 - called at once


async def test_an_answer_of_a_stand_in_is_kept_under_its_own_name_only(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    healthy = asyncio.Event()

    async def first_answer(request: Any, body: bytes) -> Any:
        return await (plain() if healthy.is_set() else error(503))(request, body)

    first, stand_in = await serve(first_answer), await serve(plain(CHAT_ANSWER.replace(b"pong", b"stand-in")))
    proxy = await cached(start_proxy, store_url, first, stand_in)
    one, _ = await twice(proxy, store_url, temperature=0)
    assert b"stand-in" in one.body
    healthy.set()
    reply = await proxy.chat(temperature=0)
    assert reply.headers["x-llm-sidecar-cache"] == "miss"
    assert b"pong" in reply.body


async def test_a_store_that_is_away_makes_misses_and_no_errors(start_proxy: StartProxy, counted: Upstream) -> None:
    proxy = await start_proxy(document(provider("p", counted.base_url), store_url="redis://127.0.0.1:1", team={}))
    for _ in range(3):
        reply = await proxy.chat(temperature=0)
        assert (reply.status, reply.headers["x-llm-sidecar-cache"]) == (200, "miss")
    assert proxy.metric("llm_sidecar_degraded", part="store") == 1
    readiness = await proxy.admin("/readyz")
    assert readiness.status == 200
    assert readiness.json()["store"] == {"available": False, "reason": "connection"}
    assert b"127.0.0.1" not in readiness.body


async def test_an_answer_too_large_to_keep_is_answered_all_the_same(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    big = CHAT_ANSWER.replace(b"pong", b"x" * (form.MAX_ENTRY_BYTES + 1))
    proxy = await cached(start_proxy, store_url, await serve(plain(big)))
    assert (await proxy.chat(temperature=0)).body == big
    await proxy.sidecar._pipeline.close()  # type: ignore[union-attr]
    assert not entries(store_url)


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_what_is_no_entry_at_all_is_a_miss(start_proxy: StartProxy, counted: Upstream, store_url: str) -> None:
    """Keys of other kinds, written by whomever: the store is not taken for broken."""
    proxy = await cached(start_proxy, store_url, counted)
    await twice(proxy, store_url, temperature=0)
    with redis.Redis.from_url(store_url) as client:
        key = entries(store_url)[0]
        client.delete(key)
        client.lpush(key, "x")
        assert (await proxy.chat(temperature=0)).headers["x-llm-sidecar-cache"] == "miss"
        await until(lambda: client.type(key) == b"string")
        client.set(cache_epochs("payments/payments"), "x")
        assert (await proxy.chat(temperature=0)).headers["x-llm-sidecar-cache"] == "miss"
        client.delete(cache_epochs("payments/payments"))
    assert (await proxy.chat(temperature=0)).headers["x-llm-sidecar-cache"] == "hit"
    assert proxy.metric("llm_sidecar_degraded", part="store") == 0


async def test_a_hit_in_memory_asks_no_store(start_proxy: StartProxy, counted: Upstream, store_url: str) -> None:
    proxy = await cached(start_proxy, store_url, counted)
    await twice(proxy, store_url, temperature=0)
    with redis.Redis.from_url(store_url) as client:
        client.delete(*entries(store_url))
    reply = await proxy.chat(temperature=0)
    assert (reply.headers["x-llm-sidecar-cache"], reply.body) == ("hit", CHAT_ANSWER)


async def test_a_hit_tells_what_it_saved_in_money(start_proxy: StartProxy, counted: Upstream, store_url: str) -> None:
    pricing = {"inputUSDPerMillionTokens": "1000", "outputUSDPerMillionTokens": "10000"}
    proxy = await cached(start_proxy, store_url, counted, models=[{"name": "m", "pricing": pricing}])
    _, hit = await twice(proxy, store_url, temperature=0)
    assert proxy.metric("llm_cache_saved_usd_total") == pytest.approx(7 * 0.001 + 3 * 0.01)
    assert "x-llm-sidecar-cost-usd" not in hit.headers
    line = await proxy.audit_line(hit.request_id)
    assert entries(store_url)[0].decode().endswith(f":cache:{line['cache_key']}")


async def test_another_way_to_the_same_model_is_another_entry(
    start_proxy: StartProxy, counted: Upstream, store_url: str
) -> None:
    """Whatever changes in the mapping of models changes the key: base URL, own headers, the model behind an alias."""
    ways: list[dict[str, Any]] = [
        {"models": [{"name": "m"}]},
        {"models": [{"name": "m2", "aliases": ["m"]}]},
        {"models": [{"name": "m"}], "headers": [{"name": "OpenAI-Project", "value": "p"}]},
        {"models": [{"name": "m"}], "baseURL": counted.base_url + "/other"},
    ]
    for way in ways:
        spec = {**way}
        proxy = await start_proxy(document(provider("p0", counted.base_url, **spec), store_url=store_url, team={}))
        first, second = await twice(proxy, store_url, temperature=0)
        assert [one.headers["x-llm-sidecar-cache"] for one in (first, second)] == ["miss", "hit"], way
    assert len(entries(store_url)) == len(ways)


async def test_a_request_that_came_before_is_known_and_means_the_same(
    start_proxy: StartProxy, counted: Upstream, store_url: str
) -> None:
    """Read and hashed once: whatever is told beside the body still makes it another request."""
    proxy = await cached(start_proxy, store_url, counted)
    await twice(proxy, store_url, temperature=0)
    replies = [await proxy.chat(temperature=0) for _ in range(3)]
    assert [reply.headers["x-llm-sidecar-cache"] for reply in replies] == ["hit"] * 3
    assert len({reply.body for reply in replies}) == 1
    told = {"authorization": f"Bearer {TOKEN}"}
    another = await proxy.chat(headers={**told, "x-flavour": "other"}, temperature=0)
    assert another.headers["x-llm-sidecar-cache"] == "miss"
    fresh = await proxy.chat(headers={**told, "cache-control": "no-cache"}, temperature=0)
    assert fresh.headers["x-llm-sidecar-cache"] == "miss"
    streamed = await proxy.chat(temperature=0, stream=True)
    assert streamed.headers["x-llm-sidecar-cache"] == "hit"
    assert streamed.headers["content-type"].startswith("text/event-stream")
