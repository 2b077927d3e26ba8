"""What the application says in `Cache-Control` is obeyed; one that says nothing needs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis

from llm_sidecar.cache import memory
from llm_sidecar.cache.policy import STALE_SECONDS
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import CHAT_ANSWER, Proxy, Reply, Upstream, document, error, plain, provider, until
from tests.integration.proxy.test_cache import cached, entries

Serve = Callable[..., Awaitable[Upstream]]


@pytest.fixture(autouse=True)
def _nothing_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "LIFETIME_SECONDS", -1.0)


async def told(proxy: Proxy, directives: str, **members: Any) -> Reply:
    return await proxy.chat(headers={"cache-control": directives}, temperature=0, **members)


async def kept(proxy: Proxy, store_url: str) -> None:
    await proxy.chat(temperature=0)
    await until(lambda: len(entries(store_url)) == 1)


def age(store_url: str, seconds: int) -> None:
    """Make the only entry so much older."""
    with redis.Redis.from_url(store_url) as client:
        (key,) = entries(store_url)
        entry = client.get(key)
        assert isinstance(entry, bytes)
        before, _, rest = entry.partition(b'"asked_at":')
        number, comma, after = rest.partition(b",")
        client.set(key, before + b'"asked_at":' + str(float(number) - seconds).encode() + comma + after, keepttl=True)


async def test_no_store_neither_reads_nor_writes(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    upstream = await serve()
    proxy = await cached(start_proxy, store_url, upstream)
    for _ in range(2):
        assert (await told(proxy, "no-store")).headers["x-llm-sidecar-cache"] == "bypass"
    await proxy.sidecar._pipeline.close()  # type: ignore[union-attr]
    assert not entries(store_url)
    await kept(proxy, store_url)
    assert (await told(proxy, "no-store")).headers["x-llm-sidecar-cache"] == "bypass"
    assert len(upstream.seen) == 4


async def test_no_cache_asks_anew_and_keeps_the_new_answer(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    answers = [plain(), plain(CHAT_ANSWER.replace(b"pong", b"newer"))]

    async def in_turn(request: Any, body: bytes) -> Any:
        return await answers[min(len(upstream.seen), 2) - 1](request, body)

    upstream = await serve(in_turn)
    proxy = await cached(start_proxy, store_url, upstream)
    await kept(proxy, store_url)
    with redis.Redis.from_url(store_url) as client:
        before = client.get(entries(store_url)[0])
        anew = await told(proxy, "no-cache")
        assert (anew.headers["x-llm-sidecar-cache"], b"newer" in anew.body) == ("miss", True)
        await until(lambda: client.get(entries(store_url)[0]) != before)
    hit = await proxy.chat(temperature=0)
    assert (hit.headers["x-llm-sidecar-cache"], b"newer" in hit.body) == ("hit", True)


async def test_max_age_bounds_the_age(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    upstream = await serve()
    proxy = await cached(start_proxy, store_url, upstream)
    await kept(proxy, store_url)
    age(store_url, 100)
    hit = await told(proxy, "max-age=200")
    assert hit.headers["x-llm-sidecar-cache"] == "hit"
    assert int(hit.headers["age"]) in {100, 101, 102}
    assert (await told(proxy, "max-age=50")).headers["x-llm-sidecar-cache"] == "miss"
    await until(lambda: len(upstream.seen) == 2)
    assert (await told(proxy, "max-age=0")).headers["x-llm-sidecar-cache"] == "miss"


@pytest.mark.parametrize(
    ("path", "headers", "body"),
    [
        ("/v1/chat/completions", {}, b'{"model":"m","messages":[],"temperature":0}'),
        ("/v1/messages", {"anthropic-version": "2023-06-01"}, b'{"model":"m","max_tokens":9,"messages":[]}'),
        ("/v1beta/models/m:generateContent", {}, b'{"contents":[]}'),
    ],
    ids=["chat", "messages", "gemini"],
)
async def test_only_if_cached_is_a_gateway_timeout_in_the_apis_own_shape(  # noqa: PLR0917 - fixtures and parameters
    start_proxy: StartProxy, serve: Serve, store_url: str, path: str, headers: dict[str, str], body: bytes
) -> None:
    """Also where the cache would not have been asked at all, as for two of these, which do not say temperature 0."""
    upstream = await serve()
    one = [provider(kind.lower(), upstream.base_url, type=kind) for kind in ("OpenAI", "Anthropic", "Google")]
    proxy = await start_proxy(document(*one, store_url=store_url, team={}))
    reply = await proxy.ask("POST", path, headers={**headers, "cache-control": "only-if-cached"}, data=body)
    assert (reply.status, reply.code, reply.headers["x-should-retry"]) == (504, "not_cached", "false")
    assert not upstream.seen


async def test_only_if_cached_is_served_where_it_is_cached(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    upstream = await serve()
    proxy = await cached(start_proxy, store_url, upstream)
    await kept(proxy, store_url)
    assert (await told(proxy, "only-if-cached")).body == CHAT_ANSWER
    assert (await told(proxy, "only-if-cached", stream=True)).status == 200
    age(store_url, 3601)
    assert (await told(proxy, "only-if-cached")).status == 504


@pytest.mark.parametrize("failure", [error(503), error(429), error(500)], ids=["503", "429", "500"])
async def test_stale_answers_come_where_every_provider_fails_and_the_application_allows_it(
    start_proxy: StartProxy, serve: Serve, store_url: str, failure: Any
) -> None:
    broken = asyncio.Event()

    async def answer(request: Any, body: bytes) -> Any:
        return await (failure if broken.is_set() else plain())(request, body)

    upstream = await serve(answer)
    team = {"limits": [{"name": "r", "per": "Day", "requests": 100}]}
    proxy = await cached(start_proxy, store_url, upstream, team=team, retry={"maxAttempts": 1})
    await kept(proxy, store_url)
    age(store_url, 3600 + 100)
    broken.set()
    assert (await proxy.chat(temperature=0)).status >= 429
    assert (await told(proxy, "stale-if-error=50")).status >= 429
    reply = await told(proxy, "stale-if-error=200")
    assert (reply.status, reply.headers["x-llm-sidecar-cache"], reply.body) == (200, "stale", CHAT_ANSWER)
    assert int(reply.headers["age"]) >= 3700
    line = await proxy.audit_line(reply.request_id)
    assert (line["cache"], line["charged_tokens"], len(line["attempts"])) == ("stale", 0, 1)
    assert proxy.metric("llm_cache_requests_total", result="stale") == 1
    assert proxy.metric("llm_tokens_total") == 10
    stream = await told(proxy, "stale-if-error=200", stream=True)
    assert (stream.status, stream.headers["x-llm-sidecar-cache"]) == (200, "stale")
    assert stream.body.endswith(b"data: [DONE]\n\n")


async def test_a_stale_answer_never_hides_that_a_request_is_wrong(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    broken = asyncio.Event()

    async def answer(request: Any, body: bytes) -> Any:
        return await (error(400) if broken.is_set() else plain())(request, body)

    proxy = await cached(start_proxy, store_url, await serve(answer))
    await kept(proxy, store_url)
    age(store_url, 3601)
    broken.set()
    assert (await told(proxy, "stale-if-error=3600")).status == 400


async def test_a_stale_answer_is_never_older_than_the_store_would_have_kept_it(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    broken = asyncio.Event()

    async def answer(request: Any, body: bytes) -> Any:
        return await (error(503) if broken.is_set() else plain())(request, body)

    proxy = await cached(start_proxy, store_url, await serve(answer), retry={"maxAttempts": 1})
    await kept(proxy, store_url)
    age(store_url, 3600 + STALE_SECONDS + 1)
    broken.set()
    assert (await told(proxy, "stale-if-error=99999999")).status == 503


async def test_a_healthy_provider_is_asked_although_something_stale_is_there(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    proxy = await cached(start_proxy, store_url, await serve())
    await kept(proxy, store_url)
    age(store_url, 3601)
    assert (await told(proxy, "stale-if-error=3600")).headers["x-llm-sidecar-cache"] == "miss"


async def test_the_directive_is_no_part_of_the_question(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    """Nor is anything else that an HTTP client adds by itself."""
    proxy = await cached(start_proxy, store_url, await serve())
    await kept(proxy, store_url)
    headers = {"cache-control": "max-age=3600", "pragma": "no-cache", "sec-fetch-mode": "cors"}
    assert (await proxy.chat(headers=headers, temperature=0)).headers["x-llm-sidecar-cache"] == "hit"
