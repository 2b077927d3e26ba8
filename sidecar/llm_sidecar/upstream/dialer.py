"""Making connections: addresses, TCP, the egress proxy, TLS. Bounded in time by the caller, leaving nothing behind."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING, Final

import aiohappyeyeballs

from llm_sidecar.providers.base import TransportError
from llm_sidecar.upstream import failures
from llm_sidecar.upstream.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from llm_sidecar.upstream.request import Origin

    Address = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[object, ...]]

HAPPY_EYEBALLS_SECONDS: Final = 0.25
"""How long an address may take before the next is tried beside it (RFC 8305)."""
ADDRESSES_SECONDS: Final = 30
KEEPALIVE_PROBE_SECONDS: Final = 60
"""A model may think for minutes without a byte; NAT gateways forget connections that are silent for as long."""


class Dialer:
    """Makes connections to one origin."""

    def __init__(self, origin: Origin, *, proxy: Origin | None, tls: Callable[[], ssl.SSLContext]) -> None:
        self._origin = origin
        self._proxy = proxy
        self._tls = tls
        self._addresses: Sequence[Address] = ()
        self._addresses_until = 0.0

    async def connect(self) -> Connection:
        """A new connection, ready for requests. Raises `TransportError`."""
        if self._proxy is None:
            connection = await self._reach(self._origin, is_tls=self._origin.is_tls)
        else:
            connection = await self._reach_through(self._proxy)
        if not connection.is_open:
            raise TransportError("connection", failures.REFUSED)
        return connection

    async def _reach_through(self, proxy: Origin) -> Connection:
        try:
            connection = await self._reach(proxy, is_tls=proxy.is_tls)
        except TransportError as error:
            raise TransportError("connection", failures.PROXY) from error
        if not self._origin.is_tls:
            return connection
        try:
            await self._tunnel(connection)
        except BaseException:
            connection.abort()
            raise
        return connection

    async def _tunnel(self, connection: Connection) -> None:
        host = f"{self._origin.bracketed_host}:{self._origin.port}"
        head = f"CONNECT {host} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        answer = connection.ask(head, expects_body=False)
        try:
            await answer.wait_for_head()
        except TransportError as error:
            raise TransportError("connection", failures.PROXY) from error
        if not 200 <= answer.status < 300:
            raise failures.proxy_refused(answer.status)
        if answer.is_spoiled:
            raise TransportError("connection", failures.PROXY)
        try:
            await connection.start_tls(self._tls(), self._origin.host)
        except OSError as error:
            raise _failure(error) from error

    async def _reach(self, origin: Origin, *, is_tls: bool) -> Connection:
        loop = asyncio.get_running_loop()
        connection = Connection(loop)
        addresses = await self._resolve(loop, origin)
        try:
            opened = await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=HAPPY_EYEBALLS_SECONDS, loop=loop
            )
        except (OSError, RuntimeError) as error:
            self._addresses_until = 0.0
            raise TransportError("connection", failures.REFUSED) from error
        _keep_alive(opened)
        try:
            await loop.create_connection(
                lambda: connection,
                sock=opened,
                ssl=self._tls() if is_tls else None,
                server_hostname=origin.host if is_tls else None,
            )
        except BaseException as error:
            connection.abort()
            opened.close()
            if isinstance(error, OSError):
                raise _failure(error) from error
            raise
        return connection

    async def _resolve(self, loop: asyncio.AbstractEventLoop, origin: Origin) -> Sequence[Address]:
        if loop.time() >= self._addresses_until:
            try:
                self._addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
            except (OSError, UnicodeError) as error:
                raise TransportError("connection", failures.UNKNOWN_HOST) from error
            self._addresses_until = loop.time() + ADDRESSES_SECONDS
        return self._addresses


def _failure(error: OSError) -> TransportError:
    is_about_tls = isinstance(error, ssl.SSLError)
    return TransportError("connection", failures.TLS if is_about_tls else failures.REFUSED)


def _keep_alive(opened: socket.socket) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):  # not on every system
        if (option := getattr(socket, name, None)) is not None:
            opened.setsockopt(socket.IPPROTO_TCP, option, KEEPALIVE_PROBE_SECONDS)
