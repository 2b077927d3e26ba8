"""One Redis server as it is dialled, and all servers of one URL: they share login and TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

from llm_sidecar.contract.redis_url import InvalidStoreURL, RedisURL, parse_redis_url

Address = tuple[str, int]
"""Host and port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisEndpoint:
    """One Redis server: a TCP address or the path of a Unix socket, and how to log in."""

    host: str = ""
    port: int = 0
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: ssl.SSLContext | None = None


class RedisServers:
    """The servers that a URL leads to. `ca_bundle`: PEM of the authorities to trust, in the place of the system's."""

    def __init__(self, url: str, *, ca_bundle: str | None = None) -> None:
        self.url = parse_redis_url(url)
        if ca_bundle is not None and not self.url.tls:
            raise InvalidStoreURL("the store has a CA bundle, and its URL no TLS: begin the URL with rediss")
        self._tls = _tls_context(self.url, ca_bundle) if self.url.tls else None

    @property
    def only(self) -> RedisEndpoint:
        """The one server."""
        if self.url.socket_path is None:
            return self.at(self.url.addresses[0])
        return RedisEndpoint(
            path=self.url.socket_path,
            username=self.url.username,
            password=self.url.password,
            database=self.url.database,
        )

    def at(self, address: Address) -> RedisEndpoint:
        """A server that holds data."""
        return RedisEndpoint(
            host=address[0],
            port=address[1],
            username=self.url.username,
            password=self.url.password,
            database=self.url.database,
            tls=self._tls,
        )

    def sentinel_at(self, address: Address, *, logged_in: bool) -> RedisEndpoint:
        """A Sentinel. It has a login of its own, the same as the servers, or none."""
        username, password = self.url.sentinel_username, self.url.sentinel_password
        if password is None and logged_in:
            username, password = self.url.username, self.url.password
        return RedisEndpoint(host=address[0], port=address[1], username=username, password=password, tls=self._tls)


def _tls_context(url: RedisURL, ca_bundle: str | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=url.ca_file, cadata=ca_bundle)
    except OSError as error:  # ssl.SSLError is one
        field_name = "the store's CA bundle" if url.ca_file is None else "ssl_ca_certs of the store's URL"
        raise InvalidStoreURL(f"{field_name} cannot be read ({_why(error)}): name PEM certificates") from None
    if url.certificate_file is not None:
        try:
            context.load_cert_chain(url.certificate_file, url.key_file)
        except OSError as error:
            raise InvalidStoreURL(
                f"a TLS file of the store's URL cannot be read ({_why(error)}): check ssl_certfile and ssl_keyfile"
            ) from None
    return context


def _why(error: OSError) -> str:
    return error.strerror or type(error).__name__
