"""One entry serves those who stream and those who do not; only what was understood to the last part is an entry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
import redis

from llm_sidecar.contract.names import API
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_ANSWER,
    Proxy,
    Reply,
    Upstream,
    document,
    plain,
    provider,
    streaming,
    until,
)
from tests.integration.proxy.test_cache import cached, entries
from tests.integration.proxy.wire import CHAT_CONTENT, CHAT_STREAM, CHAT_USAGE, OPENING, sse
from tests.integration.sdk_messages import message_of_plain, message_of_stream

Serve = Callable[..., Awaitable[Upstream]]
USAGE: dict[str, Any] = {"stream_options": {"include_usage": True}}


async def stored(proxy: Proxy, store_url: str, **members: Any) -> Reply:
    reply = await proxy.chat(temperature=0, **members)
    await until(lambda: len(entries(store_url)) == 1)
    return reply


@pytest.fixture
async def streams(serve: Serve) -> Upstream:
    return await serve(streaming(*CHAT_STREAM))


async def test_a_stream_is_served_again_as_a_stream(start_proxy: StartProxy, streams: Upstream, store_url: str) -> None:
    proxy = await cached(start_proxy, store_url, streams)
    first = await stored(proxy, store_url, stream=True)
    second = await proxy.chat(temperature=0, stream=True)
    assert (first.headers["x-llm-sidecar-cache"], second.headers["x-llm-sidecar-cache"]) == ("miss", "hit")
    assert second.headers["content-type"].startswith("text/event-stream")
    assert "age" in second.headers
    assert message_of_stream(API.OPENAI_CHAT, first.body) == message_of_stream(API.OPENAI_CHAT, second.body)
    assert second.body.endswith(b"data: [DONE]\n\n")
    assert len(streams.seen) == 1
    assert proxy.metric("llm_cache_saved_tokens_total") == 10


async def test_a_stream_is_served_again_plain_and_a_plain_answer_as_a_stream(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    for first, again in ((True, False), (False, True)):
        with redis.Redis.from_url(store_url) as client:
            client.flushall()
        upstream = await serve(streaming(*CHAT_STREAM) if first else plain())
        proxy = await cached(start_proxy, store_url, upstream)
        one = await stored(proxy, store_url, stream=first, **(USAGE if first else {}))
        other = await proxy.chat(temperature=0, stream=again, **(USAGE if again else {}))
        assert other.headers["x-llm-sidecar-cache"] == "hit"
        streamed, whole = (one, other) if first else (other, one)
        assert message_of_stream(API.OPENAI_CHAT, streamed.body) == message_of_plain(API.OPENAI_CHAT, whole.body)


async def test_usage_is_told_to_those_who_asked_for_it(
    start_proxy: StartProxy, streams: Upstream, store_url: str
) -> None:
    """Though only the proxy asked the provider for it."""
    proxy = await cached(start_proxy, store_url, streams)
    first = await stored(proxy, store_url, stream=True)
    assert b"_tokens" not in first.body
    assert b"_tokens" not in (await proxy.chat(temperature=0, stream=True)).body
    asked = await proxy.chat(temperature=0, stream=True, **USAGE)
    assert asked.headers["x-llm-sidecar-cache"] == "hit"
    assert b'"total_tokens":10' in asked.body


async def test_a_server_that_tells_no_usage_in_streams_has_none_stored(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """A plain answer tells it always, so that one made of such a stream would not be the same."""
    upstream = await serve(streaming(*(frame for frame in CHAT_STREAM if frame is not CHAT_USAGE)))
    proxy = await cached(start_proxy, store_url, upstream, streamUsage="Never")
    await never_stored(proxy, store_url)


async def never_stored(proxy: Proxy, store_url: str, **members: Any) -> None:
    for _ in range(2):
        reply = await proxy.chat(temperature=0, stream=True, **members)
        assert reply.headers["x-llm-sidecar-cache"] == "miss"
    await proxy.sidecar._pipeline.close()  # type: ignore[union-attr]
    assert not entries(store_url)


def chat(delta: dict[str, Any], finish: str | None = None, **fields: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse(
        {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice], **fields}
    )


DONE = sse(b"[DONE]")
END = (chat({}, "stop"), CHAT_USAGE, DONE)
NOT_STORED = {
    "cut-by-a-limit": (*CHAT_CONTENT, chat({}, "length"), CHAT_USAGE, DONE),
    "filtered": (*CHAT_CONTENT, chat({}, "content_filter"), CHAT_USAGE, DONE),
    "refused": (OPENING, chat({"refusal": "no"}), *END),
    "no-terminal-marker": (*CHAT_CONTENT, chat({}, "stop"), CHAT_USAGE),
    "no-finish-reason": (*CHAT_CONTENT, CHAT_USAGE, DONE),
    "an-error-inside": (*CHAT_CONTENT, sse({"error": {"message": "x"}}), DONE),
    "an-unknown-delta": (*CHAT_CONTENT, chat({"audio": {"id": "a"}}), *END),
    "an-unknown-delta-of-a-server": (*CHAT_CONTENT, chat({"reasoning_details": [{"text": "x"}]}), *END),
    "two-choices": (*CHAT_CONTENT, sse({"choices": [{"index": 1, "delta": {"content": "x"}}]}), *END),
    "two-ids": (*CHAT_CONTENT, chat({"content": "x"}, id="d"), *END),
    "a-tool-call-without-a-name": (
        OPENING,
        chat({"tool_calls": [{"index": 0, "id": "i", "type": "function", "function": {"arguments": "{}"}}]}),
        chat({}, "tool_calls"),
        CHAT_USAGE,
        DONE,
    ),
}


@pytest.mark.parametrize("case", NOT_STORED)
async def test_a_stream_that_is_not_complete_and_understood_is_not_stored(
    start_proxy: StartProxy, serve: Serve, store_url: str, case: str
) -> None:
    proxy = await cached(start_proxy, store_url, await serve(streaming(*NOT_STORED[case])))
    await never_stored(proxy, store_url)


async def test_a_stream_that_breaks_off_is_not_stored(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    proxy = await cached(start_proxy, store_url, await serve(streaming(*CHAT_CONTENT, cut=True)))
    await never_stored(proxy, store_url)


async def test_a_plain_answer_without_a_stream_is_a_miss_for_those_who_stream(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    """And then the stream is stored in its place."""
    sound = {**orjson.loads(CHAT_ANSWER)["choices"][0]["message"], "audio": {"id": "a", "data": "x"}}
    answer = orjson.dumps(
        {**orjson.loads(CHAT_ANSWER), "choices": [{"index": 0, "message": sound, "finish_reason": "stop"}]}
    )

    async def by_kind(request: Any, body: bytes) -> Any:
        wants_stream = orjson.loads(body).get("stream") is True
        return await (streaming(*CHAT_STREAM) if wants_stream else plain(answer))(request, body)

    proxy = await cached(start_proxy, store_url, await serve(by_kind))
    await stored(proxy, store_url)
    assert (await proxy.chat(temperature=0)).headers["x-llm-sidecar-cache"] == "hit"
    first = await proxy.chat(temperature=0, stream=True)
    assert first.headers["x-llm-sidecar-cache"] == "miss"
    await proxy.sidecar._pipeline.close()  # type: ignore[union-attr]
    assert (await proxy.chat(temperature=0, stream=True)).status == 200


ANTHROPIC = {"model": "m", "max_tokens": 99, "temperature": 0, "messages": [{"role": "user", "content": "ping"}]}


@pytest.mark.parametrize("first", [True, False], ids=["stream-first", "plain-first"])
async def test_a_translated_answer_is_stored_in_the_applications_language(
    start_proxy: StartProxy, serve: Serve, store_url: str, first: bool
) -> None:
    async def by_kind(request: Any, body: bytes) -> Any:
        wants_stream = orjson.loads(body).get("stream") is True
        return await (streaming(*CHAT_STREAM) if wants_stream else plain())(request, body)

    upstream = await serve(by_kind)
    proxy = await start_proxy(document(provider("p", upstream.base_url), store_url=store_url, team={}))

    async def ask(*, stream: bool) -> Reply:
        return await proxy.ask("POST", "/v1/messages", data=orjson.dumps({**ANTHROPIC, "stream": stream}))

    await ask(stream=first)
    await until(lambda: len(entries(store_url)) == 1)
    whole, streamed = await ask(stream=False), await ask(stream=True)
    assert [one.headers["x-llm-sidecar-cache"] for one in (whole, streamed)] == ["hit", "hit"]
    message = message_of_plain(API.ANTHROPIC_MESSAGES, whole.body)
    assert message["content"] == [{"text": "pong", "type": "text"}]
    assert message["usage"]["output_tokens"] == 3
    assert message == message_of_stream(API.ANTHROPIC_MESSAGES, streamed.body)
    assert len(upstream.seen) == 1


async def test_geminis_three_ways_share_an_entry(start_proxy: StartProxy, serve: Serve, store_url: str) -> None:
    chunks = [
        {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}]} for text in ("po", "ng")
    ]
    chunks[-1]["candidates"][0] |= {"finishReason": "STOP"}
    chunks[-1] |= {"usageMetadata": {"promptTokenCount": 7, "candidatesTokenCount": 3, "totalTokenCount": 10}}  # type: ignore[dict-item]
    upstream = await serve(streaming(*map(sse, chunks)))
    proxy = await start_proxy(document(provider("p", upstream.base_url, type="Google"), store_url=store_url, team={}))
    body = orjson.dumps({"contents": [], "generationConfig": {"temperature": 0}})
    path = "/v1beta/models/m:"
    await proxy.ask("POST", f"{path}streamGenerateContent?alt=sse", data=body)
    await until(lambda: len(entries(store_url)) == 1)
    verbs = ("generateContent", "streamGenerateContent?alt=sse", "streamGenerateContent")
    replies = [await proxy.ask("POST", path + verb, data=body) for verb in verbs]
    assert [one.headers["x-llm-sidecar-cache"] for one in replies] == ["hit"] * 3
    whole, events, array = replies
    assert message_of_plain(API.GEMINI, whole.body) == message_of_stream(API.GEMINI, events.body)
    assert [whole.json()] == array.json()
    assert array.headers["content-type"] == "application/json"
    assert whole.json()["candidates"][0]["content"]["parts"] == [{"text": "pong"}]
