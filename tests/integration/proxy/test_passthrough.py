"""Paths that a provider lists pass in both directions while they arrive; all others stay closed."""

from __future__ import annotations

import asyncio
import io
import resource
from collections.abc import AsyncIterator, Awaitable, Callable
from hashlib import sha256
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from llm_sidecar import body as body_module
from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import KEY, TOKEN, Proxy, Upstream, document, error, plain, provider, until

Serve = Callable[..., Awaitable[Upstream]]
MIB = 1024 * 1024


async def opened(start_proxy: StartProxy, upstream: Upstream, **rest: Any) -> Proxy:
    spec = {"passthroughPaths": ["/v1/files", "/v1/files/*", "/v1beta/files"], **rest.pop("spec", {})}
    return await start_proxy(document(provider("p", upstream.base_url, **spec), **rest))


async def test_json_passes_with_our_key_and_without_the_token(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve(plain(b'{"ok" : 1}', status=201, x_request_id="r1"))
    proxy = await opened(start_proxy, upstream)
    reply = await proxy.ask(
        "POST", "/v1/files?limit=2&after=a%2Fb", data=b'{"a":1}', headers={"content-type": "application/json"}
    )
    assert (reply.status, reply.body, reply.headers["x-request-id"]) == (201, b'{"ok" : 1}', "r1")
    assert reply.headers["x-llm-sidecar-provider"] == "p"
    seen = upstream.seen[0]
    assert (seen.method, seen.path, seen.body) == ("POST", "/v1/files?limit=2&after=a%2Fb", b'{"a":1}')
    assert seen.headers["authorization"] == f"Bearer {KEY}"
    assert seen.headers["content-length"] == "7"
    assert seen.headers["content-type"] == "application/json"
    assert TOKEN not in str(seen.headers)
    line = await proxy.audit_line(reply.request_id)
    assert (line["type"], line["provider"], line["status"]) == ("passthrough", "p", 201)


async def test_a_multipart_upload_passes_byte_by_byte(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve()
    proxy = await opened(start_proxy, upstream)
    form = aiohttp.FormData()
    form.add_field("purpose", "batch")
    form.add_field("file", bytes(range(256)) * 100, filename="a.jsonl")
    reply = await proxy.ask("POST", "/v1/files", data=form)
    assert reply.status == 200
    seen = upstream.seen[0]
    assert seen.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert bytes(range(256)) * 100 in seen.body


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "PATCH", "HEAD"])
async def test_every_method_passes(start_proxy: StartProxy, serve: Serve, method: str) -> None:
    upstream = await serve(plain(b"" if method == "HEAD" else b"{}"))
    proxy = await opened(start_proxy, upstream)
    reply = await proxy.ask(method, "/v1/files/file-1")
    assert reply.status == 200
    assert (upstream.seen[0].method, upstream.seen[0].body) == (method, b"")
    assert "transfer-encoding" not in upstream.seen[0].headers


@pytest.mark.parametrize("status", [204, 304, 400, 404, 409, 429, 500])
async def test_every_answer_comes_back(start_proxy: StartProxy, serve: Serve, status: int) -> None:
    body = b"" if status in {204, 304} else b'{"error":1}'
    proxy = await opened(start_proxy, await serve(plain(body, status=status)))
    reply = await proxy.ask("GET", "/v1/files/file-1")
    assert (reply.status, reply.body) == (status, body)
    assert "x-llm-sidecar-refused-by" not in reply.headers


@pytest.mark.parametrize("path", ["/v1/batches", "/v1/filesystem", "/v1/files/../batches", "/v1/fine_tuning/jobs"])
async def test_other_paths_are_refused_by_name(start_proxy: StartProxy, serve: Serve, path: str) -> None:
    upstream = await serve()
    proxy = await opened(start_proxy, upstream)
    reply = await proxy.ask("GET", path)
    assert (reply.status, reply.code) == (403, "endpoint_not_allowed")
    assert not upstream.seen


