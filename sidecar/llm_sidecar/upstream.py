"""Connections to providers. The one module that knows which HTTP client does the work.

Behind `Transport` (see `providers.base`): no redirects, no cookies, no environment proxies, and every failure as a
`TransportError` that names no address. We ask for identity encoding; where a server compresses all the same, the
client unpacks it, so that usage never hides in gzip.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from llm_sidecar.providers.base import Headers, SecretText, TransportError

if TYPE_CHECKING:
    from llm_sidecar.providers.base import ProviderResponse

READ_BUFFER_BYTES: Final = 256 * 1024
"""How much of an answer the client reads ahead of us before it stops reading from the socket."""
HEADER_BYTES: Final = 32 * 1024
"""Providers send a handful of headers; one line longer than this is not an API's answer."""
KEEP_ALIVE_SECONDS: Final = 30
"""Shorter than the idle time-outs of the providers' load balancers, so that we close first."""
CONNECTIONS_PER_PROVIDER: Final = 1000
LARGE_BODY_BYTES: Final = 1024 * 1024
"""From here on a body is handed to the client in pieces, so that writing it never holds up other requests."""


@dataclass(frozen=True, slots=True)
class Egress:
    """How connections leave the pod. Equal ones share their connections."""

    proxy_url: str | None = None
    ca_bundle: str | None = None
    """PEM; replaces the system's authorities."""
    certificate: str | None = None
    """PEM of the client certificate (chain)."""
    private_key: SecretText | None = None


class InvalidEgress(ValueError):
    """A CA bundle, client certificate or private key that TLS cannot use."""


def tls_context(egress: Egress) -> ssl.SSLContext:
    """The TLS settings for an egress. Raises `InvalidEgress` naming the field, never quoting it."""
    try:
        context = ssl.create_default_context(cadata=egress.ca_bundle)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidEgress("egress.caBundleSecretRef: the bundle is not PEM of X.509 certificates") from error
    if egress.certificate is not None and egress.private_key is not None:
        _load_client_certificate(context, egress.certificate, egress.private_key)
    return context


def _load_client_certificate(context: ssl.SSLContext, certificate: str, private_key: SecretText) -> None:
    # OpenSSL's Python binding takes files only. A memory file never touches a disk, and needs no writable folder.
    import os  # noqa: PLC0415 - only with a client certificate

    descriptor = os.memfd_create("client-certificate")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(certificate.encode() + b"\n" + private_key.reveal().encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    except (ssl.SSLError, ValueError) as error:
        raise InvalidEgress(
            "egress.clientCertificateSecretRef: tls.crt and tls.key are not a PEM certificate and its unencrypted key"
        ) from error
    finally:
        os.close(descriptor)


class HTTPResponse:
    """An answer over aiohttp. See `ProviderResponse`."""

    __slots__ = ("_on_close", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, on_close: Callable[[], None]) -> None:
        self._response = response
        self._on_close: Callable[[], None] | None = on_close
        self.status = response.status
        self.headers: Iterable[tuple[str, str]] = response.headers.items()

    def header(self, name: str) -> str | None:
        """One header's value."""
        return self._response.headers.get(name)

    async def read_some(self) -> bytes:
        """What has arrived, in whole reads; empty at the end."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise _transport_error(error, answered=True) from error

    def close(self) -> None:
        """Keep the connection if the answer was read whole, cut it otherwise. May be called twice."""
        if self._on_close is None:
            return
        on_close, self._on_close = self._on_close, None
        on_close()
        if self._response.content.at_eof():
            self._response.release()
        else:
            self._response.close()


class AiohttpTransport:
    """One pool of connections with one egress. See `Transport`."""

    def __init__(self, egress: Egress) -> None:
        self._proxy = URL(egress.proxy_url) if egress.proxy_url else None
        self._context = tls_context(egress)
        self._session: aiohttp.ClientSession | None = None
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}
        self._active = 0
        self._idle = asyncio.Event()
        self._retired = False
        self._closing: asyncio.Task[None] | None = None

    async def send(
        self, method: str, url: str, headers: Headers, body: bytes | AsyncIterable[bytes] | None, connect_seconds: float
    ) -> ProviderResponse:
        """Send and wait for the answer's head. Raises `TransportError`."""
        session = self._session or self._open()
        if isinstance(body, bytes) and len(body) > LARGE_BODY_BYTES:
            headers = [*headers, ("Content-Length", str(len(body)))]
            body = _in_pieces(body)
        self._active += 1
        try:
            response = await session.request(
                method,
                self._url(url),
                headers=CIMultiDict(headers),
                data=body,
                allow_redirects=False,
                proxy=self._proxy,
                timeout=self._timeout(connect_seconds),
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            self._ended()
            raise _transport_error(error, answered=False) from error
        except BaseException:
            self._ended()
            raise
        return HTTPResponse(response, self._ended)

    def _ended(self) -> None:
        self._active -= 1
        if self._active == 0:
            self._idle.set()
            if self._retired:
                self._closing = asyncio.get_running_loop().create_task(self.close())

    async def retire(self) -> None:
        """Close, once the requests under way are over. One that came before, and sends only later, still may."""
        try:
            while self._active:
                self._idle.clear()
                await self._idle.wait()
        finally:
            self._retired = True
            await self.close()

    async def close(self) -> None:
        """Close every connection, also those in use."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            ssl=self._context,
            limit=CONNECTIONS_PER_PROVIDER,
            keepalive_timeout=KEEP_ALIVE_SECONDS,
            ttl_dns_cache=30,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
        )
        return self._session

    def _url(self, text: str) -> URL:
        # `encoded`: the path goes out as it came in. Few different URLs are in use, and parsing one costs 10 µs.
        url = self._urls.get(text)
        if url is None:
            if len(self._urls) >= 256:
                self._urls.clear()
            url = self._urls[text] = URL(text, encoded=True)
        return url

    def _timeout(self, connect_seconds: float) -> aiohttp.ClientTimeout:
        timeout = self._timeouts.get(connect_seconds)
        if timeout is None:
            # Only connecting is bounded here: what comes after depends on what is being waited for.
            timeout = aiohttp.ClientTimeout(total=None, connect=connect_seconds)
            self._timeouts[connect_seconds] = timeout
        return timeout


async def _in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), READ_BUFFER_BYTES):
        yield body[start : start + READ_BUFFER_BYTES]


def _transport_error(error: Exception, *, answered: bool) -> TransportError:
    """Which kind of failure an exception of the client is. Its own text may hold addresses, so none of it is kept."""
    match error:
        case asyncio.TimeoutError() if not answered:
            return TransportError("connection", "connecting took longer than timeouts.connectSeconds")
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError() | ssl.SSLError():
            return TransportError("connection", "TLS failed: check baseURL's certificate and egress.caBundleSecretRef")
        case aiohttp.ClientProxyConnectionError() | aiohttp.ClientHttpProxyError():
            return TransportError("connection", "the egress proxy could not be used: check egress.proxyURL")
        case aiohttp.ClientConnectorDNSError():
            return TransportError("connection", "the host name of baseURL was not found")
        case aiohttp.ClientConnectorError():
            return TransportError("connection", "the connection was refused or could not be made")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | ConnectionError():
            return TransportError("disconnected", "the provider closed the connection in the middle")
        case aiohttp.ClientOSError():
            return TransportError("disconnected", "the connection broke")
        case aiohttp.InvalidURL():
            return TransportError("connection", "baseURL is not a URL that can be called")
        case _:
            return TransportError("garbled", "the provider's answer is not valid HTTP")
