"""Where purges are counted: the hash of epochs of each team, in the Redis that the proxies use."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Protocol

from pydantic import SecretStr

from llm_operator.redis_client import REDIS_FAILURES, RedisClient, close_client, redis_client
from llm_sidecar.contract.keys import cache_epochs

SOCKET_SECONDS: Final = 1.0

_PURGE_ONCE: Final = (files("llm_operator") / "lua" / "purge_once.lua").read_text(encoding="utf-8")


class StoreAway(Exception):
    """It could not be asked. `reason` is a word that shows no address."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeStep:
    """One purge of one team's answers."""

    team: str
    remembered_in: str
    """Field that remembers for which value it was done last."""
    value: str
    epoch: str
    """Field that is counted up."""


class Purges(Protocol):
    """What carries out purges."""

    async def purge(self, step: PurgeStep) -> None:
        """Purge, unless it was done for this value. Raises `StoreAway`; to try again is safe."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class RedisPurges:
    """`Purges` in Redis."""

    def __init__(self, url: SecretStr, *, ca_bundle: str | None = None) -> None:
        self._url = url
        self._ca_bundle = ca_bundle
        self._client: RedisClient | None = None

    async def purge(self, step: PurgeStep) -> None:
        """See `Purges`."""
        try:
            client: Any = self._connected()
            await client.eval(_PURGE_ONCE, 1, cache_epochs(step.team), step.remembered_in, step.value, step.epoch)
        except (*REDIS_FAILURES, ValueError) as error:
            # A ValueError is a URL that cannot be used; the text of all of these may show it.
            raise StoreAway(type(error).__name__) from None

    def _connected(self) -> RedisClient:
        if self._client is None:
            self._client = redis_client(self._url, ca_bundle=self._ca_bundle, timeout_seconds=SOCKET_SECONDS)
        return self._client

    async def close(self) -> None:
        """See `Purges`."""
        if self._client is not None:
            await close_client(self._client)
