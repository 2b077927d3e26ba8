"""Identical requests at the same time make one call to a provider, whatever becomes of the one that came first."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from aiohttp import web

from llm_sidecar import flying
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_ANSWER,
    CHAT_PATH,
    TOKEN,
    Answer,
    Proxy,
    Reply,
    Upstream,
    chat_body,
    document,
    error,
    held_back,
    plain,
    provider,
    streaming,
    until,
)
from tests.integration.proxy.test_cache import entries
from tests.integration.proxy.wire import CHAT_CONTENT, CHAT_STREAM

Serve = Callable[..., Awaitable[Upstream]]
PRICED = [{"name": "m", "pricing": {"inputUSDPerMillionTokens": "1000", "outputUSDPerMillionTokens": "1000"}}]


async def proxy_of(start_proxy: StartProxy, store_url: str, *upstreams: Upstream, **spec: Any) -> Proxy:
    team = spec.pop("team", {})
    spec = {"retry": {"maxAttempts": 1}, **spec}
    told = [provider(f"p{number}", one.base_url, priority=number, **spec) for number, one in enumerate(upstreams)]
    return await start_proxy(document(*told, store_url=store_url, team=team))


async def at_once(proxy: Proxy, count: int, **members: Any) -> list[asyncio.Task[Reply]]:
    """So many identical requests, of which the first leads."""
    tasks = [asyncio.create_task(proxy.chat(temperature=0, **members))]
    await joined(proxy, 1)
    return tasks + [asyncio.create_task(proxy.chat(temperature=0, **members)) for _ in range(count - 1)]


async def answers(tasks: list[asyncio.Task[Reply]]) -> list[Reply]:
    async with asyncio.timeout(10):
        return await asyncio.gather(*tasks)


def results(replies: list[Reply]) -> list[str]:
    return sorted(reply.headers["x-llm-sidecar-cache"] for reply in replies)


async def joined(proxy: Proxy, count: int) -> None:
    """Wait until so many requests are under way, and what they had to do before waiting is done."""
    await until(lambda: len(flights(proxy)) == 1 and listeners(proxy) == count)


def flights(proxy: Proxy) -> Any:
    pipeline: Any = proxy.sidecar._pipeline
    return pipeline._calls._flying._flights._flights


def listeners(proxy: Proxy) -> int:
    return sum(len(flight._listeners) for flight in flights(proxy).values())


async def test_many_plain_requests_make_one_call_and_one_pays(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    gate = asyncio.Event()
    one = await serve(held_back(gate, plain()))
    team = {"limits": [{"name": "r", "per": "Day", "requests": 1}]}
    proxy = await proxy_of(start_proxy, store_url, one, team=team, models=PRICED)
    tasks = await at_once(proxy, 20)
    await joined(proxy, 20)
    gate.set()
    replies = await answers(tasks)

    assert len(one.seen) == 1
    assert results(replies) == ["coalesced"] * 19 + ["miss"]
    assert {reply.body for reply in replies} == {CHAT_ANSWER}
    assert {reply.status for reply in replies} == {200}
    assert len({reply.request_id for reply in replies}) == 20
    assert [reply.headers.get("x-llm-sidecar-cost-usd") for reply in replies].count("0.010000000") == 1
    assert proxy.metric("llm_tokens_total", kind="input") == 7
    assert proxy.metric("llm_cost_usd_total") == pytest.approx(0.01)
    assert proxy.metric("llm_optimization_saved_tokens_total", strategy="single_flight") == 190
    assert proxy.metric("llm_optimization_saved_usd_total", strategy="single_flight") == pytest.approx(0.19)
    await until(lambda: flights(proxy) == {})  # others may join until the answer is stored


async def test_followers_get_the_leaders_stream_while_it_arrives(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    gate = asyncio.Event()
    one = await serve(streaming(*CHAT_CONTENT, hold=gate))
    proxy = await proxy_of(start_proxy, store_url, one)
    data = chat_body(temperature=0, stream=True)
    async with proxy.open("POST", CHAT_PATH, data=data) as leader, proxy.open("POST", CHAT_PATH, data=data) as follower:
        expected = b"".join(CHAT_CONTENT)
        assert await leader.content.readexactly(len(expected)) == expected
        assert await follower.content.readexactly(len(expected)) == expected
        assert follower.headers["x-llm-sidecar-cache"] == "coalesced"
        assert follower.headers["content-type"] == leader.headers["content-type"]
        gate.set()
        tails = await leader.content.read(), await follower.content.read()
    assert tails[0] == tails[1]
    assert b'"error"' in tails[0]  # the provider had ended it before it was complete
    assert len(one.seen) == 1


async def test_streams_are_shared_to_their_end_with_the_usage_of_the_one_who_paid(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    gate = asyncio.Event()
    one = await serve(held_back(gate, streaming(*CHAT_STREAM)))
    proxy = await proxy_of(start_proxy, store_url, one)
    tasks = await at_once(proxy, 5, stream=True, stream_options={"include_usage": True})
    await joined(proxy, 5)
    gate.set()
    replies = await answers(tasks)

    assert {reply.body for reply in replies} == {b"".join(CHAT_STREAM)}
    assert len(one.seen) == 1
    lines = [await proxy.audit_line(reply.request_id) for reply in replies]
    assert [line["usage"]["output_tokens"] for line in lines] == [3] * 5
    assert sorted(line["charged_tokens"] for line in lines) == [0, 0, 0, 0, 10]


@pytest.mark.parametrize(
    "other",
    [
        {"stream": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"seed": 1},
        {"temperature": 1},
    ],
    ids=["stream", "usage", "meaning", "not-for-the-cache"],
)
async def test_requests_that_differ_fly_apart(
    start_proxy: StartProxy, serve: Serve, store_url: str, other: dict[str, Any]
) -> None:
    gate = asyncio.Event()
    one = await serve(held_back(gate, error(500)))
    proxy = await proxy_of(start_proxy, store_url, one)
    tasks = [asyncio.create_task(proxy.chat(**{"temperature": 0, **members})) for members in ({}, other)]
    await until(lambda: len(one.seen) == 2)
    gate.set()
    await answers(tasks)


async def test_a_stream_that_hides_its_usage_is_none_for_who_asked_for_it(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    gate = asyncio.Event()
    one = await serve(held_back(gate, streaming(*CHAT_STREAM)))
    proxy = await proxy_of(start_proxy, store_url, one)
    options: list[dict[str, Any]] = [{}, {"stream_options": {"include_usage": True}}]
    tasks = [asyncio.create_task(proxy.chat(temperature=0, stream=True, **members)) for members in options]
    await until(lambda: len(one.seen) == 2)
    gate.set()

    hidden, shown = await answers(tasks)
    assert b'"usage":{' not in hidden.body
    assert b'"usage":{' in shown.body


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_leader_that_hangs_up_leaves_the_call_to_its_followers(
    start_proxy: StartProxy, serve: Serve, store_url: str, *, stream: bool
) -> None:
    gate = asyncio.Event()
    one = await serve(held_back(gate, streaming(*CHAT_STREAM) if stream else plain()))
    proxy = await proxy_of(start_proxy, store_url, one)
    leader, *followers = await at_once(proxy, 4, stream=stream)
    await joined(proxy, 4)
    leader.cancel()
    await until(lambda: listeners(proxy) == 3)
    gate.set()
    replies = await answers(followers)

    assert len(one.seen) == 1
    assert results(replies) == ["coalesced"] * 3
    assert [reply.status for reply in replies] == [200] * 3
    await until(lambda: len(proxy.audit_lines()) == 4)
    gone = next(line for line in proxy.audit_lines() if line.get("client_gone"))
    assert gone["charged_tokens"] == 10
    assert gone["usage_source"] == "measured"


async def test_when_the_last_one_hangs_up_the_provider_is_let_go(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    one = await serve(streaming(*CHAT_CONTENT, hold=asyncio.Event()))
    proxy = await proxy_of(start_proxy, store_url, one)
    tasks = await at_once(proxy, 3, stream=True)
    await joined(proxy, 3)
    for task in tasks:
        task.cancel()

    async with asyncio.timeout(1):
        await one.gone.wait()
    await until(lambda: flights(proxy) == {})
    assert len(one.seen) == 1


async def test_followers_of_a_failed_leader_choose_a_new_one_at_once(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    gate = asyncio.Event()
    seen = 0

    async def first_fails(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        if seen == 1:
            await gate.wait()
            return await error(500)(request, body)
        return await plain()(request, body)

    one = await serve(first_fails)
    proxy = await proxy_of(start_proxy, store_url, one)
    tasks = await at_once(proxy, 6)
    await joined(proxy, 6)
    gate.set()
    replies = await answers(tasks)

    assert sorted(reply.status for reply in replies) == [200] * 5 + [500]
    assert len(one.seen) == 2


async def test_after_the_second_failure_everyone_goes_alone(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """Otherwise the last of a hundred would wait for a hundred failures, one after the other."""
    gate = asyncio.Event()
    one = await serve(held_back(gate, error(400)))
    proxy = await proxy_of(start_proxy, store_url, one)
    tasks = await at_once(proxy, 5)
    await joined(proxy, 5)
    gate.set()
    replies = await answers(tasks)

    assert [reply.status for reply in replies] == [400] * 5
    assert len(one.seen) == 5
    assert proxy.metric("llm_requests_total", status="400") == 5


async def test_a_leader_without_quota_holds_nobody_up(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    one = await serve()
    team = {"limits": [{"name": "r", "per": "Day", "requests": 1}]}
    proxy = await proxy_of(start_proxy, store_url, one, team=team)
    assert (await proxy.chat(temperature=1)).status == 200

    replies = await answers([asyncio.create_task(proxy.chat(temperature=0)) for _ in range(4)])

    assert [reply.code for reply in replies] == ["team_quota_exceeded"] * 4


async def test_a_follower_waits_no_longer_than_it_would_have_alone(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """The leader is stuck; whoever joined goes alone once its own time is over."""
    seen = 0

    async def first_hangs(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        if seen == 1:
            await asyncio.Event().wait()
        return await plain()(request, body)

    one = await serve(first_hangs)
    proxy = await proxy_of(start_proxy, store_url, one, timeouts={"responseSeconds": 1})
    leader, follower = await at_once(proxy, 2)
    (reply,) = await answers([follower])

    assert reply.status == 200
    assert len(one.seen) == 2
    leader.cancel()


async def test_who_follows_a_call_that_a_stand_in_answered_names_the_key_of_its_answer(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """Whoever purges what the audit log names must reach it."""
    gate = asyncio.Event()
    proxy = await proxy_of(start_proxy, store_url, await serve(error(500)), await serve(held_back(gate, plain())))
    tasks = await at_once(proxy, 2)
    await joined(proxy, 2)
    gate.set()
    replies = await answers(tasks)
    assert results(replies) == ["coalesced", "miss"]
    await until(lambda: bool(entries(store_url)))
    (stored,) = entries(store_url)
    for reply in replies:
        assert (await proxy.audit_line(reply.request_id))["cache_key"] in stored.decode()


def hangs_at_first(hanging: int) -> Answer:
    """So many requests never get an answer."""
    seen = 0

    async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        nonlocal seen
        seen += 1
        if seen <= hanging:
            await asyncio.Event().wait()
        streams = orjson.loads(body).get("stream", False)
        return await (streaming(*CHAT_STREAM) if streams else plain())(request, body)

    return answer


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_of_those_who_gave_up_a_call_that_hangs_one_asks_anew_for_all(
    start_proxy: StartProxy, serve: Serve, store_url: str, monkeypatch: pytest.MonkeyPatch, *, stream: bool
) -> None:
    """Long before the provider's own time-outs, which are those of the longest answers."""
    monkeypatch.setattr(flying, "UNKNOWN_PATIENCE_SECONDS", 0.3)
    one = await serve(hangs_at_first(1))
    proxy = await proxy_of(start_proxy, store_url, one)
    options = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    leader, *followers = await at_once(proxy, 6, **options)
    replies = await answers(followers)

    assert [reply.status for reply in replies] == [200] * 5
    assert results(replies) == ["coalesced"] * 4 + ["miss"]
    assert len(one.seen) == 2
    assert not leader.done()
    leader.cancel()


