"""A batch of texts asks a provider only for what nobody asked before; and the answer is the one that it would be."""

from __future__ import annotations

import asyncio
import base64
import struct
import time
from collections.abc import Awaitable, Callable
from operator import itemgetter
from typing import Any

import openai
import orjson
import pytest
import redis
from aiohttp import web

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import TOKEN, Proxy, Reply, Upstream, document, error, held_back, provider, until

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


async def embed(
    proxy: Proxy,
    given: Any,
    *,
    stored: int | None = None,
    store_url: str = "",
    cache_control: str | None = None,
    **members: Any,
) -> Reply:
    data = orjson.dumps({"model": "m", "input": given, **members})
    headers = {"content-type": "application/json"}
    if cache_control is not None:
        headers["cache-control"] = cache_control
    reply = await proxy.ask("POST", PATH, data=data, headers=headers)
    if stored is not None:
        await until(lambda: len(items(store_url)) == stored)
    return reply


def make_older(store_url: str, key: bytes, seconds: float) -> None:
    """As if what lies there had been asked for so long before."""
    with redis.Redis.from_url(store_url) as client:
        entry: Any = client.get(key)
        head, _, packed = entry.partition(b"\n")
        told = orjson.loads(head)
        client.set(key, orjson.dumps({**told, "asked_at": told["asked_at"] - seconds}) + b"\n" + packed)


def asked_at(store_url: str) -> list[float]:
    with redis.Redis.from_url(store_url) as client:
        entries: list[Any] = [client.get(key) for key in items(store_url)]
    return [orjson.loads(entry.partition(b"\n")[0])["asked_at"] for entry in entries]


async def stored_by_age(proxy: Proxy, store_url: str, **ages: float) -> None:
    """Have texts stored, and be so many seconds old."""
    for text, seconds in ages.items():
        before = set(items(store_url))
        await embed(proxy, [text], stored=len(before) + 1, store_url=store_url)
        (key,) = set(items(store_url)) - before
        make_older(store_url, key, seconds)


def saved(proxy: Proxy) -> tuple[float, float]:
    tokens = proxy.metric("llm_optimization_saved_tokens_total", strategy="embedding_items")
    return tokens, proxy.metric("llm_optimization_saved_usd_total", strategy="embedding_items")


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
    assert saved(proxy) == (0, 0)
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


