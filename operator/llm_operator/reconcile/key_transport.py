"""How the controller asks a provider about its key: one GET to where a user's resource points.

Whoever may write an LLMProvider chooses that address, and the controller sits where they perhaps do not. So it goes to
no link-local or metadata address, not to itself and not to the API server, follows no redirect, and shows no answer.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
from collections.abc import AsyncIterable, Sequence
from dataclasses import dataclass
from typing import Final, Self

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from llm_operator.reconcile.credentials import Credentials
from llm_sidecar.providers.base import Headers, ProviderResponse, TransportError

TOTAL_SECONDS: Final = 20
ANSWER_BYTES: Final = 64 * 1024

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_METADATA: Final = frozenset(
    map(ipaddress.ip_address, ("169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"))
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


class AddressRefused(TransportError):
    """The URL leads to an address that is no provider's."""

    def __init__(self) -> None:
        super().__init__("connection", "the URL leads to an address that is not open to providers")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressPolicy:
    """Which addresses may be asked."""

    api_server: frozenset[_Address] = frozenset()
    allow_loopback: bool = False

    def allows(self, text: str) -> bool:
        """True for an address that a provider may have. An IPv4 address inside an IPv6 one is looked at itself."""
        try:
            address = ipaddress.ip_address(text.partition("%")[0])
        except ValueError:
            return False
        if isinstance(address, ipaddress.IPv6Address):
            address = _embedded(address) or address
        if address.is_loopback:
            return self.allow_loopback
        return not (
            address.is_link_local
            or address.is_unspecified
            or address.is_multicast
            or address in _METADATA
            or address in self.api_server
        )


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour


def api_server_addresses(*hosts: str) -> frozenset[_Address]:
    """The addresses behind the API server's names, as far as they can be told."""
    found: set[_Address] = set()
    for host in (*hosts, os.environ.get("KUBERNETES_SERVICE_HOST", "")):
        if not host:
            continue
        try:
            answers = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
        except OSError:
            continue
        found |= {ipaddress.ip_address(str(answer[4][0]).partition("%")[0]) for answer in answers}
    return frozenset(found)


class _GuardedResolver(AbstractResolver):
    """Looks at what a name leads to, at the very moment of connecting: a name may lead elsewhere a moment later."""

    def __init__(self, policy: AddressPolicy) -> None:
        self._policy = policy
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See aiohttp."""
        found = await self._resolver.resolve(host, port, family)
        allowed = [one for one in found if self._policy.allows(one["host"])]
        if found and not allowed:
            raise AddressRefused
        return allowed

    async def close(self) -> None:
        """See aiohttp."""
        await self._resolver.close()


class KeyTransport:
    """A `Transport` for one question. Use it as a context manager."""

    def __init__(self, policy: AddressPolicy, *, credentials: Credentials, proxy_url: str | None) -> None:
        self._policy = policy
        self._proxy_url = proxy_url
        self._credentials = credentials
        self._session: aiohttp.ClientSession | None = None
        self.has_refused = False
        """True once an address was refused."""

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(
            resolver=_GuardedResolver(self._policy),
            ssl=tls_context(self._credentials),
            use_dns_cache=False,
            force_close=True,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=["User-Agent"],
        )
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, method: str, url: str, headers: Headers, body: bytes | AsyncIterable[bytes] | None, connect_seconds: float
    ) -> ProviderResponse:
        """See `Transport`."""
        try:
            for target in (url, self._proxy_url):
                self._refuse_literal(target)
            return await self._send(method, url, headers, body, connect_seconds)
        except AddressRefused:
            self.has_refused = True
            raise

    async def _send(
        self, method: str, url: str, headers: Headers, body: bytes | AsyncIterable[bytes] | None, connect_seconds: float
    ) -> ProviderResponse:
        if self._session is None:
            raise RuntimeError("use it as a context manager")
        timeout = aiohttp.ClientTimeout(total=TOTAL_SECONDS, sock_connect=connect_seconds)
        try:
            response = await self._session.request(
                method,
                URL(url, encoded=True),
                headers=headers,
                data=body,
                allow_redirects=False,
                proxy=self._proxy_url,
                timeout=timeout,
            )
        except AddressRefused:
            raise
        except TimeoutError:
            raise TransportError("timeout", "it did not answer in time") from None
        except (aiohttp.ClientSSLError, ssl.SSLError):
            raise TransportError("connection", "its certificate is not trusted, or TLS failed") from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise TransportError("connection", "no connection") from None
        return _Response(response)

    def _refuse_literal(self, url: str | None) -> None:
        # aiohttp asks no resolver about an address.
        host = URL(url, encoded=True).host if url is not None else None
        if host is None:
            return
        try:
            # Also the spellings of an address that only the system's resolver knows: 0x7f.1, 2130706433.
            address = socket.inet_ntoa(socket.inet_aton(host)) if ":" not in host else host
        except OSError:
            return
        if not self._policy.allows(address):
            raise AddressRefused


class _Response:
    """See `ProviderResponse`."""

    exhausted = False

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self.status = response.status
        self.headers: Headers = list(response.headers.items())

    def header(self, name: str) -> str | None:
        return self._response.headers.get(name)

    async def read_some(self) -> bytes:
        try:
            return await self._response.content.read(ANSWER_BYTES)
        except (aiohttp.ClientError, OSError, TimeoutError):
            raise TransportError("disconnected", "the answer broke off") from None

    def close(self) -> None:
        self._response.close()


def tls_context(credentials: Credentials) -> ssl.SSLContext:
    """TLS as the provider's egress wants it. Raises `TransportError` where its PEM texts cannot be used."""
    certificate = credentials.client_certificate
    try:
        context = ssl.create_default_context(cadata=credentials.ca_bundle)
        if certificate is not None:
            _load(context, (certificate.certificate, certificate.private_key.get_secret_value()))
    except (ssl.SSLError, ValueError):
        raise TransportError("connection", "its certificate or private key cannot be used") from None
    return context


def _load(context: ssl.SSLContext, texts: Sequence[str]) -> None:
    # OpenSSL's Python binding takes files only. A memory file never touches a disk, and needs no writable folder.
    descriptor = os.memfd_create("client-certificate")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write("\n".join(texts).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