async def test_a_refusal_of_our_key_is_masked(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await opened(start_proxy, await serve(error(401, f"Incorrect API key {KEY}")))
    reply = await proxy.ask("GET", "/v1/files")
    assert (reply.status, reply.code) == (503, "no_provider_available")
    assert KEY.encode() not in reply.body


@pytest.mark.parametrize(
    ("kind", "status", "body"),
    [
        ("OpenAI", 402, b'{"error":{"message":"organization org-secret has no credit"}}'),
        ("OpenAI", 403, b'{"error":{"message":"project proj-secret"}}'),
        ("Google", 400, b'{"error":{"code":400,"details":[{"reason":"API_KEY_INVALID"}]}}'),
    ],
)
async def test_an_error_about_our_account_is_masked_however_it_is_told(
    start_proxy: StartProxy, serve: Serve, kind: str, status: int, body: bytes
) -> None:
    upstream = await serve(plain(body, status=status))
    proxy = await opened(start_proxy, upstream, spec={"type": kind})
    reply = await proxy.ask("GET", "/v1beta/files" if kind == "Google" else "/v1/files")
    assert (reply.status, reply.code) == (503, "no_provider_available")
    assert b"secret" not in reply.body
    assert reply.headers["x-should-retry"] == "false"
    assert (await proxy.audit_line(reply.request_id))["attempts"][0]["status"] == status


async def test_an_error_about_the_request_passes_unaltered(start_proxy: StartProxy, serve: Serve) -> None:
    body = b'{"error":{"message":"' + b"x" * 200_000 + b'"}}'
    upstream = await serve(plain(body, status=404))
    proxy = await opened(start_proxy, upstream)
    reply = await proxy.ask("GET", "/v1/files/none")
    assert (reply.status, reply.body) == (404, body)


async def test_a_redirect_is_masked(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await opened(start_proxy, await serve(plain(b"", status=307, location="http://10.0.0.1/internal")))
    reply = await proxy.ask("POST", "/v1/files", data=b"{}")
    assert reply.code == "no_provider_available"
    assert "location" not in reply.headers
    assert b"10.0.0.1" not in reply.body


async def test_an_unreachable_provider_is_a_503(start_proxy: StartProxy) -> None:
    proxy = await start_proxy(document(provider("p", "http://127.0.0.1:1", passthroughPaths=["/v1/files"])))
    reply = await proxy.ask("POST", "/v1/files", data=b"{}")
    assert (reply.status, reply.code) == (503, "no_provider_available")
    assert b"127.0.0.1" not in reply.body


async def test_a_large_body_streams_both_ways_in_little_memory(start_proxy: StartProxy, serve: Serve) -> None:
    """50 MiB up and down while the process grows by much less; the provider echoes while it receives."""
    digest_sent, digest_back = sha256(), sha256()
    block = bytes(range(256)) * 256  # 64 KiB

    async def upload() -> AsyncIterator[bytes]:
        for _ in range(800):
            digest_sent.update(block)
            yield block

    async def echo(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
        await response.prepare(request)
        async for piece in request.content.iter_any():
            await response.write(piece)
        return response

    proxy = await opened(start_proxy, await serve(echo, reads_body=False))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with proxy.open("POST", "/v1/files", data=upload()) as response:
        async for piece in response.content.iter_any():
            digest_back.update(piece)
    assert digest_back.digest() == digest_sent.digest()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 30 * 1024
    assert proxy.sidecar._pipeline._budget.held_bytes == 0  # type: ignore[union-attr]


async def test_a_download_that_breaks_off_is_cut_for_the_application_too(start_proxy: StartProxy, serve: Serve) -> None:
    async def breaking(request: web.BaseRequest, _body: bytes) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "application/octet-stream"})
        await response.prepare(request)
        await response.write(b"x" * 1000)
        await asyncio.sleep(0.05)
        assert request.transport is not None
        request.transport.abort()
        return response

    proxy = await opened(start_proxy, await serve(breaking))
    with pytest.raises(aiohttp.ClientPayloadError):
        await proxy.ask("GET", "/v1/files/x")
    assert (await proxy.last_audit_line())["interrupted"] is True


async def test_an_upload_that_stops_is_a_408_and_leaves_no_half_file(
    start_proxy: StartProxy, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body_module.pieces_of, "__kwdefaults__", {"idle_seconds": 0.1})
    upstream = await serve()
    proxy = await opened(start_proxy, upstream)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    writer.write(
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Length: 100\r\n\r\nab".encode()
    )
    answer = await asyncio.wait_for(reader.readuntil(b"}}"), 5)
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 "), answer
    assert b"body_timeout" in answer
    assert not upstream.seen


async def test_an_upload_that_hangs_up_leaves_no_half_file(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve()
    proxy = await opened(start_proxy, upstream)
    _, writer = await asyncio.open_connection("127.0.0.1", proxy.listening.port)
    writer.write(
        f"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        "Content-Length: 100\r\n\r\nab".encode()
    )
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.close()
    line = await proxy.last_audit_line()
    assert (line["status"], line.get("client_gone")) == (499, True)
    assert not upstream.seen


async def test_a_passed_request_counts_as_a_call_and_no_token(
    start_proxy: StartProxy, serve: Serve, store_url: str
) -> None:
    proxy = await opened(
        start_proxy,
        await serve(),
        store_url=store_url,
        team={"limits": [{"name": "calls", "per": "Day", "requests": 1}]},
    )
    assert (await proxy.ask("GET", "/v1/files")).status == 200
    assert (await proxy.ask("GET", "/v1/files")).code == "team_quota_exceeded"


async def test_the_provider_of_the_calling_family_goes_first(start_proxy: StartProxy, serve: Serve) -> None:
    openai, google = await serve(), await serve()
    paths = ["/v1beta/files", "/v1/files"]
    proxy = await start_proxy(
        document(
            provider("openai", openai.base_url, passthroughPaths=paths),
            provider("google", google.base_url, type="Google", passthroughPaths=paths),
        )
    )
    await proxy.ask("GET", "/v1beta/files", headers={"x-goog-api-key": TOKEN, "authorization": ""})
    await proxy.ask("GET", "/v1/files")
    assert [seen.path for seen in google.seen] == ["/v1beta/files"]
    assert [seen.path for seen in openai.seen] == ["/v1/files"]
    assert google.seen[0].headers["x-goog-api-key"] == KEY


async def test_body_of_a_large_file_needs_no_length(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve()
    proxy = await opened(start_proxy, upstream)
    reply = await proxy.ask("POST", "/v1/files", data=io.BytesIO(b"x" * 2 * MIB))
    assert reply.status == 200
    assert len(upstream.seen[0].body) == 2 * MIB
    await until(lambda: proxy.metric("llm_requests_total", type="passthrough") == 1)
