"""What a provider grants each minute (`rateLimits`), shared by all proxies: taken for each attempt, and settled by it.

It keeps the fleet from running into the provider's own limits; it is no promise to anybody. So where the store cannot
be asked, an attempt goes ahead, and the provider says no where it must.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llm_sidecar.contract.keys import provider_rate
from llm_sidecar.quota.scripts import PROVIDER_RETURN, PROVIDER_TAKE
from llm_sidecar.store import StoreUnavailable

if TYPE_CHECKING:
    from llm_sidecar.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantedRate:
    """An LLMProvider's `rateLimits`; 0 where it names none."""

    requests_per_minute: int = 0
    tokens_per_minute: int = 0


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The fleet has used up what the provider grants."""

    wait_seconds: float


class Take:
    """What one attempt has taken. Settle it once; what is not settled counts as used."""

    __slots__ = ("_provider", "_rates", "_tokens")

    def __init__(self, rates: ProviderRates, provider: str, *, tokens: int) -> None:
        self._rates = rates
        self._provider = provider
        self._tokens = tokens

    def used(self, total_tokens: int) -> None:
        """The attempt took so many tokens."""
        self._rates.put_back(self._provider, requests=0, tokens=self._tokens - total_tokens)

    def unused(self, *, reached_provider: bool) -> None:
        """The attempt failed, and took no token; a provider that was reached has counted a request all the same."""
        self._rates.put_back(self._provider, requests=0 if reached_provider else 1, tokens=self._tokens)


class ProviderRates:
    """All providers' buckets in one store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: set[asyncio.Task[None]] = set()

    async def take(self, provider: str, rate: GrantedRate, *, tokens: int) -> Take | NoRoom | None:
        """Take a request and `tokens`; None where the store is away. `provider` is `NAMESPACE/NAME`."""
        arguments = (rate.requests_per_minute, rate.tokens_per_minute, tokens)
        try:
            reply = await self._store.run(PROVIDER_TAKE, (provider_rate(provider),), arguments)
        except StoreUnavailable:
            return None
        if isinstance(reply, int) and reply > 0:
            return NoRoom(reply / 1000)
        return Take(self, provider, tokens=tokens)

    def put_back(self, provider: str, *, requests: int, tokens: int) -> None:
        """Give back, without waiting for it."""
        if requests or tokens:
            task = asyncio.get_running_loop().create_task(self._put_back(provider, requests, tokens))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _put_back(self, provider: str, requests: int, tokens: int) -> None:
        with suppress(StoreUnavailable):  # the buckets fill by themselves
            await self._store.run(PROVIDER_RETURN, (provider_rate(provider),), (requests, tokens))

    async def close(self) -> None:
        """Wait for what is being given back: each is bounded by the store's time-out."""
        await asyncio.gather(*self._under_way, return_exceptions=True)
