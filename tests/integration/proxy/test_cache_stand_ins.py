"""A stand-in's stored answers spare it the same question, for as long as the first choice is away; never longer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from llm_sidecar.cache import memory
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import CHAT_ANSWER, Proxy, Reply, Upstream, document, error, plain, provider, until
from tests.integration.proxy.test_cache import entries
from tests.integration.proxy.test_cache_control import age
from tests.integration.proxy.test_circuit import OPEN, Switched

Serve = Callable[..., Awaitable[Upstream]]
SECOND = CHAT_ANSWER.replace(b"pong", b"second")


@pytest.fixture(params=["memory", "store"])
def _nothing_is_remembered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "store":
        monkeypatch.setattr(memory, "LIFETIME_SECONDS", -1.0)


async def two(start_proxy: StartProxy, store_url: str, first: Upstream, second: Upstream, **spec: Any) -> Proxy:
    """The second is asked for another model in the first one's stead."""
    circuit = {"failureThreshold": 3, "openSeconds": 60}
    stand_in = {"name": "other", "failoverFor": ["m"]}
    once = {"maxAttempts": 1}
    return await start_proxy(
        document(
            provider("first", first.base_url, retry=once, circuitBreaker=circuit, **spec),
            provider("second", second.base_url, models=[stand_in], retry=once, circuitBreaker=circuit, **spec),
            store_url=store_url,
            team={},
        )
    )


async def ask(proxy: Proxy, store_url: str, **members: Any) -> Reply:
    """One request, and all that is stored of it."""
    reply = await proxy.chat(temperature=0, **members)
    if reply.status == 200:
        await until(lambda: bool(entries(store_url)))
        await proxy.sidecar._pipeline.close()  # type: ignore[union-attr]
    return reply


