"""Whatever an application sends, it gets one clear error in the shape of the API it called, and the process goes on."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Awaitable, Callable

import orjson
import pytest

from llm_sidecar import body as body_module
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import CHAT_PATH, KEY, TOKEN, Proxy, Upstream, chat_body, document, provider, until

Serve = Callable[..., Awaitable[Upstream]]

APIS = {
    "openai-chat": ("/v1/chat/completions", {"authorization": f"Bearer {TOKEN}"}),
    "openai-responses": ("/v1/responses", {"authorization": f"Bearer {TOKEN}"}),
    "openai-embeddings": ("/v1/embeddings", {"authorization": f"Bearer {TOKEN}"}),
    "anthropic": ("/v1/messages", {"x-api-key": TOKEN, "anthropic-version": "2023-06-01", "authorization": ""}),
    "gemini": ("/v1beta/models/g:generateContent", {"x-goog-api-key": TOKEN, "authorization": ""}),
}
every_api = pytest.mark.parametrize("api", APIS)


@pytest.fixture
async def provider_seen(serve: Serve) -> Upstream:
    return await serve()


@pytest.fixture
async def proxy(start_proxy: StartProxy, provider_seen: Upstream) -> Proxy:
    url = provider_seen.base_url
    return await start_proxy(
        document(
            provider("openai", url),
            provider("anthropic", url, type="Anthropic", models=["a"]),
            provider("google", url, type="Google", models=["g"]),
        )
    )


async def refused(proxy: Proxy, api: str, data: object, *, status: int, code: str, **headers: str) -> str:
    """Send a body, hold the refusal to its promise, and return its message."""
    path, own = APIS[api]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = await proxy.ask("POST", path, headers={**own, **named}, data=data)
    assert (reply.status, reply.code) == (status, code), reply.body
    error = reply.json()["error"]
    if api == "anthropic":
        assert reply.json()["type"] == "error"
        assert isinstance(error["type"], str)
    assert reply.headers["content-type"].startswith("application/json")
    assert (await proxy.audit_line(reply.request_id))["error"] == code
    await proxy.is_well()
    return str(error["message"])


@every_api
@pytest.mark.parametrize(
    "data",
    [b"", b" ", b"no json", b"{", b"[1]", b'"text"', b"null", b"[" * 100_000, b"\xff\xfe{}", b"{}x"],
)
async def test_a_body_that_is_no_request_is_a_400(proxy: Proxy, api: str, data: bytes) -> None:
    await refused(proxy, api, data, status=400, code="malformed_request")


@pytest.mark.parametrize("api", [api for api in APIS if api != "gemini"])  # which names the model in the path
async def test_a_model_that_is_no_name_is_a_400(proxy: Proxy, api: str) -> None:
    await refused(proxy, api, b'{"model":1}', status=400, code="malformed_request")


@every_api
async def test_a_deeply_nested_value_is_a_400(proxy: Proxy, api: str) -> None:
    data = b'{"model":"m","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}"
    await refused(proxy, api, data, status=400, code="malformed_request")


@every_api
async def test_a_doubled_top_level_key_is_a_400_that_names_it(proxy: Proxy, api: str) -> None:
    data = b'{"model":"m","stream":false,"model":"secret-model"}'
    message = await refused(proxy, api, data, status=400, code="malformed_request")
    assert "model" in message
    assert "secret-model" not in message


@every_api
async def test_a_compressed_body_is_refused_by_name(proxy: Proxy, api: str) -> None:
    message = await refused(
        proxy, api, b"\x1f\x8b", status=415, code="unsupported_content_encoding", content_encoding="gzip"
    )
    assert "Content-Encoding" in message


@every_api
async def test_an_unknown_model_is_a_404(proxy: Proxy, api: str) -> None:
    path, own = APIS[api]
    path = path.replace("models/g", "models/unknown")
    reply = await proxy.ask("POST", path, headers=own, data=b'{"model":"unknown"}')
    assert (reply.status, reply.code) == (404, "model_not_found")
    assert reply.headers["x-should-retry"] == "false"


async def test_a_model_that_no_translation_leads_to_is_a_404_that_tells_where_it_is_served(proxy: Proxy) -> None:
    """A request for embeddings cannot become one to generate."""
    reply = await proxy.ask("POST", "/v1/embeddings", data=b'{"model":"a","input":"x"}')
    assert (reply.status, reply.code) == (404, "model_not_found")
    assert "AnthropicMessages" in reply.json()["error"]["message"]


@every_api
async def test_a_huge_declared_body_is_refused_before_it_is_sent(proxy: Proxy, api: str) -> None:
    path, own = APIS[api]
    headers = "".join(f"{name}: {value}\r\n" for name, value in own.items())
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{headers}Content-Length: 33554433\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    writer.write(head.encode())
    status_line = await asyncio.wait_for(reader.readline(), 5)
    rest = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
    writer.close()
    assert b" 413 " in status_line
    assert b"body_too_large" in rest
    await proxy.is_well()


async def test_a_huge_chunked_body_is_refused_on_the_way(proxy: Proxy) -> None:
    async def pieces() -> object:
        for _ in range(40):
            yield bytes(1024 * 1024)

    reply = await proxy.ask("POST", CHAT_PATH, data=pieces())
    assert (reply.status, reply.code) == (413, "body_too_large")
    await proxy.is_well()


async def test_the_largest_allowed_body_passes(proxy: Proxy, provider_seen: Upstream) -> None:
    frame = chat_body(user="")
    data = chat_body(user="x" * (32 * 1024 * 1024 - len(frame)))
    assert len(data) == 32 * 1024 * 1024
    reply = await proxy.ask("POST", CHAT_PATH, data=io.BytesIO(data))
    assert reply.status == 200
    assert provider_seen.seen[-1].body == data


async def test_bodies_that_do_not_fit_in_memory_together_are_refused(proxy: Proxy) -> None:
    """Two of 32 MiB are held; the third finds no room and may come again in a moment."""
    writers = []
    for _ in range(2):
        _reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
        writer.write(
            f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            f"Content-Length: {32 * 1024 * 1024}\r\n\r\n".encode()
        )
        writer.write(bytes(32 * 1024 * 1024 - 1))  # all but its end: it is held and not yet read
        await writer.drain()
        writers.append(writer)
    budget = proxy.sidecar._pipeline._budget  # type: ignore[union-attr]
    await until(lambda: budget.held_bytes == budget.limit_bytes - 2)
    reply = await proxy.chat()
    assert (reply.status, reply.code) == (503, "sidecar_overloaded")
    assert reply.headers["retry-after-ms"] == "1000"
    assert reply.headers["x-should-retry"] == "true"
    for writer in writers:
        writer.close()
    await until(lambda: budget.held_bytes == 0)
    await proxy.is_well()


async def test_an_application_that_stops_sending_gets_a_408(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body_module.read_body, "__kwdefaults__", {"idle_seconds": 0.05})
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {TOKEN}\r\nContent-Length: 100\r\n\r\n{{"
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    writer.write(head.encode())
    answer = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer
    await proxy.is_well()


async def test_an_application_that_hangs_up_while_sending_is_no_defect(proxy: Proxy) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    writer.write(
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Length: 100\r\n\r\n{".encode()
    )
    await writer.drain()
    budget = proxy.sidecar._pipeline._budget  # type: ignore[union-attr]
    await until(lambda: budget.held_bytes == 1)
    writer.close()
    line = await proxy.last_audit_line()
    assert (line["status"], line.get("client_gone")) == (499, True)
    await proxy.is_well()


async def test_expect_100_continue_is_answered_before_the_body(proxy: Proxy) -> None:
    body = chat_body()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    writer.write(
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nConnection: close\r\n"
        f"Expect: 100-continue\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    )
    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(body)
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 200 ")


# --- methods, tokens, pages


@every_api
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_a_wrong_method_is_a_405_that_tells_the_right_one(proxy: Proxy, api: str, method: str) -> None:
    path, own = APIS[api]
    reply = await proxy.ask(method, path, headers=own)
    assert (reply.status, reply.code, reply.headers["allow"]) == (405, "method_not_allowed", "POST")
    await proxy.is_well()


@pytest.mark.parametrize(
    ("path", "headers", "variable"),
    [
        ("/v1/chat/completions", {"authorization": "Bearer wrong"}, "OPENAI_API_KEY"),
        ("/v1/chat/completions", {"authorization": ""}, "OPENAI_API_KEY"),
        ("/v1/chat/completions", {"authorization": f"Basic {TOKEN}"}, "OPENAI_API_KEY"),
        ("/v1/messages", {"authorization": "", "x-api-key": "wrong"}, "ANTHROPIC_API_KEY"),
        ("/v1/messages", {"authorization": "", "anthropic-version": "2023-06-01"}, "ANTHROPIC_API_KEY"),
        ("/v1beta/models/g:generateContent", {"authorization": "", "x-goog-api-key": "wrong"}, "GEMINI_API_KEY"),
        ("/v1beta/models/g:generateContent?key=wrong", {"authorization": ""}, "GEMINI_API_KEY"),
        ("/v1beta/models/g:generateContent", {"authorization": ""}, "GEMINI_API_KEY"),
        ("/v1/models", {"authorization": "Bearer wrong"}, "OPENAI_API_KEY"),
        ("/v1/files", {"authorization": "Bearer wrong"}, "OPENAI_API_KEY"),
    ],
)
async def test_a_wrong_or_missing_token_is_a_401_that_names_the_variable(
    proxy: Proxy, provider_seen: Upstream, path: str, headers: dict[str, str], variable: str
) -> None:
    reply = await proxy.ask("GET" if path in {"/v1/models", "/v1/files"} else "POST", path, headers=headers)
    assert (reply.status, reply.code) == (401, "wrong_pod_token")
    assert variable in reply.json()["error"]["message"]
    assert TOKEN.encode() not in reply.body
    assert b"Bearer wrong" not in reply.body
    assert not provider_seen.seen


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/models", {"authorization": f"Bearer {TOKEN}"}),
        ("/v1/models", {"authorization": f"bearer {TOKEN}"}),
        ("/v1/models", {"authorization": "", "x-api-key": TOKEN}),
        ("/v1/models", {"authorization": "", "x-goog-api-key": TOKEN}),
        (f"/v1beta/models?key={TOKEN}", {"authorization": ""}),
    ],
)
async def test_the_token_is_taken_wherever_an_sdk_puts_it(proxy: Proxy, path: str, headers: dict[str, str]) -> None:
    assert (await proxy.ask("GET", path, headers=headers)).status == 200


async def test_without_a_token_every_program_is_served(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await start_proxy(document(provider("p", (await serve()).base_url)), token=None)
    assert (await proxy.chat(headers={"authorization": ""})).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example:9797"},
        {"Host": "evil.example:127.0.0.1"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
@every_api
async def test_a_web_page_is_refused(proxy: Proxy, provider_seen: Upstream, api: str, headers: dict[str, str]) -> None:
    path, own = APIS[api]
    reply = await proxy.ask("POST", path, headers={**own, **headers}, data=chat_body())
    assert (reply.status, reply.code) == (403, "cross_site_request")
    assert not provider_seen.seen


async def test_a_web_page_is_refused_without_a_token_as_well(start_proxy: StartProxy, serve: Serve) -> None:
    """`--no-token` must not open the team's budget to every page that a developer looks at."""
    proxy = await start_proxy(document(provider("p", (await serve()).base_url)), token=None)
    reply = await proxy.ask("OPTIONS", CHAT_PATH, headers={"Origin": "https://evil.example", "authorization": ""})
    assert reply.status == 403
    assert not [name for name in reply.headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:9797", "LOCALHOST:1", "[::1]:9797", "[::1]"])
async def test_every_name_of_this_machine_is_served(proxy: Proxy, host: str) -> None:
    assert (await proxy.chat(headers={"Host": host})).status == 200


@pytest.mark.parametrize("path", ["/v1/realtime?model=m", "/v1beta/live", "/v1/chat/completions"])
async def test_a_websocket_handshake_is_a_501(proxy: Proxy, path: str) -> None:
    reply = await proxy.ask(
        "GET",
        path,
        headers={
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "x",
            "Sec-WebSocket-Version": "13",
        },
    )
    assert (reply.status, reply.code) == (501, "websockets_not_supported")
    await proxy.is_well()


async def test_a_post_that_asks_for_an_upgrade_ends(proxy: Proxy) -> None:
    body = chat_body()
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    writer.write(head.encode() + body)
    status_line = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    assert status_line.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 200 "))
    await proxy.is_well()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "//v1/chat/completions",
        "/v1/../v1/files",
        "/v1/%2e%2e/files",
        "/v1/chat%2fcompletions",
        "/v1/chat/completions/",
        "/v1/files;x=1",
        "/v1/chat/completions%00",
        "/v1/files/x/content",
        "/v1beta/models/..:generateContent",
        "/v1beta/models/g:unknownVerb",
        "/v1beta/models/g%2F..%2Fh:generateContent",
        "/_llm-sidecar/explain",
        "/%",
        "/v1/\\files",
    ],
)
async def test_a_path_that_is_not_served_is_a_403(proxy: Proxy, provider_seen: Upstream, path: str) -> None:
    reply = await proxy.ask("POST", path, data=chat_body())
    assert (reply.status, reply.code) == (403, "endpoint_not_allowed")
    assert not provider_seen.seen
    await proxy.is_well()


