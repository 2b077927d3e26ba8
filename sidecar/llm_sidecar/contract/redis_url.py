"""Where the store is and how to get in, read from one URL, whose scheme says of which kind it is.

Read here and not by redis-py, because importing that costs a proxy more memory and time than all the rest of it; and
read once for both halves, so that controller and proxies cannot understand the same URL differently.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final, Literal
from urllib.parse import parse_qs, unquote

Kind = Literal["single", "sentinel", "cluster"]

_KINDS: Final[dict[str, Kind]] = {
    "redis": "single",
    "unix": "single",
    "redis+sentinel": "sentinel",
    "redis+cluster": "cluster",
}
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_TLS_PARAMETERS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_SENTINEL_PARAMETERS: Final = frozenset({"sentinel_username", "sentinel_password"})
_PARAMETERS: Final = frozenset({"db"}) | _TLS_PARAMETERS | _SENTINEL_PARAMETERS


class InvalidStoreURL(ValueError):
    """The URL of the store cannot be used. The message repeats neither the address nor the password."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisURL:
    """What one URL says."""

    kind: Kind
    addresses: tuple[tuple[str, int], ...] = ()
    """The server; or the Sentinels; or some nodes of the Cluster, which name the others. None for a Unix socket."""
    socket_path: str | None = None
    master_name: str = ""
    """What the Sentinels call it."""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    sentinel_username: str | None = None
    sentinel_password: str | None = field(default=None, repr=False)
    """For the Sentinels alone, where it is another."""
    database: int = 0
    tls: bool = False
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None


def parse_redis_url(url: str) -> RedisURL:
    """Read a URL. Raises `InvalidStoreURL`.

    - `redis://[[user]:password@]host[:port][/db]` and `unix://[[user]:password@]/path[?db=0]`: one server
    - `redis+sentinel://[…@]host[:port],host…/MASTER[/db]`: the master that Sentinels name
    - `redis+cluster://[…@]host[:port],host…`: a Cluster, by any of its nodes

    `rediss` in the place of `redis` means TLS; `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` then name PEM files.
    """
    # By hand: the standard library knows a single host in a URL.
    scheme, found, rest = url.partition("://")
    tls = scheme.startswith("rediss")
    kind = _KINDS.get(scheme.replace("rediss", "redis", 1))
    if not found or kind is None:
        raise InvalidStoreURL(
            "the store's URL must begin with redis://, rediss://, redis+sentinel://, rediss+sentinel://, "
            "redis+cluster://, rediss+cluster:// or unix://"
        )
    rest, _, query = rest.partition("?")
    place, _, path = rest.partition("/")
    login, _, hosts = place.rpartition("@")
    username, password = _login(login)
    parameters = _parameters(query, kind=kind, tls=tls)
    common = RedisURL(
        kind=kind,
        username=username,
        password=password,
        sentinel_username=parameters.get("sentinel_username"),
        sentinel_password=parameters.get("sentinel_password"),
        tls=tls,
        ca_file=parameters.get("ssl_ca_certs"),
        certificate_file=parameters.get("ssl_certfile"),
        key_file=parameters.get("ssl_keyfile"),
    )
    if scheme == "unix":
        return _on_socket(common, path, parameters.get("db"))
    return _on_network(common, hosts, path, parameters.get("db"))


def _login(text: str) -> tuple[str | None, str | None]:
    username, _, password = (unquote(part) or None for part in text.partition(":"))
    if username and password is None:
        raise InvalidStoreURL("the store's URL has a user name but no password: write user:password@host")
    return username, password


def _parameters(query: str, *, kind: Kind, tls: bool) -> dict[str, str]:
    parameters = {name: values[-1] for name, values in parse_qs(query).items()}
    unknown = sorted(parameters.keys() - _PARAMETERS)
    if unknown:
        known = ", ".join(sorted(_PARAMETERS))
        raise InvalidStoreURL(f"the store's URL has the unknown parameter {unknown[0]!r}; known are {known}")
    if parameters.keys() & _TLS_PARAMETERS and not tls:
        raise InvalidStoreURL("the store's URL names TLS files without TLS: begin it with rediss")
    if parameters.keys() & _SENTINEL_PARAMETERS and kind != "sentinel":
        raise InvalidStoreURL(
            "the store's URL has a Sentinel's login without Sentinel: begin it with redis+sentinel://"
        )
    if "sentinel_username" in parameters and "sentinel_password" not in parameters:
        raise InvalidStoreURL("the store's URL has a sentinel_username but no sentinel_password: add it")
    return parameters


def _on_socket(common: RedisURL, path: str, database: str | None) -> RedisURL:
    if not path:
        raise InvalidStoreURL("the store's URL has no path: write unix:///path/of/the.sock")
    return replace(common, socket_path="/" + unquote(path), database=_database(database or "0"))


def _on_network(common: RedisURL, hosts: str, path: str, database: str | None) -> RedisURL:
    default_port = _SENTINEL_PORT if common.kind == "sentinel" else _PORT
    addresses = tuple(_address(host, default_port) for host in hosts.split(","))
    master_name = ""
    if common.kind == "single" and len(addresses) > 1:
        raise InvalidStoreURL(
            "the store's URL names several hosts: begin it with redis+cluster:// or redis+sentinel://, or name one"
        )
    if common.kind == "sentinel":
        master_name, _, path = path.partition("/")
        if not master_name:
            raise InvalidStoreURL("the store's URL names no master: write redis+sentinel://host:26379/MASTER")
    number = _database(database or path.strip("/") or "0")
    if common.kind == "cluster" and number:
        raise InvalidStoreURL("the store's URL names a database, and a Cluster has database 0 alone: leave it out")
    return replace(common, addresses=addresses, master_name=unquote(master_name), database=number)


def _address(text: str, default_port: int) -> tuple[str, int]:
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = text.partition(":")
    if not host:
        raise InvalidStoreURL("the store's URL has no host: write redis://host:6379/0")
    if not port:
        return host, default_port
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise InvalidStoreURL("the store's URL has no valid port: write a number from 1 to 65535")
    return host, int(port)


def _database(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise InvalidStoreURL("the store's URL names no database: write its number, as in redis://host:6379/0")
    return int(text)