async def test_whoever_comes_when_a_call_is_overdue_does_not_wait_for_it(
    start_proxy: StartProxy, serve: Serve, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flying, "UNKNOWN_PATIENCE_SECONDS", 0.0)
    one = await serve(hangs_at_first(1))
    proxy = await proxy_of(start_proxy, store_url, one)
    leader, late = await at_once(proxy, 2)
    (reply,) = await answers([late])
    assert (reply.status, reply.headers["x-llm-sidecar-cache"]) == (200, "miss")
    leader.cancel()


async def test_a_slow_follower_slows_nobody_and_gets_all_of_it(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    chunk = CHAT_CONTENT[1].replace(b"po", b"x" * 60_000)
    pieces = (CHAT_CONTENT[0], *[chunk] * 15, *CHAT_STREAM[3:])
    gate = asyncio.Event()
    one = await serve(held_back(gate, streaming(*pieces)))
    proxy = await proxy_of(start_proxy, store_url, one)
    data = chat_body(temperature=0, stream=True, stream_options={"include_usage": True})
    leading = asyncio.create_task(proxy.ask("POST", CHAT_PATH, data=data))
    await joined(proxy, 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port, limit=1024)
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    await joined(proxy, 2)
    gate.set()

    async with asyncio.timeout(5):
        assert (await leading).body == b"".join(pieces)
        slow = b""
        while piece := await reader.read(65536):
            slow += piece
    writer.close()
    assert slow.count(b"x" * 60_000) == 15
    assert b"[DONE]" in slow
    assert len(one.seen) == 1


async def test_a_follower_that_falls_too_far_behind_never_takes_its_part_for_the_whole(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """It reads nothing of twenty megabytes until the leader has them all: they are not kept for it."""
    chunk = CHAT_CONTENT[1].replace(b"po", b"x" * 100_000)
    pieces = (CHAT_CONTENT[0], *[chunk] * 200, *CHAT_STREAM[3:])
    gate = asyncio.Event()
    one = await serve(held_back(gate, streaming(*pieces)))
    proxy = await proxy_of(start_proxy, store_url, one)
    data = chat_body(temperature=0, stream=True, stream_options={"include_usage": True})
    leading = asyncio.create_task(proxy.ask("POST", CHAT_PATH, data=data))
    await joined(proxy, 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port, limit=1024)
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\nconnection: close\r\n"
    writer.write(f"{head}content-length: {len(data)}\r\n\r\n".encode() + data)
    await joined(proxy, 2)
    gate.set()

    async with asyncio.timeout(10):
        assert (await leading).body == b"".join(pieces)
        pipeline: Any = proxy.sidecar._pipeline
        assert pipeline._budget.held_bytes < 2 * 1024 * 1024
        slow = b""
        while piece := await reader.read(65536):
            slow += piece
    writer.close()
    assert b'"code":"stream_interrupted"' in slow
    assert b"[DONE]" not in slow
    await until(lambda: len(proxy.audit_lines()) == 2)
    assert [line.get("interrupted") for line in proxy.audit_lines() if line["cache"] == "coalesced"] == [True]
    await until(lambda: pipeline._budget.held_bytes == 0)


async def test_what_is_shared_is_counted_and_given_back(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    big = CHAT_ANSWER.replace(b"pong", b"x" * 300_000)
    gate = asyncio.Event()
    one = await serve(held_back(gate, plain(big)))
    proxy = await proxy_of(start_proxy, store_url, one)
    tasks = await at_once(proxy, 10)
    await joined(proxy, 10)
    gate.set()
    replies = await answers(tasks)

    assert {reply.body for reply in replies} == {big}
    pipeline: Any = proxy.sidecar._pipeline
    await until(lambda: pipeline._budget.held_bytes == 0)


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
async def test_a_proxy_that_ends_waits_for_no_flight(
    start_proxy: StartProxy, serve: Serve, store_url: str, *, stream: bool
) -> None:
    forever = asyncio.Event()
    one = await serve(streaming(*CHAT_CONTENT, hold=forever) if stream else held_back(forever, plain()))
    proxy = await proxy_of(start_proxy, store_url, one)
    tasks = await at_once(proxy, 3, stream=stream)
    await joined(proxy, 3)

    async with asyncio.timeout(5):
        await proxy.sidecar.stop()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(proxy.audit_lines()) == 3


_CLIENT = """
import sys, urllib.request
request = urllib.request.Request(sys.argv[1], data=sys.argv[2].encode(), headers={"authorization": sys.argv[3]})
with urllib.request.urlopen(request) as answer:
    while piece := answer.read1():
        sys.stdout.buffer.write(piece)
        sys.stdout.flush()
"""


@pytest.mark.parametrize("killed", ["leader", "follower"])
async def test_an_application_that_is_killed_takes_nothing_from_another(
    start_proxy: StartProxy, serve: Serve, store_url: str, killed: str
) -> None:
    """Two real processes in the middle of one stream; one of them dies without a word."""
    gate = asyncio.Event()
    one = await serve(_in_two_parts(gate))
    proxy = await proxy_of(start_proxy, store_url, one)
    body = orjson.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": "ping"}],
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    )
    told = (proxy.base_url + CHAT_PATH, body.decode(), f"Bearer {TOKEN}")
    applications: list[asyncio.subprocess.Process] = []
    for number in (1, 2):
        applications.append(
            await asyncio.create_subprocess_exec(sys.executable, "-c", _CLIENT, *told, stdout=subprocess.PIPE)
        )
        await until(lambda expected=number: listeners(proxy) == expected)  # type: ignore[misc]
    for application in applications:
        assert application.stdout is not None
        await application.stdout.readuntil(b"po")
    dying, living = applications if killed == "leader" else reversed(applications)
    dying.kill()
    await dying.wait()
    await until(lambda: listeners(proxy) == 1)
    gate.set()

    assert living.stdout is not None
    async with asyncio.timeout(10):
        rest = await living.stdout.read()
        assert await living.wait() == 0
    assert rest.endswith(b"data: [DONE]\n\n")
    assert len(one.seen) == 1
    await until(lambda: len(proxy.audit_lines()) == 2)
    assert sorted(line["charged_tokens"] for line in proxy.audit_lines()) == [0, 10]


def _in_two_parts(gate: asyncio.Event) -> Answer:
    async def answer(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"".join(CHAT_STREAM[:2]))
        await gate.wait()
        await response.write(b"".join(CHAT_STREAM[2:]))
        await response.write_eof()
        return response

    return answer


@pytest.mark.parametrize("seed", range(6))
async def test_whoever_hangs_up_and_whenever_the_others_get_their_answer(
    start_proxy: StartProxy, serve: Serve, store_url: str, seed: int
) -> None:
    """Chance decides who comes, leaves and fails, and when. Each upstream call is paid once, and nothing is left."""
    chance = random.Random(seed)
    answered = 0

    async def unsteady(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        nonlocal answered
        await asyncio.sleep(chance.random() * 0.02)
        if chance.random() < 0.3:
            return await error(500)(request, body)
        pause = chance.random() * 0.02
        if not orjson.loads(body).get("stream"):
            await asyncio.sleep(pause)
            reply = await plain()(request, body)
        else:
            reply = await streaming(*CHAT_STREAM, pause_before_last=pause)(request, body)
        answered += 1
        return reply

    proxy = await proxy_of(start_proxy, store_url, await serve(unsteady), circuitBreaker={"failureThreshold": 1000})

    async def one(number: int) -> Reply | None:
        await asyncio.sleep(chance.random() * 0.05)
        stream = number % 2 == 0
        options: dict[str, Any] = {"stream_options": {"include_usage": True}} if stream else {}
        asking = asyncio.create_task(proxy.chat(temperature=0, seed=number % 4, stream=stream, **options))
        if chance.random() < 0.4:
            await asyncio.sleep(chance.random() * 0.05)
            asking.cancel()
        try:
            return await asking
        except asyncio.CancelledError:
            return None

    async with asyncio.timeout(20):
        replies = await asyncio.gather(*(one(number) for number in range(80)))

    pipeline: Any = proxy.sidecar._pipeline
    await until(lambda: pipeline._budget.held_bytes == 0 and flights(proxy) == {})
    for reply in replies:
        if reply is not None:
            await _is_whole_and_paid_once(proxy, reply)
    paid = [line for line in proxy.audit_lines() if line["charged_tokens"] and line["usage_source"] == "measured"]
    assert 0 < len(paid) <= answered < len(replies)


async def _is_whole_and_paid_once(proxy: Proxy, reply: Reply) -> None:
    assert reply.status in {200, 500}
    if reply.status == 200:
        assert reply.body in {CHAT_ANSWER, b"".join(CHAT_STREAM)} or b'"pong"' in reply.body  # replayed
        assert b'"error"' not in reply.body
    line = await proxy.audit_line(reply.request_id)
    pays = reply.status == 200 and line["cache"] == "miss"
    assert (line["charged_tokens"], line["usage_source"]) == ((10, "measured") if pays else (0, None))