@pytest.mark.parametrize("target", ["http://127.0.0.1/v1/chat/completions", "*", "127.0.0.1:443"])
@pytest.mark.parametrize("method", ["POST", "OPTIONS", "CONNECT"])
async def test_a_target_of_another_form_never_leaves(
    proxy: Proxy, provider_seen: Upstream, method: str, target: str
) -> None:
    head = (
        f"{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nx-api-key: {TOKEN}\r\nContent-Length: 0\r\n"
        "Connection: close\r\n\r\n"
    )
    answer = await proxy.raw(head.encode())
    assert answer[9:12] in {b"400", b"403"}
    assert not provider_seen.seen
    await proxy.is_well()


# --- framing

SMUGGLED = f"POST /v1/files HTTP/1.1\r\nHost: x\r\nx-api-key: {TOKEN}\r\nContent-Length: 0\r\n\r\n"
FRAMING = {
    "both": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "both-reversed": "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,
    "two-lengths": "Content-Length: 2\r\nContent-Length: 9\r\n\r\n{}" + SMUGGLED,
    "list-of-lengths": "Content-Length: 2, 9\r\n\r\n{}",
    "signed-length": "Content-Length: +2\r\n\r\n{}",
    "hexadecimal-length": "Content-Length: 0x2\r\n\r\n{}",
    "unknown-transfer-encoding": "Transfer-Encoding: xchunked\r\n\r\n{}",
    "chunked-twice": "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "bad-chunk-size": "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "bad-second-chunk": "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n-1\r\n\r\n",
    "bad-chunk-end": "Transfer-Encoding: chunked\r\n\r\n2\r\n{}xx0\r\n\r\n",
    "obsolete-folding": "X-A: 1\r\n folded\r\nContent-Length: 2\r\n\r\n{}",
    "nul": "X-A: 1\x002\r\nContent-Length: 2\r\n\r\n{}",
    "bare-carriage-return": "X-A: 1\r2\r\nContent-Length: 2\r\n\r\n{}",
    "space-before-colon": "Content-Length : 2\r\n\r\n{}",
    "no-name": ": 1\r\nContent-Length: 2\r\n\r\n{}",
    "endless-header": "X-A: " + "a" * 100_000 + "\r\n\r\n",
    "many-headers": "".join(f"X-{number}: 1\r\n" for number in range(1000)) + "\r\n",
}


