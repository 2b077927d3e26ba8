"""A batch of texts asks a provider only for what nobody asked before; and the answer is the one that it would be."""

from __future__ import annotations

import asyncio
import base64
import struct
from collections.abc import Awaitable, Callable
from operator import itemgetter
from typing import Any

import openai
import orjson
import pytest
import redis
from aiohttp import web

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import TOKEN, Proxy, Reply, Upstream, document, error, provider, until

Serve = Callable[..., Awaitable[Upstream]]
PATH = "/v1/embeddings"
BATCH_PATH = "/v1beta/models/g:batchEmbedContents"
MODELS: list[Any] = [{"name": "m", "pricing": {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "0"}}]
GOOGLE: dict[str, Any] = {"type": "Google", "models": ["g"]}


def vector(given: Any, dimensions: int = 4) -> list[float]:
    """The same for the same item, and another for any other."""
    seed = orjson.dumps(given, option=orjson.OPT_SORT_KEYS)
    return [sum(seed[position::7]) / 8 for position in range(dimensions)]


def embeds(*, salt: str = "") -> Callable[[web.BaseRequest, bytes], Awaitable[web.StreamResponse]]:
    """A provider in OpenAI's language: one token for each letter or id."""

    async def answer(_request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        asked = orjson.loads(body)
        given = asked["input"]
        items = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        dimensions = asked.get("dimensions", 4)
        data = []
        for index, item in enumerate(items):
            value: Any = vector([salt, item] if salt else item, dimensions)
            if asked.get("encoding_format") == "base64":
                value = base64.b64encode(struct.pack(f"<{dimensions}f", *value)).decode()
            data.append({"object": "embedding", "index": index, "embedding": value})
        tokens = sum(len(item) for item in items)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        told = {"object": "list", "data": list(reversed(data)), "model": "m-2026", "usage": usage}
        return web.Response(body=orjson.dumps(told), content_type="application/json")

    return answer


async def embeds_as_gemini(_request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    asked = orjson.loads(body)
    told = {"embeddings": [{"values": vector(one)} for one in asked["requests"]]}
    return web.Response(body=orjson.dumps(told), content_type="application/json")


async def started(start_proxy: StartProxy, store_url: str, *upstreams: Upstream, **spec: Any) -> Proxy:
    team = spec.pop("team", {})
    spec = {"models": MODELS, "retry": {"maxAttempts": 1}, **spec}
    told = [provider(f"p{number}", one.base_url, priority=number, **spec) for number, one in enumerate(upstreams)]
    return await start_proxy(document(*told, store_url=store_url, team=team))


def items(store_url: str) -> list[bytes]:
    with redis.Redis.from_url(store_url) as client:
        return sorted(client.keys("*:cache:*"))


async def embed(proxy: Proxy, given: Any, *, stored: int | None = None, store_url: str = "", **members: Any) -> Reply:
    data = orjson.dumps({"model": "m", "input": given, **members})
    reply = await proxy.ask("POST", PATH, data=data, headers={"content-type": "application/json"})
    if stored is not None:
        await until(lambda: len(items(store_url)) == stored)
    return reply


def inputs(upstream: Upstream) -> list[Any]:
    return [orjson.loads(one.body)["input"] for one in upstream.seen]


def vectors(reply: Reply) -> list[Any]:
    data = sorted(reply.json()["data"], key=itemgetter("index"))  # the provider begins with the last
    assert [one["index"] for one in data] == list(range(len(data)))
    return [one["embedding"] for one in data]


def results(*replies: Reply) -> list[str]:
    return [reply.headers["x-llm-sidecar-cache"] for reply in replies]


async def test_a_batch_asks_only_for_what_is_new(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one, team={"limits": [{"name": "t", "per": "Day", "tokens": 1000}]})
    first = await embed(proxy, ["aaa", "bb"], stored=2, store_url=store_url)
    second = await embed(proxy, ["c", "bb", "dd", "aaa", "c"], stored=4, store_url=store_url)
    third = await embed(proxy, ["dd", "aaa", "c"])

    assert inputs(one) == [["aaa", "bb"], ["c", "dd"]]
    assert [vectors(reply) for reply in (first, second, third)] == [
        [vector(text) for text in texts] for texts in (["aaa", "bb"], ["c", "bb", "dd", "aaa", "c"], ["dd", "aaa", "c"])
    ]
    assert [reply.json()["usage"]["prompt_tokens"] for reply in (first, second, third)] == [5, 3, 0]
    assert [one["index"] for one in second.json()["data"]] == list(range(5))
    assert {reply.json()["model"] for reply in (first, second, third)} == {"m-2026"}
    assert {reply.json()["object"] for reply in (first, second, third)} == {"list"}
    assert results(first, second, third) == ["miss", "miss", "hit"]
    assert third.headers["x-llm-sidecar-provider"] == "p0"
    assert "x-llm-sidecar-cost-usd" not in third.headers
    lines = [await proxy.audit_line(reply.request_id) for reply in (first, second, third)]
    assert [line["charged_tokens"] for line in lines] == [5, 3, 0]
    assert proxy.metric("llm_tokens_total") == 8
    assert proxy.metric("llm_cache_saved_tokens_total") == 6
    assert proxy.metric("llm_optimization_saved_tokens_total", strategy="embedding_items") == 11
    assert proxy.metric("llm_optimization_saved_usd_total", strategy="embedding_items") == pytest.approx(11e-6)


async def test_a_text_is_found_alone_and_in_a_list_and_tokens_are_one_input(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    await embed(proxy, "aaa", stored=1, store_url=store_url)
    await embed(proxy, [1, 2, 3], stored=2, store_url=store_url)

    replies = [await embed(proxy, given) for given in (["aaa"], [[1, 2, 3]], [1, 2, 3])]

    assert inputs(one) == ["aaa", [1, 2, 3]]
    assert [vectors(reply) for reply in replies] == [[vector("aaa")], [vector([1, 2, 3])], [vector([1, 2, 3])]]


@pytest.mark.parametrize(
    "other",
    [{"dimensions": 2}, {"encoding_format": "base64"}, {"model": "n"}, {"unknown": 1}],
    ids=lambda one: next(iter(one)),
)
async def test_what_could_change_a_vector_is_asked_for_again(
    start_proxy: StartProxy, serve: Serve, store_url: str, other: dict[str, Any]
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one, models=[*MODELS, "n"])
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    await embed(proxy, ["a"], stored=2, store_url=store_url, **other)

    assert results(await embed(proxy, ["a"], user="somebody", **other)) == ["hit"]
    assert len(one.seen) == 2


async def test_the_sdk_reads_what_was_put_together(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    """It asks for base64 by itself, and turns it into numbers."""
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    async with openai.AsyncOpenAI(base_url=f"{proxy.base_url}/v1", api_key=TOKEN) as client:
        await client.embeddings.create(model="m", input=["a", "b"])
        await until(lambda: len(items(store_url)) == 2)
        answer = await client.embeddings.create(model="m", input=["b", "c", "a"])

    assert [one.embedding for one in answer.data] == [vector(text) for text in ("b", "c", "a")]
    assert answer.usage.prompt_tokens == 1
    assert inputs(one) == [["a", "b"], ["c"]]


async def test_geminis_batches_ask_only_for_what_is_new(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    one = await serve(embeds_as_gemini)
    proxy = await started(start_proxy, store_url, one, **GOOGLE)

    def asked(text: str, task: str = "RETRIEVAL_DOCUMENT") -> dict[str, Any]:
        return {"model": "models/g", "content": {"parts": [{"text": text}]}, "taskType": task}

    batches = [
        [asked("a"), asked("b")],
        [asked("b", "RETRIEVAL_QUERY"), asked("a"), asked("b")],
        [asked("b"), asked("a")],
    ]
    replies = []
    for batch, stored in zip(batches, (2, 3, 3), strict=True):
        data = orjson.dumps({"requests": batch})
        replies.append(await proxy.ask("POST", BATCH_PATH, data=data, headers={"x-goog-api-key": TOKEN}))
        await until(lambda expected=stored: len(items(store_url)) == expected)  # type: ignore[misc]

    sent = [orjson.loads(one.body)["requests"] for one in one.seen]
    assert sent == [batches[0], [batches[1][0]]]
    assert [[one["values"] for one in reply.json()["embeddings"]] for reply in replies] == [
        [vector(one) for one in batch] for batch in batches
    ]
    assert results(*replies) == ["miss", "miss", "hit"]


async def test_a_first_batch_goes_out_byte_by_byte(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    body = b'{ "input" : ["a", "b"],"model":"m" }'
    await proxy.ask("POST", PATH, data=body)

    assert one.seen[0].body == body


async def test_vectors_of_a_stand_in_are_never_mixed_with_others(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """The first provider fails for what is new: the second one is asked for the whole batch, and nothing is stored."""
    broken = asyncio.Event()

    async def may_fail(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        return await (error(500) if broken.is_set() else embeds())(request, body)

    first, second = await serve(may_fail), await serve(embeds(salt="second"))
    proxy = await started(start_proxy, store_url, first, second)
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    broken.set()
    reply = await embed(proxy, ["a", "b"])

    assert inputs(second) == [["a", "b"]]
    assert vectors(reply) == [vector(["second", text]) for text in ("a", "b")]
    assert len(items(store_url)) == 1


async def test_without_anybody_else_a_providers_failure_is_told(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    seen = 0

    async def once(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        return await (embeds() if seen == 1 else error(500))(request, body)

    proxy = await started(start_proxy, store_url, await serve(once))
    await embed(proxy, ["a"], stored=1, store_url=store_url)

    assert (await embed(proxy, ["a", "b"])).status == 500
    assert vectors(await embed(proxy, ["a"])) == [vector("a")]
    assert seen == 2


async def test_an_answer_that_cannot_be_put_together_is_asked_for_whole(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    async def odd(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if orjson.loads(body)["input"] == ["b"]:
            return web.json_response({"data": [{"embedding": [1.0], "index": 0}] * 2})
        return await embeds()(request, body)

    one = await serve(odd)
    proxy = await started(start_proxy, store_url, one)
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    reply = await embed(proxy, ["a", "b"])

    assert vectors(reply) == [vector("a"), vector("b")]
    assert inputs(one) == [["a"], ["b"], ["a", "b"]]


@pytest.mark.parametrize("harm", ["cut", "swapped", "foreign", "garbage", "purged", "not-before"])
async def test_an_entry_that_is_not_exactly_right_is_a_miss(
    start_proxy: StartProxy, serve: Serve, store_url: str, harm: str
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    await embed(proxy, ["a", "b"], stored=2, store_url=store_url)
    first, second = items(store_url)
    with redis.Redis.from_url(store_url) as client:
        entry: Any = client.get(first)
        match harm:
            case "cut":
                client.set(first, entry[:-1])
                client.set(second, b"")
            case "swapped":
                client.set(first, client.get(second) or b"")
                client.set(second, entry)
            case "foreign":
                for key in (first, second):
                    told: Any = client.get(key)
                    client.set(key, told.replace(b"payments/payments", b"payments/paymentz"))
            case "garbage":
                client.set(first, b"\x00{")
                client.delete(second)
                client.hset(second.decode(), "a", "b")
            case "purged":
                client.hincrby("llm-sidecar:v1:{payments/payments}:cache-epochs", "provider/llm-system/p0", 1)
            case _:  # "not-before"
                client.hset("llm-sidecar:v1:{payments/payments}:cache-epochs", "not_before", 2**40)

    reply = await embed(proxy, ["a", "b"])

    assert results(reply) == ["miss"]
    assert vectors(reply) == [vector("a"), vector("b")]
    assert inputs(one) == [["a", "b"], ["a", "b"]]


@pytest.mark.parametrize(
    "how", [{"cache-control": "no-store"}, {"cache-control": "no-cache"}], ids=lambda one: one["cache-control"]
)
async def test_an_application_that_wants_no_cache_gets_none(
    start_proxy: StartProxy, serve: Serve, store_url: str, how: dict[str, str]
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    data = orjson.dumps({"model": "m", "input": ["a"]})

    await proxy.ask("POST", PATH, data=data, headers=how)

    assert len(one.seen) == 2


async def test_where_embeddings_are_not_cached_nothing_is_kept(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one, cache={"ttlSeconds": {"embeddings": 0}})
    replies = [await embed(proxy, ["a"]) for _ in range(2)]

    assert results(*replies) == ["bypass", "bypass"]
    assert items(store_url) == []


async def test_identical_batches_at_once_ask_once(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    gate = asyncio.Event()

    async def held_back(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        await gate.wait()
        return await embeds()(request, body)

    one = await serve(held_back)
    proxy = await started(start_proxy, store_url, one)
    gate.set()
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    gate.clear()
    tasks = [asyncio.create_task(embed(proxy, ["a", "b"])) for _ in range(5)]
    pipeline: Any = proxy.sidecar._pipeline
    flights = pipeline._calls._flying._flights._flights
    await until(lambda: sum(len(flight._listeners) for flight in flights.values()) == 5)
    gate.set()
    replies = await asyncio.gather(*tasks)

    assert inputs(one) == [["a"], ["b"]]
    assert [vectors(reply) for reply in replies] == [[vector("a"), vector("b")]] * 5
    assert sorted(results(*replies)) == ["coalesced"] * 4 + ["miss"]


async def test_a_large_batch_is_looked_up_and_answered(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    texts = [f"text {number}" for number in range(600)]
    await embed(proxy, texts[:300], stored=300, store_url=store_url, dimensions=256)
    reply = await embed(proxy, texts, stored=600, store_url=store_url, dimensions=256)

    assert inputs(one)[1] == texts[300:]
    assert vectors(reply) == [vector(text, 256) for text in texts]
