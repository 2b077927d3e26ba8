"""redis-py's client for the Redis that the proxies use, of whichever kind its URL names."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import redis.asyncio
from pydantic import SecretStr
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from llm_sidecar.contract.redis_url import RedisURL, parse_redis_url

RETRIES: Final = 1
"""A connection may have gone meanwhile. The default, ten with growing pauses, makes each look at a store that is away
last for twelve seconds, and the first at Sentinels that want a password as well."""

RedisClient: TypeAlias = "redis.asyncio.Redis | RedisCluster"

REDIS_FAILURES: Final = (RedisError, RedisClusterException, OSError, TimeoutError)
"""What a command may raise. A Cluster that cannot be reached is no `RedisError`."""


def redis_client(url: SecretStr, *, ca_bundle: str | None = None, timeout_seconds: float) -> RedisClient:
    """A client that connects at its first command; close it with `close_client`. Raises `InvalidStoreURL`."""
    read = parse_redis_url(url.get_secret_value())
    options: dict[str, Any] = {
        "username": read.username,
        "password": read.password,
        **_common(read, ca_bundle, timeout_seconds),
    }
    if read.kind == "cluster":
        nodes = [ClusterNode(host, port) for host, port in read.addresses]
        return RedisCluster(startup_nodes=nodes, require_full_coverage=False, **options)
    options["db"] = read.database
    if read.kind == "sentinel":
        sentinels = _Sentinels(read, _common(read, ca_bundle, timeout_seconds), options)
        master: redis.asyncio.Redis = sentinels.master_for(read.master_name)
        return master
    if read.socket_path is not None:
        return redis.asyncio.Redis(unix_socket_path=read.socket_path, **options)
    [(host, port)] = read.addresses
    return redis.asyncio.Redis(host=host, port=port, **options)


async def close_client(client: RedisClient) -> None:
    """Close all its connections, those to Sentinels too, which its own `aclose` leaves."""
    await client.aclose()
    pool = None if isinstance(client, RedisCluster) else client.connection_pool
    if isinstance(pool, SentinelConnectionPool) and isinstance(pool.sentinel_manager, _Sentinels):
        await pool.sentinel_manager.aclose()


def _common(url: RedisURL, ca_bundle: str | None, timeout_seconds: float) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": timeout_seconds,
        "socket_connect_timeout": timeout_seconds,
        "protocol": 2,
        "retry": Retry(NoBackoff(), RETRIES),
    }
    if url.tls:
        options |= {"ssl": True, "ssl_ca_certs": url.ca_file, "ssl_ca_data": ca_bundle}
        options |= {"ssl_certfile": url.certificate_file, "ssl_keyfile": url.key_file}
    return options


class _Sentinels(Sentinel):
    """Sentinels with a login of their own, none, or that of the servers: as the proxies find out, too."""

    def __init__(self, url: RedisURL, common: dict[str, Any], server_options: dict[str, Any]) -> None:
        own = common | {"username": url.sentinel_username, "password": url.sentinel_password}
        super().__init__(list(url.addresses), sentinel_kwargs=own, **server_options)  # type: ignore[no-untyped-call]
        self._logged_in: Sentinel | None = None
        if url.sentinel_password is None and url.password is not None:
            same = common | {"username": url.username, "password": url.password}
            self._logged_in = Sentinel(list(url.addresses), sentinel_kwargs=same)  # type: ignore[no-untyped-call]

    async def discover_master(self, service_name: str) -> tuple[str, int]:
        try:
            found: tuple[str, int] = await super().discover_master(service_name)
        except MasterNotFoundError:
            if self._logged_in is None:
                raise
            found = await self._logged_in.discover_master(service_name)
        return found

    async def aclose(self) -> None:
        for sentinel in (*self.sentinels, *(self._logged_in.sentinels if self._logged_in is not None else ())):
            await sentinel.aclose()