def told(reply: Reply) -> tuple[str, str, str]:
    headers = reply.headers
    return headers["x-llm-sidecar-cache"], headers["x-llm-sidecar-provider"], headers["x-llm-sidecar-model"]


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_while_the_first_is_left_alone_its_stand_in_answers_once(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    first, second = await serve(error(500)), await serve(plain(SECOND))
    proxy = await two(start_proxy, store_url, first, second)

    replies = [await ask(proxy, store_url) for _ in range(12)]

    assert proxy.metric("llm_circuit_state", provider="first", model="m") == OPEN
    assert [told(reply) for reply in replies] == [("miss", "second", "other")] * 3 + [("hit", "second", "other")] * 9
    assert {reply.body for reply in replies} == {SECOND}
    assert (len(first.seen), len(second.seen)) == (3, 3)
    assert len(entries(store_url)) == 1
    stream = await proxy.chat(temperature=0, stream=True)
    assert (told(stream), stream.body.endswith(b"data: [DONE]\n\n")) == (("hit", "second", "other"), True)
    only = await proxy.chat(temperature=0, headers={"cache-control": "only-if-cached"})
    assert told(only) == ("hit", "second", "other")
    anew = await proxy.chat(temperature=0, headers={"cache-control": "no-cache"})
    assert told(anew)[0] == "miss"


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_of_equals_the_same_one_is_asked_the_same(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    """Each question once, though the questions are spread over all."""
    upstreams = [await serve(), await serve(plain(SECOND))]
    both = [provider(f"p{number}", one.base_url) for number, one in enumerate(upstreams)]
    proxy = await start_proxy(document(*both, store_url=store_url, team={}))
    for number in range(12):
        replies = [await ask(proxy, store_url, seed=number) for _ in range(4)]
        assert [reply.headers["x-llm-sidecar-cache"] for reply in replies] == ["miss"] + ["hit"] * 3
        assert len({reply.body for reply in replies}) == 1
    assert sum(len(one.seen) for one in upstreams) == 12
    assert all(one.seen for one in upstreams)


async def test_the_key_in_the_log_is_that_of_the_place_where_the_answer_lies(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """Whoever purges by it must reach the answer."""
    proxy = await two(start_proxy, store_url, await serve(error(500)), await serve(plain(SECOND)))
    replies = [await ask(proxy, store_url) for _ in range(4)]
    (key,) = entries(store_url)
    for reply in (replies[0], replies[-1]):
        assert key.endswith(b":" + (await proxy.audit_line(reply.request_id))["cache_key"].encode())


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_what_the_first_one_said_goes_before(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    """Also while it is away: both lie there, and it was asked first."""
    switched = Switched(plain())
    first, second = await serve(switched), await serve(plain(SECOND))
    proxy = await two(start_proxy, store_url, first, second)
    assert told(await ask(proxy, store_url))[1] == "first"
    switched.answer = error(500)
    for _ in range(3):
        await ask(proxy, store_url, seed=1)
    assert told(await ask(proxy, store_url)) == ("hit", "first", "m")
    assert told(await ask(proxy, store_url, seed=1)) == ("hit", "second", "other")


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_a_first_choice_that_works_is_asked_whatever_its_stand_in_said(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    switched = Switched(error(500))
    first, second = await serve(switched), await serve(plain(SECOND))
    proxy = await two(start_proxy, store_url, first, second)
    assert told(await ask(proxy, store_url)) == ("miss", "second", "other")
    only = await proxy.chat(temperature=0, headers={"cache-control": "only-if-cached"})
    assert only.status == 504
    switched.answer = plain()
    assert told(await ask(proxy, store_url)) == ("miss", "first", "m")
    assert told(await ask(proxy, store_url)) == ("hit", "first", "m")


@pytest.mark.usefixtures("_nothing_is_remembered")
@pytest.mark.parametrize("failure", [error(500), error(429)], ids=["500", "429"])
async def test_where_all_fail_a_stand_ins_stored_answer_is_better_than_an_error(
    start_proxy: StartProxy, serve: Serve, store_url: str, failure: Any
) -> None:
    switched = Switched(plain(SECOND))
    proxy = await two(start_proxy, store_url, await serve(error(500)), await serve(switched))
    assert told(await ask(proxy, store_url))[0] == "miss"
    switched.answer = failure
    reply = await proxy.chat(temperature=0)
    assert (reply.status, told(reply), reply.body) == (200, ("hit", "second", "other"), SECOND)
    line = await proxy.audit_line(reply.request_id)
    assert (line["cache"], line["charged_tokens"], len(line["attempts"])) == ("hit", 0, 2)
    assert (await proxy.chat(temperature=0, seed=1)).status >= 429
    assert (await proxy.chat(temperature=0, headers={"cache-control": "no-cache"})).status >= 429


async def test_a_stand_ins_answer_is_stale_after_its_time(
    start_proxy: StartProxy, serve: Serve, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LIFETIME_SECONDS", -1.0)
    switched = Switched(plain(SECOND))
    proxy = await two(start_proxy, store_url, await serve(error(500)), await serve(switched))
    await ask(proxy, store_url)
    age(store_url, 3700)
    switched.answer = error(500)
    assert (await proxy.chat(temperature=0)).status == 500
    reply = await proxy.chat(temperature=0, headers={"cache-control": "stale-if-error=200"})
    assert (reply.status, told(reply)) == (200, ("stale", "second", "other"))
    assert orjson.loads(reply.body) == orjson.loads(SECOND)


@pytest.mark.usefixtures("_nothing_is_remembered")
async def test_what_a_provider_may_have_done_before_a_stored_answer_was_given_is_charged_and_counted(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """The request was there, and the connection went: nobody knows what it cost."""
    first, second = Switched(error(500)), Switched(plain(SECOND))
    proxy = await two(start_proxy, store_url, await serve(first), await serve(second))
    await ask(proxy, store_url)
    first.answer, second.answer = broken_off, error(500)
    reply = await proxy.chat(temperature=0)
    line = await proxy.audit_line(reply.request_id)

    assert (told(reply)[0], line["usage_source"]) == ("hit", "partial")
    assert line["charged_tokens"] > 0
    assert proxy.metric("llm_usage_source_total", source="partial") == 1


async def broken_off(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
    """Takes a request, and goes."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
