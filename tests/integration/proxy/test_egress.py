"""How requests leave: which URL, which headers, through which proxy, with which certificates; never the pod's token."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trustme

from tests.integration.proxy.conftest import StartProxy
from tests.integration.proxy.harness import (
    CHAT_ANSWER,
    KEY,
    TOKEN,
    Proxy,
    Upstream,
    chat_body,
    document,
    plain,
    provider,
    raw_server,
)

Serve = Callable[..., Awaitable[Upstream]]


async def one(start_proxy: StartProxy, upstream: Upstream, **spec: Any) -> Proxy:
    return await start_proxy(document(provider("p", upstream.base_url, **spec)))


# --- headers and URL


async def test_our_key_goes_and_the_pods_token_stays(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve()
    proxy = await one(start_proxy, upstream)
    await proxy.chat(
        headers={
            "authorization": f"Bearer {TOKEN}",
            "x-api-key": TOKEN,
            "x-goog-api-key": TOKEN,
            "api-key": TOKEN,
            "Cookie": "a=b",
            "OpenAI-Organization": "org-theirs",
            "OpenAI-Project": "proj-theirs",
            "X-Goog-User-Project": "theirs",
            "X-Forwarded-For": "10.0.0.1",
            "Via": "1.1 x",
            "Referer": "http://app.internal/",
            "Proxy-Authorization": "Basic x",
            "Connection": "keep-alive, X-Hop",
            "X-Hop": "1",
            "TE": "trailers",
            "Accept-Encoding": "gzip, br",
            "X-LLM-Sidecar-Provider": "forged",
            "User-Agent": "OpenAI/Python",
            "X-Kept": "yes",
        }
    )
    seen = upstream.seen[0].headers
    assert seen.getall("authorization") == [f"Bearer {KEY}"]
    assert TOKEN not in str(list(seen.items()))
    assert seen.getall("accept-encoding") == ["identity"]
    assert (seen["user-agent"], seen["x-kept"]) == ("OpenAI/Python", "yes")
    assert {name.lower() for name in seen} == {
        "host",
        "authorization",
        "accept-encoding",
        "user-agent",
        "x-kept",
        "content-length",
        "content-type",
    }


@pytest.mark.parametrize(
    ("kind", "path", "header", "value"),
    [
        ("OpenAI", "/v1/chat/completions", "authorization", f"Bearer {KEY}"),
        ("Anthropic", "/v1/messages", "x-api-key", KEY),
        ("Google", "/v1beta/models/m:generateContent", "x-goog-api-key", KEY),
    ],
)
async def test_each_type_sends_its_key_in_its_own_way(  # noqa: PLR0917 - fixtures and parameters
    start_proxy: StartProxy, serve: Serve, kind: str, path: str, header: str, value: str
) -> None:
    upstream = await serve()
    proxy = await one(start_proxy, upstream, type=kind)
    assert (await proxy.ask("POST", f"{path}?key={TOKEN}&x=1", data=chat_body(max_tokens=1))).status == 200
    seen = upstream.seen[0]
    assert seen.headers.getall(header) == [value]
    assert seen.path == f"{path}?x=1"


@pytest.mark.parametrize(
    ("spec", "path", "headers"),
    [
        ({"baseURL": "/openai/v1/"}, "/openai/v1/chat/completions", {"authorization": f"Bearer {KEY}"}),
        ({"authentication": {"header": "api-key"}}, "/v1/chat/completions", {"api-key": KEY, "authorization": None}),
        (
            {"authentication": {"header": "X-Auth", "scheme": "Token"}},
            "/v1/chat/completions",
            {"x-auth": f"Token {KEY}", "authorization": None},
        ),
        ({"credential": None}, "/v1/chat/completions", {"authorization": None}),
        (
            {"headers": [{"name": "OpenAI-Project", "value": "ours"}, {"name": "X-Kept", "value": "ours"}]},
            "/v1/chat/completions",
            {"openai-project": "ours", "x-kept": "ours"},
        ),
    ],
    ids=["path-prefix", "api-key-header", "own-scheme", "keyless", "extra-headers"],
)
async def test_every_compatible_server_is_reached_as_it_wants(
    start_proxy: StartProxy, serve: Serve, spec: dict[str, Any], path: str, headers: dict[str, str | None]
) -> None:
    upstream = await serve()
    if "baseURL" in spec:
        spec = {"baseURL": upstream.base_url + spec["baseURL"]}
    proxy = await one(start_proxy, upstream, **spec)
    reply = await proxy.chat(
        headers={"authorization": f"Bearer {TOKEN}", "openai-project": "theirs", "x-kept": "theirs", "x-auth": "theirs"}
    )
    assert reply.status == 200
    seen = upstream.seen[0]
    assert seen.path == path
    for name, value in headers.items():
        assert seen.headers.getall(name, []) == ([] if value is None else [value])


async def test_cookies_and_connection_headers_of_a_provider_stay_with_us(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve(
        plain(
            CHAT_ANSWER,
            set_cookie="cf=1",
            alt_svc="h3",
            x_llm_sidecar_cache="forged",
            x_request_id="r",
            x_ratelimit="9",
        )
    )
    proxy = await one(start_proxy, upstream)
    await proxy.chat()
    reply = await proxy.chat()
    assert "set-cookie" not in reply.headers
    assert "alt-svc" not in reply.headers
    assert reply.headers["x-llm-sidecar-cache"] == "bypass"
    assert (reply.headers["x-request-id"], reply.headers["x-ratelimit"]) == ("r", "9")
    assert "cookie" not in upstream.seen[1].headers


async def test_the_applications_proxy_variables_are_ignored(
    start_proxy: StartProxy, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    proxy = await one(start_proxy, await serve())
    await proxy.is_well()


# --- TLS

AUTHORITY = trustme.CA()


def server_tls(authority: trustme.CA = AUTHORITY, *, client_authority: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    if client_authority is not None:
        client_authority.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


BUNDLE: dict[str, Any] = {
    "ca_bundle": AUTHORITY.cert_pem.bytes().decode(),
    "egress": {"caBundleSecretRef": {"name": "s", "key": "k"}},
}


async def test_a_private_authority_is_trusted_by_its_bundle(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await one(start_proxy, await serve(tls=server_tls()), **BUNDLE)
    await proxy.is_well()


@pytest.mark.parametrize("bundle", [{}, BUNDLE], ids=["system", "other"])
async def test_an_unknown_authority_is_refused_and_told(
    start_proxy: StartProxy, serve: Serve, bundle: dict[str, Any]
) -> None:
    upstream = await serve(tls=server_tls(trustme.CA()))
    proxy = await one(start_proxy, upstream, **bundle)
    reply = await proxy.chat()
    assert reply.code == "no_provider_available"
    assert "caBundleSecretRef" in reply.json()["error"]["message"]
    assert b"localhost" not in reply.body
    assert not upstream.seen


async def test_a_certificate_for_another_name_is_refused(start_proxy: StartProxy, serve: Serve) -> None:
    upstream = await serve(tls=server_tls())
    upstream.base_url = upstream.base_url.replace("localhost", "127.0.0.1")
    proxy = await one(start_proxy, upstream, **BUNDLE)
    assert (await proxy.chat()).code == "no_provider_available"
    assert not upstream.seen


async def test_a_client_certificate_is_shown_where_it_is_asked_for(start_proxy: StartProxy, serve: Serve) -> None:
    clients = trustme.CA()
    certificate = clients.issue_cert("sidecar")
    upstream = await serve(tls=server_tls(client_authority=clients))
    ours = {
        "certificate": b"".join(blob.bytes() for blob in certificate.cert_chain_pems).decode(),
        "privateKey": certificate.private_key_pem.bytes().decode(),
    }
    egress = {**BUNDLE["egress"], "clientCertificateSecretRef": {"name": "t"}}
    proxy = await one(start_proxy, upstream, **{**BUNDLE, "egress": egress}, client_certificate=ours)
    await proxy.is_well()
    without = await one(start_proxy, upstream, **BUNDLE)
    assert (await without.chat()).code == "no_provider_available"


# --- an egress proxy


@asynccontextmanager
async def connect_proxy(targets: list[bytes], *, status: bytes = b"200 OK") -> AsyncIterator[str]:
    """An HTTP proxy for CONNECT and for absolute URLs."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b" ", 2)
        targets.append(method + b" " + target)
        assert KEY.encode() not in head or method != b"CONNECT"
        if status != b"200 OK":
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            await writer.drain()
            return
        host, port = (target if method == b"CONNECT" else target.split(b"/")[2]).split(b":")
        there, back = await asyncio.open_connection("127.0.0.1", int(port))
        del host
        if method == b"CONNECT":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            back.write(head)
        await asyncio.gather(_pump(reader, back), _pump(there, writer))

    async with raw_server(converse) as port:
        yield f"http://127.0.0.1:{port}"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_https_leaves_through_the_proxy_by_connect(start_proxy: StartProxy, serve: Serve) -> None:
    targets: list[bytes] = []
    upstream = await serve(tls=server_tls())
    async with connect_proxy(targets) as url:
        spec = {**BUNDLE, "egress": {**BUNDLE["egress"], "proxyURL": url}}
        proxy = await one(start_proxy, upstream, **spec)
        await proxy.is_well()
        await proxy.sidecar.stop()
    port = upstream.base_url.rsplit(":", 1)[1].encode()
    assert targets == [b"CONNECT localhost:" + port]
    assert upstream.seen[0].headers["authorization"] == f"Bearer {KEY}"