@pytest.mark.parametrize(
    ("useless", "expected"),
    [
        ({"data": [{"embedding": [1.0], "index": 0}] * 2, "usage": {"prompt_tokens": 7}}, (12, "measured")),
        ({"data": [{"embedding": None, "index": 0}], "usage": {"prompt_tokens": 7}}, (12, "measured")),
        ({"data": [{"embedding": None, "index": 0}]}, (None, "estimated")),
    ],
    ids=["two-for-one", "null", "null-without-usage"],
)
async def test_what_a_useless_answer_took_is_charged_beside_the_whole_batch(
    start_proxy: StartProxy,
    serve: Serve,
    store_url: str,
    useless: Any,
    expected: tuple[int | None, str],
) -> None:
    """Nothing was spared: the whole batch was paid, and more."""

    async def odd(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        if orjson.loads(body)["input"] == ["b"]:
            return web.json_response(useless)
        return await embeds()(request, body)

    team = {"limits": [{"name": "t", "per": "Day", "tokens": 1000}]}
    proxy = await started(start_proxy, store_url, await serve(odd), team=team)
    await embed(proxy, ["aaaa"], stored=1, store_url=store_url)
    reply = await embed(proxy, ["aaaa", "b"])
    line = await proxy.audit_line(reply.request_id)

    assert vectors(reply) == [vector("aaaa"), vector("b")]
    assert reply.json()["usage"]["prompt_tokens"] == 5
    charged, source = expected
    assert line["usage_source"] == source
    assert line["charged_tokens"] == charged if charged is not None else line["charged_tokens"] > 5
    assert line["cost_nano_usd"] == line["charged_tokens"] * 1000
    assert reply.headers["x-llm-sidecar-cost-usd"] == f"{line['charged_tokens'] * 1e-6:.9f}"
    assert saved(proxy) == (0, 0)
    assert len(items(store_url)) == 1


async def test_a_useless_answer_is_charged_though_the_whole_batch_fails(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    async def odd(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        given = orjson.loads(body)["input"]
        if given == ["b"]:
            return web.json_response({"data": [], "usage": {"prompt_tokens": 7}})
        return await (embeds() if given == ["a"] else error(500))(request, body)

    proxy = await started(start_proxy, store_url, await serve(odd))
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    reply = await embed(proxy, ["a", "b"])

    assert reply.status == 500
    assert (await proxy.audit_line(reply.request_id))["charged_tokens"] == 7
    assert saved(proxy) == (0, 0)


async def test_null_in_the_place_of_a_vector_is_not_stored(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """The application gets what the provider said."""

    async def nothing(_request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        return web.json_response({"data": [{"index": index, "embedding": None} for index in range(2)]})

    one = await serve(nothing)
    proxy = await started(start_proxy, store_url, one)
    replies = [await embed(proxy, ["a", "b"]) for _ in range(2)]

    assert [vectors(reply) for reply in replies] == [[None, None]] * 2
    assert len(one.seen) == 2
    assert items(store_url) == []


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


async def test_an_application_that_wants_no_cache_gets_none(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    await embed(proxy, ["a"], stored=1, store_url=store_url)

    reply = await embed(proxy, ["a", "b"], cache_control="no-store")
    await embed(proxy, ["c"], stored=2, store_url=store_url)  # what came before would be stored by now

    assert results(reply) == ["bypass"]
    assert inputs(one) == [["a"], ["a", "b"], ["c"]]


async def test_who_asks_anew_renews_what_others_get(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    salts = iter(["first", "second", "third"])

    async def changing(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        return await embeds(salt=next(salts))(request, body)

    one = await serve(changing)
    proxy = await started(start_proxy, store_url, one)
    await stored_by_age(proxy, store_url, a=100, b=100)
    renewed = await embed(proxy, ["a", "b", "a"], cache_control="no-cache")
    await until(lambda: min(asked_at(store_url)) > time.time() - 50)
    later = await embed(proxy, ["a", "b"])

    assert inputs(one) == [["a"], ["b"], ["a", "b"]]
    assert results(renewed, later) == ["miss", "hit"]
    assert vectors(renewed) == [vector(["third", text]) for text in "aba"]
    assert vectors(later) == [vector(["third", text]) for text in "ab"]
    assert "age" not in renewed.headers
    assert int(later.headers["age"]) < 50


async def test_vectors_older_than_the_application_wants_are_asked_for(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    await stored_by_age(proxy, store_url, old=1000, new=100)
    young = await embed(proxy, ["old", "new"], cache_control="max-age=2000")
    mixed = await embed(proxy, ["old", "new"], cache_control="max-age=500")
    none = await embed(proxy, ["old", "new"], cache_control="max-age=0")

    assert inputs(one) == [["old"], ["new"], ["old"], ["old", "new"]]
    assert results(young, mixed, none) == ["hit", "miss", "miss"]
    assert [vectors(reply) for reply in (young, mixed, none)] == [[vector("old"), vector("new")]] * 3
    assert 1000 <= int(young.headers["age"]) < 1100
    assert 100 <= int(mixed.headers["age"]) < 200
    assert "age" not in none.headers


async def test_an_application_may_want_cached_vectors_or_none(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    there = await embed(proxy, ["a", "a"], cache_control="only-if-cached")
    lacking = await embed(proxy, ["a", "b"], cache_control="only-if-cached")
    anew = await embed(proxy, ["a"], cache_control="only-if-cached, no-cache")

    assert (results(there), vectors(there)) == (["hit"], [vector("a")] * 2)
    assert [(reply.status, reply.code, *results(reply)) for reply in (lacking, anew)] == [
        (504, "not_cached", "miss")
    ] * 2
    assert len(one.seen) == 1
    assert saved(proxy)[0] == 2  # of the first


async def test_who_would_take_stale_answers_gets_vectors_one_by_one(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one)
    await embed(proxy, ["a"], stored=1, store_url=store_url)
    await embed(proxy, ["a", "b"], cache_control="stale-if-error=60", stored=2, store_url=store_url)

    assert inputs(one) == [["a"], ["b"]]


@pytest.mark.parametrize("why", ["no-cache", "max-age=0", "purged", "purged-by-age"])
async def test_who_wants_newer_vectors_joins_nobody(
    start_proxy: StartProxy, serve: Serve, store_url: str, why: str
) -> None:
    gate = asyncio.Event()
    one = await serve(held_back(gate, embeds()))
    proxy = await started(start_proxy, store_url, one)
    tasks = [asyncio.create_task(embed(proxy, ["a"]))]
    await until(lambda: len(one.seen) == 1)
    with redis.Redis.from_url(store_url) as client:
        epochs = "llm-sidecar:v1:{payments/payments}:cache-epochs"
        if why == "purged":
            client.hincrby(epochs, "provider/llm-system/p0", 1)
        if why == "purged-by-age":
            client.hset(epochs, "not_before", 1)
    directive = None if why.startswith("purged") else why
    tasks.append(asyncio.create_task(embed(proxy, ["a"], cache_control=directive)))
    await until(lambda: len(one.seen) == 2)
    gate.set()

    assert results(*await asyncio.gather(*tasks)) == ["miss", "miss"]


async def test_a_lowered_time_holds_for_vectors_that_are_there(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve(embeds())
    proxy = await started(start_proxy, store_url, one, team={"cache": {"maxTTLSeconds": 60}})
    await stored_by_age(proxy, store_url, old=3600, new=30)
    reply = await embed(proxy, ["old", "new"])

    assert inputs(one) == [["old"], ["new"], ["old"]]
    assert 30 <= int(reply.headers["age"]) < 60


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
    one = await serve(held_back(gate, embeds()))
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
