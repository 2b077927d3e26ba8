"""Until the first content another provider may answer; afterwards none may. The application sees one good answer, or
one clear error, and never an address or a key.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_ANSWER,
    KEY,
    Answer,
    Conversation,
    Proxy,
    Upstream,
    chat_body,
    document,
    error,
    plain,
    provider,
    raw_server,
    says,
    streaming,
)
from tests.integration.proxy.wire import CHAT_STREAM, OPENING, sse

Serve = Callable[..., Awaitable[Upstream]]


def closed_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def two(start_proxy: StartProxy, first: str, second: str, **spec: Any) -> Proxy:
    """Each is asked once: retries at the same place are the subject of `test_retries.py`."""
    once = {"maxAttempts": 1}
    return await start_proxy(
        document(
            provider("first", first, priority=0, retry=once, **spec), provider("second", second, priority=1, retry=once)
        )
    )


REDIRECT = plain(b"", status=302, content_type="text/plain", location="http://127.0.0.1:1/elsewhere")
HTML = plain(b"<html>secret.internal</html>", content_type="text/html")
PLAIN_FAILURES: dict[str, tuple[Answer, str]] = {
    "rate-limited": (error(429), "rate_limited"),
    "server-error": (error(500), "server"),
    "bad-gateway-in-html": (plain(b"<html>", status=502, content_type="text/html"), "server"),
    "unavailable": (error(503), "overloaded"),
    "overloaded": (error(529), "overloaded"),
    "gateway-timeout": (error(504), "timeout"),
    "wrong-key": (error(401, f"bad key {KEY}"), "authentication"),
    "unpaid": (error(402), "quota_exhausted"),
    "forbidden": (error(403), "authentication"),
    "redirect": (REDIRECT, "redirected"),
    "html": (HTML, "garbled_answer"),
    "empty": (plain(b""), "garbled_answer"),
    "cut-json": (plain(CHAT_ANSWER[:-5]), "garbled_answer"),
    "two-documents": (plain(CHAT_ANSWER + CHAT_ANSWER), "garbled_answer"),
    "html-not-found": (plain(b"<html>", status=404, content_type="text/html"), "garbled_answer"),
}


@pytest.mark.parametrize("case", PLAIN_FAILURES)
async def test_the_next_provider_answers_where_one_fails(start_proxy: StartProxy, serve: Serve, case: str) -> None:
    answer, reason = PLAIN_FAILURES[case]
    bad, good = await serve(answer), await serve()
    proxy = await two(start_proxy, bad.base_url, good.base_url)
    reply = await proxy.chat()
    assert (reply.status, reply.body) == (200, CHAT_ANSWER)
    assert reply.headers["x-llm-sidecar-attempts"] == "2"
    assert reply.headers["x-llm-sidecar-provider"] == "second"
    assert (len(bad.seen), len(good.seen)) == (1, 1)
    assert bad.seen[0].body == good.seen[0].body
    labels = {"from": "first", "to": "second", "reason": reason}
    assert proxy.metric("llm_failovers_total", **labels) == 1
    attempts = (await proxy.audit_line(reply.request_id))["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == [reason, "answered"]


STREAM_FAILURES: dict[str, tuple[Answer, str]] = {
    "error-event": (streaming(sse({"error": {"message": "no", "code": "rate_limit_exceeded"}})), "rate_limited"),
    "error-behind-the-opening": (streaming(OPENING, sse({"error": {"message": "no"}})), "server"),
    "ended-before-content": (streaming(OPENING), "interrupted"),
    "nothing-at-all": (streaming(), "interrupted"),
    "cut-before-content": (streaming(OPENING, cut=True), "disconnected"),
    "cut-within-the-first-frame": (streaming(b'data: {"choices":[{"del'), "interrupted"),
    "not-a-stream": (plain(), "garbled_answer"),
    "html": (HTML, "garbled_answer"),
    "rate-limited": (error(429), "rate_limited"),
    "redirect": (REDIRECT, "redirected"),
}


@pytest.mark.parametrize("case", STREAM_FAILURES)
async def test_the_next_provider_streams_where_one_fails_before_the_first_content(
    start_proxy: StartProxy, serve: Serve, case: str
) -> None:
    answer, reason = STREAM_FAILURES[case]
    bad, good = await serve(answer), await serve(streaming(*CHAT_STREAM))
    proxy = await two(start_proxy, bad.base_url, good.base_url, streamUsage="Never")
    reply = await proxy.chat(stream=True, stream_options={"include_usage": True})
    assert (reply.status, reply.body) == (200, b"".join(CHAT_STREAM))
    assert reply.headers["x-llm-sidecar-attempts"] == "2"
    assert proxy.metric("llm_failovers_total", reason=reason) == 1


BYTES: dict[str, tuple[Conversation, str]] = {
    "closes-at-once": (says(), "disconnected"),
    "no-http": (says(b"SSH-2.0-OpenSSH_9.6\r\n"), "garbled_answer"),
    "cut-head": (says(b"HTTP/1.1 200 OK\r\nContent-Ty"), "disconnected"),
    "cut-body": (says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"), "disconnected"),
    "bad-chunk": (
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n"),
        "disconnected",
    ),
    "both-framings": (
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
        "garbled_answer",
    ),
    "endless-header": (says(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 100_000 + b"\r\n\r\n{}"), "garbled_answer"),
    "broken-gzip": (
        says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd"),
        "disconnected",
    ),
}


@pytest.mark.parametrize("case", BYTES)
async def test_the_next_provider_answers_where_one_sends_broken_http(
    start_proxy: StartProxy, serve: Serve, case: str
) -> None:
    conversation, reason = BYTES[case]
    good = await serve()
    async with raw_server(conversation) as port:
        proxy = await two(start_proxy, f"http://127.0.0.1:{port}", good.base_url)
        reply = await proxy.chat()
        assert (reply.status, reply.body) == (200, CHAT_ANSWER)
        attempts = (await proxy.audit_line(reply.request_id))["attempts"]
    assert attempts[0]["outcome"] in {reason, "garbled_answer", "disconnected"}, attempts


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
async def test_the_next_provider_answers_where_one_cannot_be_reached(
    start_proxy: StartProxy, serve: Serve, host: str
) -> None:
    good = await serve()
    base_url = f"http://{host}:{closed_port()}"
    proxy = await two(start_proxy, base_url, good.base_url)
    reply = await proxy.chat()
    assert reply.status == 200
    assert proxy.metric("llm_failovers_total", reason="connection") == 1


async def test_connecting_is_given_up_after_connect_seconds(start_proxy: StartProxy, serve: Serve) -> None:
    """A listener with a full backlog neither refuses nor accepts."""
    good = await serve()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for each in fillers:
                each.settimeout(0)
                each.connect_ex(("127.0.0.1", port))
            proxy = await two(start_proxy, f"http://127.0.0.1:{port}", good.base_url, timeouts={"connectSeconds": 1})
            reply = await asyncio.wait_for(proxy.chat(), 5)
        finally:
            for each in fillers:
                each.close()
    assert reply.status == 200
    assert proxy.metric("llm_failovers_total", reason="connection") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_silent_provider_is_given_up_in_time(start_proxy: StartProxy, serve: Serve, stream: bool) -> None:
    async def silent(_request: Any, _body: bytes) -> Any:
        await asyncio.Event().wait()

    bad, good = await serve(silent), await serve(streaming(*CHAT_STREAM) if stream else plain())
    timeouts = {"firstTokenSeconds": 1} if stream else {"responseSeconds": 1}
    proxy = await two(start_proxy, bad.base_url, good.base_url, timeouts=timeouts)
    reply = await proxy.chat(stream=stream)
    assert reply.status == 200
    assert proxy.metric("llm_failovers_total", reason="timeout") == 1
    await asyncio.wait_for(bad.gone.wait(), 1)


@pytest.mark.parametrize("status", [400, 404, 409, 413, 422])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_applications_own_error_comes_through_unaltered(
    start_proxy: StartProxy, serve: Serve, status: int, stream: bool
) -> None:
    body = b'{"error" : {"message":"your own fault",  "param":null}}\n'
    first, second = await serve(plain(body, status=status, x_request_id="req_1")), await serve()
    proxy = await two(start_proxy, first.base_url, second.base_url)
    reply = await proxy.chat(stream=stream)
    assert (reply.status, reply.body) == (status, body)
    assert reply.headers["x-request-id"] == "req_1"
    assert "x-llm-sidecar-refused-by" not in reply.headers
    assert not second.seen


async def test_where_all_fail_the_last_error_of_a_provider_is_told(start_proxy: StartProxy, serve: Serve) -> None:
    first, second = await serve(error(503, "one")), await serve(error(429, "two"))
    proxy = await two(start_proxy, first.base_url, second.base_url)
    reply = await proxy.chat()
    assert (reply.status, reply.json()["error"]["message"]) == (429, "two")
    assert reply.headers["x-llm-sidecar-attempts"] == "2"


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/v1/chat/completions", "OpenAI"), ("/v1/messages", "Anthropic"), ("/v1beta/models/m:generateContent", "Google")],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_where_all_fail_without_a_word_each_reason_is_told_and_nothing_else(
    start_proxy: StartProxy, serve: Serve, path: str, kind: str, stream: bool
) -> None:
    port = closed_port()
    keyless = await serve(error(401, f"Incorrect API key provided: {KEY}"))
    proxy = await start_proxy(
        document(
            provider("first", f"http://127.0.0.1:{port}", type=kind),
            provider("second", keyless.base_url, type=kind, priority=1),
        )
    )
    if stream and kind == "Google":
        path = path.replace("generateContent", "streamGenerateContent?alt=sse")
    reply = await proxy.ask("POST", path, data=chat_body(stream=stream, max_tokens=5))
    assert (reply.status, reply.code) == (503, "no_provider_available")
    assert b"first: " in reply.body
    assert b"status 401" in reply.body
    assert reply.headers["retry-after-ms"] == "1000"
    for secret in (KEY, "127.0.0.1", str(port), "Incorrect"):
        assert secret.encode() not in reply.body
    text = proxy.audit_path.read_text()
    assert KEY not in text
    assert "127.0.0.1" not in text


async def test_a_key_that_is_wrong_everywhere_is_not_worth_a_retry(start_proxy: StartProxy, serve: Serve) -> None:
    first, second = await serve(error(401)), await serve(error(403))
    proxy = await two(start_proxy, first.base_url, second.base_url)
    reply = await proxy.chat()
    assert (reply.code, reply.headers["x-should-retry"]) == ("no_provider_available", "false")


async def test_a_bad_google_key_is_ours_although_google_says_400(start_proxy: StartProxy, serve: Serve) -> None:
    body = orjson.dumps({"error": {"code": 400, "details": [{"reason": "API_KEY_INVALID"}]}})
    bad = await serve(plain(body, status=400))
    proxy = await start_proxy(document(provider("p", bad.base_url, type="Google")))
    reply = await proxy.ask("POST", "/v1beta/models/m:generateContent", data=b"{}")
    assert reply.code == "no_provider_available"


async def test_an_alias_is_sent_as_each_provider_calls_the_model(start_proxy: StartProxy, serve: Serve) -> None:
    first, second = await serve(error(503)), await serve()
    proxy = await start_proxy(
        document(
            provider("first", first.base_url, models=[{"name": "big-1", "aliases": ["small"]}]),
            provider("second", second.base_url, priority=1, models=[{"name": "big-2", "aliases": ["small"]}]),
        )
    )
    reply = await proxy.chat(model="small")
    assert reply.headers["x-llm-sidecar-model"] == "big-2"
    sent = [orjson.loads(one.seen[0].body)["model"] for one in (first, second)]
    assert sent == ["big-1", "big-2"]
    assert second.seen[0].body == chat_body(model="big-2")


async def test_the_applications_own_error_at_the_head_of_a_stream_is_told_as_a_plain_answer(
    start_proxy: StartProxy, serve: Serve
) -> None:
    """Some servers answer 200 and then say in the first event that the request was wrong: nobody else need be asked."""
    wrong = sse({"error": {"message": "the context is too long", "code": "context_length_exceeded", "status": 400}})
    bad, good = await serve(streaming(wrong.replace(b'"status":400', b'"type":"invalid_request_error"'))), await serve()
    proxy = await start_proxy(document(provider("first", bad.base_url), provider("second", good.base_url, priority=1)))

    reply = await proxy.chat(stream=True)

    assert reply.status == 400
    assert reply.json()["error"]["message"] == "the context is too long"
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-llm-sidecar-provider"] == "first"
    assert "x-llm-sidecar-refused-by" not in reply.headers
    assert (len(bad.seen), len(good.seen)) == (1, 0)


async def test_the_error_that_is_told_is_booked_on_the_provider_that_gave_it(
    start_proxy: StartProxy, serve: Serve
) -> None:
    limited = await serve(error(429))
    proxy = await start_proxy(
        document(provider("first", limited.base_url), provider("second", "http://127.0.0.1:1", priority=1))
    )

    reply = await proxy.chat()

    assert (reply.status, reply.headers["x-llm-sidecar-provider"]) == (429, "first")
    assert (await proxy.audit_line(reply.request_id))["provider"] == "first"
    assert proxy.metric("llm_requests_total", provider="first", status="429") == 1