async def test_http_leaves_through_the_proxy_by_its_whole_url(start_proxy: StartProxy, serve: Serve) -> None:
    targets: list[bytes] = []
    upstream = await serve()
    async with connect_proxy(targets) as url:
        proxy = await one(start_proxy, upstream, egress={"proxyURL": url})
        await proxy.is_well()
        await proxy.sidecar.stop()
    assert targets[0].startswith(b"POST http://127.0.0.1:")


@pytest.mark.parametrize("status", [b"403 Forbidden", b"407 Proxy Authentication Required", b"502 Bad Gateway"])
async def test_a_proxy_that_refuses_is_named_as_the_reason(
    start_proxy: StartProxy, serve: Serve, status: bytes
) -> None:
    upstream = await serve(tls=server_tls())
    async with connect_proxy([], status=status) as url:
        proxy = await one(start_proxy, upstream, **{**BUNDLE, "egress": {**BUNDLE["egress"], "proxyURL": url}})
        reply = await proxy.chat()
    assert reply.code == "no_provider_available"
    assert "egress.proxyURL" in reply.json()["error"]["message"]
    assert url.encode() not in reply.body


async def test_a_proxy_that_is_not_there_is_named_as_the_reason(start_proxy: StartProxy, serve: Serve) -> None:
    proxy = await one(start_proxy, await serve(), egress={"proxyURL": "http://127.0.0.1:1"})
    assert "egress.proxyURL" in (await proxy.chat()).json()["error"]["message"]


async def test_connections_to_a_provider_are_used_again(start_proxy: StartProxy, serve: Serve) -> None:
    peers: set[Any] = set()

    async def answer(request: Any, _body: bytes) -> Any:
        peers.add(request.transport.get_extra_info("peername"))
        return await plain()(request, _body)

    proxy = await one(start_proxy, await serve(answer))
    for _ in range(10):
        await proxy.is_well()
    assert len(peers) == 1
