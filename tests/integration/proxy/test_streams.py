"""A stream reaches the application byte by byte, or ends with an error that its SDK raises: never as if complete."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import anthropic
import openai
import orjson
import pytest
from aiohttp import web
from google import genai
from google.genai import errors as google_errors

from llm_sidecar.failover import attempt
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_PATH,
    TOKEN,
    Answer,
    Proxy,
    Upstream,
    chat_body,
    document,
    provider,
    streaming,
    until,
)
from tests.integration.proxy.wire import (
    CHAT_CONTENT,
    CHAT_STREAM,
    CHAT_USAGE,
    GEMINI_CONTENT,
    MESSAGES_CONTENT,
    OPENING,
    RESPONSES_CONTENT,
    sse,
)

Serve = Callable[..., Awaitable[Upstream]]


async def one(start_proxy: StartProxy, provider_: Upstream, kind: str = "OpenAI", **rest: Any) -> Proxy:
    spec = {key: rest.pop(key) for key in list(rest) if key not in {"store_url", "team"}}
    return await start_proxy(document(provider("p", provider_.base_url, type=kind, **spec), **rest))


async def test_bytes_pass_as_they_came(start_proxy: StartProxy, serve: Serve) -> None:
    """Comments, both line ends, unknown events: nothing is rebuilt."""
    odd = (
        b": hello\r\n\r\n",
        OPENING.replace(b"\n", b"\r\n"),
        CHAT_CONTENT[1],
        b"event: odd\nid: 1\n\n",
        *CHAT_STREAM[2:],
    )
    proxy = await one(start_proxy, await serve(streaming(*odd)))
    reply = await proxy.chat(stream=True, stream_options={"include_usage": True})
    assert reply.body == b"".join(odd)
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.headers["x-llm-sidecar-cache"] == "bypass"
    assert reply.headers["x-llm-sidecar-attempts"] == "1"


async def test_usage_that_nobody_asked_for_is_asked_for_and_hidden(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve(streaming(*CHAT_STREAM))
    proxy = await one(start_proxy, upstream)
    reply = await proxy.chat(stream=True)
    assert reply.body == b"".join(frame for frame in CHAT_STREAM if frame != CHAT_USAGE)
    assert orjson.loads(upstream.seen[0].body)["stream_options"] == {"include_usage": True}
    line = await proxy.audit_line(reply.request_id)
    assert (line["charged_tokens"], line["usage_source"]) == (10, "measured")


async def test_nothing_is_told_before_the_first_content(start_proxy: StartProxy, serve: Serve) -> None:
    content = asyncio.Event()
    opened = asyncio.Event()

    async def slow(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(OPENING)
        opened.set()
        await content.wait()
        await response.write(b"".join(CHAT_STREAM[1:]))
        return response

    proxy = await one(start_proxy, await serve(slow))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    body = chat_body(stream=True)
    writer.write(
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    await opened.wait()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.1)
    content.set()
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"[DONE]" in answer


# --- streams that are not completed, as each SDK sees them

KINDS = {"chat": "OpenAI", "responses": "OpenAI", "messages": "Anthropic", "gemini": "Google"}
CONTENT = {
    "chat": CHAT_CONTENT,
    "responses": RESPONSES_CONTENT,
    "messages": MESSAGES_CONTENT,
    "gemini": GEMINI_CONTENT,
}
ERRORS: dict[str, type[Exception] | tuple[type[Exception], ...]] = {
    "chat": openai.APIError,
    "responses": openai.APIError,
    "messages": anthropic.APIStatusError,
    "gemini": google_errors.APIError,
}


async def consume(api: str, proxy: Proxy) -> list[str]:
    """Stream with the official SDK; the texts that it yields."""
    texts: list[str] = []
    if api in {"chat", "responses"}:
        async with openai.AsyncOpenAI(base_url=f"{proxy.base_url}/v1", api_key=TOKEN, max_retries=0) as client:
            if api == "chat":
                async for chunk in await client.chat.completions.create(
                    model="m", messages=[{"role": "user", "content": "ping"}], stream=True
                ):
                    texts += [choice.delta.content or "" for choice in chunk.choices]
            else:
                async for event in await client.responses.create(model="m", input="ping", stream=True):
                    texts.append(getattr(event, "delta", ""))
                    if event.type == "error":
                        raise openai.APIError(event.message, request=None, body=None)  # type: ignore[arg-type]
    elif api == "messages":
        async with (
            anthropic.AsyncAnthropic(base_url=proxy.base_url, api_key=TOKEN, max_retries=0) as claude,
            claude.messages.stream(model="m", max_tokens=5, messages=[{"role": "user", "content": "ping"}]) as stream,
        ):
            texts += [text async for text in stream.text_stream]
    else:
        options = genai.types.HttpOptions(base_url=proxy.base_url)
        google = genai.Client(api_key=TOKEN, http_options=options)
        try:
            async for part in await google.aio.models.generate_content_stream(model="m", contents="ping"):
                texts.append(part.text or "")
        finally:
            await google.aio.aclose()
            google.close()
    return texts


def endings(api: str) -> dict[str, Answer]:
    content = CONTENT[api]
    return {
        "cut": streaming(*content, cut=True),
        "ended": streaming(*content),
        "cut-in-a-frame": streaming(*content, content[-1][:20], cut=True),
        "oversized-frame": streaming(*content, b"data: " + b"x" * 200_000, pause_before_last=0.1),
    }


@pytest.mark.parametrize("api", KINDS)
@pytest.mark.parametrize("ending", ["cut", "ended", "cut-in-a-frame", "oversized-frame"])
async def test_an_incomplete_stream_raises_in_the_sdk(
    start_proxy: StartProxy, serve: Serve, api: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt, "MAX_FRAME_BYTES", 100_000)
    proxy = await one(start_proxy, await serve(endings(api)[ending]), KINDS[api])
    with pytest.raises(ERRORS[api]) as raised:
        await consume(api, proxy)
    assert "127.0.0.1" not in str(raised.value)
    line = await proxy.last_audit_line()
    assert line["interrupted"] is True
    assert line["usage_source"] == "partial"
    assert line["status"] == 200


@pytest.mark.parametrize("api", KINDS)
async def test_a_stream_that_falls_silent_raises_in_the_sdk(start_proxy: StartProxy, serve: Serve, api: str) -> None:
    upstream = await serve(streaming(*CONTENT[api], hold=asyncio.Event()))
    proxy = await one(start_proxy, upstream, KINDS[api], timeouts={"idleSeconds": 1})
    with pytest.raises(ERRORS[api]) as raised:
        await asyncio.wait_for(consume(api, proxy), 8)
    assert "idleSeconds" in str(raised.value)
    await asyncio.wait_for(upstream.gone.wait(), 1)


async def test_a_cut_behind_the_terminal_marker_is_no_failure(start_proxy: StartProxy, serve: Serve) -> None:
    """Servers that close without ending their chunks: the application has everything."""
    proxy = await one(start_proxy, await serve(streaming(*CHAT_STREAM, pause_before_last=0.05, cut=True)))
    reply = await proxy.chat(stream=True, stream_options={"include_usage": True})
    assert reply.body == b"".join(CHAT_STREAM)
    line = await proxy.audit_line(reply.request_id)
    assert ("interrupted" in line, line["charged_tokens"], line["usage_source"]) == (False, 10, "measured")


async def test_an_error_event_of_the_provider_is_not_doubled(start_proxy: StartProxy, serve: Serve) -> None:
    told = sse({"error": {"message": "overloaded", "type": "server_error", "code": "server_error"}})
    proxy = await one(start_proxy, await serve(streaming(*CHAT_CONTENT, told)))
    reply = await proxy.chat(stream=True)
    assert reply.body == b"".join((*CHAT_CONTENT, told))
    assert (await proxy.audit_line(reply.request_id))["interrupted"] is True


async def test_a_frame_that_is_no_json_ends_the_stream_with_an_error_event(
    start_proxy: StartProxy, serve: Serve
) -> None:
    """What came before it is relayed; nobody can say what the rest would have meant."""
    broken = b"".join((CHAT_CONTENT[2], b"data: {broken\n\n", *CHAT_STREAM[3:]))
    upstream = await serve(streaming(*CHAT_CONTENT[:2], broken, pause_before_last=0.05, hold=asyncio.Event()))
    proxy = await one(start_proxy, upstream)
    reply = await proxy.chat(stream=True, stream_options={"include_usage": True})
    good = b"".join(CHAT_CONTENT)
    assert reply.body.startswith(good)
    told = reply.body.removeprefix(good)
    assert orjson.loads(told.removeprefix(b"data: "))["error"]["code"] == "stream_interrupted"
    line = await proxy.audit_line(reply.request_id)
    assert (line["interrupted"], line["usage_source"]) == (True, "partial")
    await asyncio.wait_for(upstream.gone.wait(), 1)


async def test_a_gemini_array_that_is_cut_stays_valid_json_and_tells_the_error(
    start_proxy: StartProxy, serve: Serve
) -> None:
    item = orjson.dumps({"candidates": [{"content": {"role": "model", "parts": [{"text": "po"}]}, "index": 0}]})
    answer = streaming(b"[" + item, b",\r\n" + item, content_type="application/json", cut=True)
    proxy = await one(start_proxy, await serve(answer), "Google")
    reply = await proxy.ask("POST", "/v1beta/models/m:streamGenerateContent", data=b"{}")
    items = orjson.loads(reply.body)
    assert [("error" in each) for each in items][-1]
    assert items[0] == orjson.loads(item)


async def test_an_error_in_the_place_of_a_gemini_array_is_its_only_element(
    start_proxy: StartProxy, serve: Serve
) -> None:
    """As Google tells it."""
    told = orjson.dumps({"error": {"code": 429, "message": "told", "status": "RESOURCE_EXHAUSTED"}})
    answer = streaming(b"[" + told + b"]", content_type="application/json")
    proxy = await one(start_proxy, await serve(answer), "Google", retry={"maxAttempts": 1})

    refused = await proxy.ask("POST", "/v1beta/models/m:streamGenerateContent", data=b"no JSON")
    relayed = await proxy.ask("POST", "/v1beta/models/m:streamGenerateContent", data=b"{}")

    for reply, status in ((refused, 400), (relayed, 429)):
        (element,) = orjson.loads(reply.body)
        assert (reply.status, element["error"]["code"]) == (status, status)


# --- applications that hang up, or read slowly


async def begin_stream(proxy: Proxy) -> aiohttp.ClientResponse:
    response: aiohttp.ClientResponse = await proxy.open("POST", CHAT_PATH, data=chat_body(stream=True))
    await response.content.readany()
    return response


async def test_a_hang_up_closes_the_provider_within_a_second_and_is_charged(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    upstream = await serve(streaming(*CHAT_CONTENT, hold=asyncio.Event()))
    proxy = await one(
        start_proxy, upstream, store_url=store_url, team={"limits": [{"name": "t", "per": "Day", "tokens": 100_000}]}
    )
    (await begin_stream(proxy)).close()
    await asyncio.wait_for(upstream.gone.wait(), 1)
    line = await proxy.last_audit_line()
    assert line["client_gone"] is True
    assert line["usage_source"] == "partial"
    assert 0 < line["charged_tokens"] < 100


async def test_usage_told_right_after_a_hang_up_still_counts(start_proxy: StartProxy, serve: Serve) -> None:
    hung_up = asyncio.Event()

    async def answer(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"".join(CHAT_CONTENT))
        await hung_up.wait()
        for frame in CHAT_STREAM[3:]:
            await response.write(frame)
        await response.write_eof()
        return response

    proxy = await one(start_proxy, await serve(answer))
    (await begin_stream(proxy)).close()
    hung_up.set()
    line = await proxy.last_audit_line()
    assert (line["charged_tokens"], line["usage_source"], line.get("client_gone")) == (10, "measured", True)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_hang_up_while_waiting_closes_the_provider(start_proxy: StartProxy, serve: Serve, stream: bool) -> None:
    async def silent(_request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    upstream = await serve(silent)
    proxy = await one(start_proxy, upstream)
    task = asyncio.ensure_future(proxy.chat(stream=stream))
    await until(lambda: bool(upstream.seen))
    task.cancel()
    await asyncio.wait_for(upstream.gone.wait(), 1)
    line = await proxy.last_audit_line()
    assert (line["status"], line["client_gone"], line["usage_source"]) == (499, True, "partial")
    assert proxy.sidecar._pipeline._budget.held_bytes == 0  # type: ignore[union-attr]


async def test_a_slow_reader_slows_the_provider_and_holds_no_memory(start_proxy: StartProxy, serve: Serve) -> None:
    sent_bytes = 0
    frame = CHAT_CONTENT[1].replace(b"po", b"x" * 64_000)

    async def flood(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        nonlocal sent_bytes
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(1600):
            await response.write(frame)
            sent_bytes += len(frame)
        await response.write(b"".join(CHAT_STREAM[3:]))
        return response

    proxy = await one(start_proxy, await serve(flood))
    response = await begin_stream(proxy)
    before = -1
    while sent_bytes != before:  # until nothing moves any more
        before = sent_bytes
        await asyncio.sleep(0.1)
    assert sent_bytes < 40_000_000  # of 100 MB: socket buffers of four sockets
    received = 0
    tail = b""
    async for chunk in response.content.iter_any():
        received += len(chunk)
        tail = (tail + chunk)[-100:]
    assert tail.endswith(b"data: [DONE]\n\n")
    assert received > 100_000_000


async def test_many_streams_at_once_are_kept_apart(start_proxy: StartProxy, serve: Serve) -> None:
    async def answer(request: web.BaseRequest, body: bytes) -> web.StreamResponse:
        mark = orjson.loads(body)["messages"][0]["content"].encode()
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(20):
            await response.write(CHAT_CONTENT[1].replace(b"po", mark))
            await asyncio.sleep(0)
        await response.write(b"".join(CHAT_STREAM[3:]))
        return response

    proxy = await one(start_proxy, await serve(answer))

    async def ask(number: int) -> bool:
        mark = f"mark{number:03d}"
        reply = await proxy.chat(stream=True, messages=[{"role": "user", "content": mark}])
        return set(re.findall(rb"mark\d+", reply.body)) == {mark.encode()}

    assert all(await asyncio.gather(*map(ask, range(50))))
