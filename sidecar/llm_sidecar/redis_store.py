"""The store on one Redis or Valkey server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from llm_sidecar.contract.redis_url import InvalidStoreURL
from llm_sidecar.redis_breaker import OnChange
from llm_sidecar.redis_connection import ServerError, packed
from llm_sidecar.redis_endpoint import RedisServers
from llm_sidecar.redis_node import NodeOptions, RedisNode
from llm_sidecar.store import Reply, Script, StoreUnavailable


def values_of(reply: Reply, number: int) -> list[bytes | None]:
    """What MGET answered."""
    values = [value for value in reply if value is None or isinstance(value, bytes)] if isinstance(reply, list) else []
    if len(values) != number:
        raise StoreUnavailable("protocol")
    return values


class ServerVerbs(RedisNode):
    """The verbs of a `Store` on whichever server the node is connected to."""

    async def get(self, key: str) -> bytes | None:
        """The value, or None."""
        reply = await self._call(packed("GET", key))
        if reply is None or isinstance(reply, bytes):
            return reply
        raise StoreUnavailable("protocol")

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of their keys; the server is asked once."""
        return values_of(await self._call(packed("MGET", *keys)), len(keys)) if keys else []

    async def set(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        """Store a value that expires."""
        await self._call(packed("SET", key, value, "EX", ttl_seconds))

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        """Run a script; all its keys must hash to one Cluster slot."""
        tail = (len(keys), *keys, *arguments)
        reply = await self.send(packed("EVALSHA", script.digest, *tail))
        if isinstance(reply, ServerError) and reply.code == "NOSCRIPT":
            reply = await self.send(packed("EVAL", script.source, *tail))
        return self.checked(reply, otherwise="script")

    async def _call(self, command: bytes) -> Reply:
        return self.checked(await self.send(command), otherwise="protocol")


class RedisStore(ServerVerbs):
    """A `Store` on the one server that a URL names."""

    def __init__(
        self,
        url: str,
        *,
        ca_bundle: str | None = None,
        on_change: OnChange | None = None,
        **options: Unpack[NodeOptions],
    ) -> None:
        servers = RedisServers(url, ca_bundle=ca_bundle)
        if servers.url.kind != "single":
            raise InvalidStoreURL("the store's URL names more than one server: begin it with redis:// or rediss://")
        super().__init__(servers.only, on_change=on_change, **options)