@pytest.mark.parametrize("case", FRAMING)
async def test_ambiguous_framing_reaches_no_provider_and_ends_the_connection(
    proxy: Proxy, provider_seen: Upstream, case: str
) -> None:
    """A second request hidden in the first is answered by nobody, and the refusal is one that an SDK can read."""
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    answer = await proxy.raw((head + FRAMING[case]).encode("latin-1"))
    assert answer[9:12] == b"400", answer[:300]
    assert answer.count(b"HTTP/1.") == 1 + answer.count(b"valid HTTP/1."), answer
    assert b"x-llm-sidecar-refused-by" in answer.lower()
    error = orjson.loads(answer.partition(b"\r\n\r\n")[2])["error"]
    assert error["code"] in {"malformed_http", "malformed_request"}
    assert TOKEN.encode() not in answer
    assert not provider_seen.seen
    await proxy.is_well()


@pytest.mark.parametrize("case", ["bad-chunk-size", "bad-second-chunk", "bad-chunk-end"])
async def test_a_bad_chunk_that_comes_later_is_refused_as_well(
    proxy: Proxy, provider_seen: Upstream, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's parser does not tell the reader: the refusal comes when nothing more of the body does."""
    monkeypatch.setattr(body_module.read_body, "__kwdefaults__", {"idle_seconds": 0.1})
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    head, _, body = FRAMING[case].partition("\r\n\r\n")
    writer.write(
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n{head}\r\n\r\n".encode()
    )
    writer.write(b"1\r\n{\r\n")
    await writer.drain()
    budget = proxy.sidecar._pipeline._budget  # type: ignore[union-attr]
    await until(lambda: budget.held_bytes == 1)
    writer.write(body.encode())
    answer = await asyncio.wait_for(reader.readline(), 5)
    writer.close()
    await writer.wait_closed()
    assert answer[9:12] in {b"400", b"408"}
    assert not provider_seen.seen
    await proxy.is_well()


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\x00" * 100, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]
)
async def test_what_is_no_http_at_all_is_a_400(proxy: Proxy, garbage: bytes) -> None:
    answer = await proxy.raw(garbage)
    assert not answer or answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ", b"HTTP/1.1 403 ", b"HTTP/2.0 "))
    await proxy.is_well()


async def test_a_refused_head_leaves_neither_key_nor_token_in_the_log(
    proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    head = f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization : Bearer {TOKEN}\r\n\r\n"
    await proxy.raw(head.encode())
    assert TOKEN not in caplog.text
    assert KEY not in caplog.text


async def test_header_bytes_beyond_ascii_do_not_fail_a_request(proxy: Proxy, provider_seen: Upstream) -> None:
    """`X-Title: café` in Latin-1 is no valid UTF-8: it may get lost, the request may not."""
    body = chat_body()
    head = (
        f"POST {CHAT_PATH} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\nX-Title: caf\xe9\r\n"
        f"X-Kept: yes\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    answer = await proxy.raw(head.encode("latin-1") + body)
    assert answer.startswith(b"HTTP/1.1 200 "), answer
    assert provider_seen.seen[-1].headers["X-Kept"] == "yes"


async def test_connections_that_never_send_anything_disturb_nobody(proxy: Proxy) -> None:
    sockets = [socket.create_connection(("127.0.0.1", proxy.listening.port)) for _ in range(50)]
    try:
        await proxy.is_well()
    finally:
        for each in sockets:
            each.close()
