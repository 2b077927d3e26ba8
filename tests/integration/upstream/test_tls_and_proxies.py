"""The way out: TLS, whom it trusts, what it shows, and proxies in between."""

from __future__ import annotations

import asyncio
import ssl

import pytest
import trustme

from llm_sidecar.providers.base import SecretText, TransportError
from llm_sidecar.upstream import Egress
from tests.integration.upstream.conftest import Connect, Peer, Serve, Server, read_all, says

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
AUTHORITY = trustme.CA()
PEM = AUTHORITY.cert_pem.bytes().decode()


def server_tls(host: str = "localhost", *, clients: trustme.CA | None = None) -> ssl.SSLContext:
    """A server's context, signed by our authority."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    AUTHORITY.issue_cert(host).configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


async def test_an_encrypted_connection_is_kept_and_speaks_http_1(connect: Connect, serve: Serve) -> None:
    server = await serve(says(OK), tls=server_tls())
    transport = connect(Egress(ca_bundle=PEM))
    for _ in range(2):
        assert await read_all(await transport.send("GET", server.url, [], None, 5)) == b"ok"
    assert len(server.peers) == 1
    assert server.peers[0].writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"


@pytest.mark.parametrize("wrong", ["authority", "host", "protocol"])
async def test_a_server_that_is_not_who_it_should_be_is_not_talked_to(
    connect: Connect, serve: Serve, wrong: str
) -> None:
    server = await serve(says(OK), tls=server_tls("elsewhere.test" if wrong == "host" else "localhost"))
    url = server.url
    if wrong == "protocol":

        async def garbage(peer: Peer) -> None:
            await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await peer.until_closed()

        url = f"https://localhost:{(await serve(garbage)).port}"
    transport = connect(Egress(ca_bundle=None if wrong == "authority" else PEM))
    with pytest.raises(TransportError, match=r"TLS failed.*caBundleSecretRef") as caught:
        await transport.send("GET", url, [], None, 5)
    assert caught.value.failure == "connection"


async def test_a_client_certificate_is_shown_from_memory(connect: Connect, serve: Serve) -> None:
    clients = trustme.CA()
    server = await serve(says(OK), tls=server_tls(clients=clients))
    own = clients.issue_cert("client@example.test")
    egress = Egress(
        ca_bundle=PEM,
        certificate=b"".join(blob.bytes() for blob in own.cert_chain_pems).decode(),
        private_key=SecretText(own.private_key_pem.bytes().decode()),
    )
    assert await read_all(await connect(egress).send("GET", server.url, [], None, 5)) == b"ok"
    with pytest.raises(TransportError):
        await connect(Egress(ca_bundle=PEM)).send("GET", server.url, [], None, 5)


async def test_a_server_that_never_shakes_hands_is_given_up_in_time(connect: Connect, serve: Serve) -> None:
    async def silent(peer: Peer) -> None:
        await peer.until_closed()
        closed.set()

    closed = asyncio.Event()
    server = await serve(silent)
    with pytest.raises(TransportError, match=r"connectSeconds"):
        await connect().send("GET", f"https://localhost:{server.port}", [], None, 0.05)
    async with asyncio.timeout(5):
        await closed.wait()


# --- proxies


async def _proxy(
    serve: Serve, *, status: bytes = b"200 Connected", tls: ssl.SSLContext | None = None
) -> tuple[Server, list[bytes]]:
    """A proxy that connects to loopback, whatever name it is told; and the heads that it is sent."""

    async def converse(peer: Peer) -> None:
        head, _ = await peer.request()
        heads.append(head)
        if not head.startswith(b"CONNECT "):
            await peer.send(b"HTTP/1.1 %b\r\nContent-Length: 2\r\n\r\nok" % status)
            await peer.until_closed()
            return
        await peer.send(b"HTTP/1.1 %b\r\n\r\n" % status)
        if not status.startswith(b"2"):
            return
        port = int(head.split()[1].rpartition(b":")[2])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(_carry(peer.reader, writer), _carry(reader, peer.writer))
        finally:
            writer.close()

    heads: list[bytes] = []
    return await serve(converse, tls=tls), heads


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


@pytest.mark.parametrize("encrypted", [False, True], ids=["http-proxy", "https-proxy"])
async def test_an_encrypted_provider_is_reached_through_a_tunnel(
    connect: Connect, serve: Serve, encrypted: bool
) -> None:
    server = await serve(says(OK), tls=server_tls())
    proxy, heads = await _proxy(serve, tls=server_tls() if encrypted else None)
    transport = connect(Egress(proxy_url=proxy.url, ca_bundle=PEM))
    for _ in range(2):
        assert await read_all(await transport.send("POST", server.url, [("X-Key", "k")], b"{}", 5)) == b"ok"
    authority = f"localhost:{server.port}".encode()
    assert heads == [b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (authority, authority)]


async def test_a_plain_provider_is_asked_for_by_its_whole_url(connect: Connect, serve: Serve) -> None:
    proxy, heads = await _proxy(serve)
    transport = connect(Egress(proxy_url=proxy.url))
    response = await transport.send("GET", "http://provider.test/v1/models?a=b", [], None, 5)
    assert await read_all(response) == b"ok"
    assert heads[0].startswith(b"GET http://provider.test/v1/models?a=b HTTP/1.1\r\nHost: provider.test\r\n")


@pytest.mark.parametrize("status", [403, 407, 502])
async def test_a_proxy_that_refuses_a_tunnel_is_named_as_the_cause(connect: Connect, serve: Serve, status: int) -> None:
    proxy, _ = await _proxy(serve, status=b"%d No" % status)
    transport = connect(Egress(proxy_url=proxy.url))
    with pytest.raises(TransportError, match=rf"egress proxy refused with status {status}") as caught:
        await transport.send("GET", "https://provider.test/", [], None, 5)
    assert caught.value.failure == "connection"


async def test_a_proxy_that_wants_to_know_who_asks_is_named_as_the_cause(connect: Connect, serve: Serve) -> None:
    proxy, _ = await _proxy(serve, status=b"407 Proxy Authentication Required")
    with pytest.raises(TransportError, match=r"egress proxy refused with status 407"):
        await connect(Egress(proxy_url=proxy.url)).send("GET", "http://provider.test/", [], None, 5)


async def test_a_tunnel_does_not_spare_the_provider_its_certificate(connect: Connect, serve: Serve) -> None:
    server = await serve(says(OK), tls=server_tls("elsewhere.test"))
    proxy, _ = await _proxy(serve)
    with pytest.raises(TransportError, match=r"TLS failed"):
        await connect(Egress(proxy_url=proxy.url, ca_bundle=PEM)).send("GET", server.url, [], None, 5)


async def test_the_environment_names_no_proxy(connect: Connect, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    server = await serve(says(OK))
    assert await read_all(await connect().send("GET", server.url, [], None, 5)) == b"ok"
