"""Where the store is and how to get in, read from a URL as redis-py spells it.

Read here and not by redis-py, because importing that costs more memory and time than the rest of the proxy together.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_DEFAULT_PORT: Final = 6379
_PARAMETERS: Final = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})


class InvalidStoreURL(ValueError):
    """The URL of the store cannot be used. The message repeats neither the address nor the password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisEndpoint:
    """One Redis server: a TCP address or the path of a Unix socket, and how to log in."""

    host: str = ""
    port: int = _DEFAULT_PORT
    path: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    database: int = 0
    tls: ssl.SSLContext | None = None


def parse_redis_url(url: str) -> RedisEndpoint:
    """Read `redis://`, `rediss://` (TLS) and `unix://` URLs: `[user]:password@host:port/db`.

    With TLS, `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` name PEM files, as parameters of the URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise InvalidStoreURL("the store's URL must begin with redis://, rediss:// or unix://")
    parameters = _parameters(parts)
    username = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if username and password is None:
        raise InvalidStoreURL("the store's URL has a user name but no password: write user:password@host")
    if parts.scheme == "unix":
        if not parts.path:
            raise InvalidStoreURL("the store's URL has no path: write unix:///path/of/the.sock")
        database = _database(parameters.get("db", "0"))
        return RedisEndpoint(path=unquote(parts.path), username=username, password=password, database=database)
    if not parts.hostname:
        raise InvalidStoreURL("the store's URL has no host: write redis://host:6379/0")
    return RedisEndpoint(
        host=parts.hostname,
        port=_port(parts),
        username=username,
        password=password,
        database=_database(parameters.get("db") or parts.path.strip("/") or "0"),
        tls=_tls_context(parameters) if parts.scheme == "rediss" else None,
    )


def _parameters(parts: SplitResult) -> dict[str, str]:
    parameters = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    unknown = sorted(parameters.keys() - _PARAMETERS)
    if unknown:
        known = ", ".join(sorted(_PARAMETERS))
        raise InvalidStoreURL(f"the store's URL has the unknown parameter {unknown[0]!r}; known are {known}")
    if parts.scheme != "rediss" and parameters.keys() - {"db"}:
        raise InvalidStoreURL("the store's URL names TLS files without TLS: begin it with rediss://")
    return parameters


def _port(parts: SplitResult) -> int:
    try:
        return parts.port or _DEFAULT_PORT
    except ValueError:
        raise InvalidStoreURL("the store's URL has no valid port: write a number from 1 to 65535") from None


def _database(text: str) -> int:
    if not text.isdecimal():
        raise InvalidStoreURL("the store's URL names no database: write its number, as in redis://host:6379/0")
    return int(text)


def _tls_context(parameters: dict[str, str]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=parameters.get("ssl_ca_certs"))
        if "ssl_certfile" in parameters:
            context.load_cert_chain(parameters["ssl_certfile"], parameters.get("ssl_keyfile"))
    except OSError as error:  # ssl.SSLError is one
        reason = error.strerror or type(error).__name__
        raise InvalidStoreURL(
            f"a TLS file of the store's URL cannot be read ({reason}): check ssl_ca_certs, ssl_certfile and ssl_keyfile"
        ) from None
    return context
