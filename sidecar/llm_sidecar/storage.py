"""The store in use, and the team's quota that counts in it: both outlive reloads of the configuration."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from llm_sidecar.quota.reservation import Quota
from llm_sidecar.redis_store import RedisStore
from llm_sidecar.redis_url import InvalidStoreURL
from llm_sidecar.runtime import UnusableConfig

if TYPE_CHECKING:
    from llm_sidecar.contract.config import ConfigDocument
    from llm_sidecar.health import Health
    from llm_sidecar.store import Reason

SETTLE_SECONDS: Final = 1.5
"""At the end of the process: a native sidecar is killed two seconds after its pod's grace period ended."""
RETIRE_SECONDS: Final = 600.0
"""How long requests that were reserved in a store which is no longer configured may take to end."""
LOOK_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Backing:
    """One store, and the quotas of teams in it."""

    store: RedisStore
    quotas: dict[str, Quota]

    def quota(self, document: ConfigDocument) -> Quota | None:
        """The quota of the document's team, with its newest limits. Open reservations stay with it."""
        team = document.team
        if team is None:
            return None
        quota = self.quotas.get(team.label)
        if quota is None:
            quota = self.quotas[team.label] = Quota(self.store, team=team.label, spec=team.spec)
        else:
            quota.configure(team.spec)
        return quota

    async def close(self, *, settle_seconds: float) -> None:
        """Book what was spent, and close."""
        await asyncio.gather(*(quota.close(timeout_seconds=settle_seconds) for quota in self.quotas.values()))
        await self.store.close()

    async def retire(self) -> None:
        """Close once nothing that was reserved here is under way any more."""
        for _ in range(int(RETIRE_SECONDS / LOOK_SECONDS)):
            if not any(quota.open_reservations for quota in self.quotas.values()):
                break
            await asyncio.sleep(LOOK_SECONDS)
        await self.close(settle_seconds=SETTLE_SECONDS)


class Storage:
    """Gives each configuration its store. Only the one in use speaks for the proxy's health."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._url: str | None = None
        self._backing: Backing | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    async def use(self, document: ConfigDocument) -> Backing | None:
        """The backing for a document; None where it names no store. Raises `UnusableConfig`, changing nothing."""
        url = document.store.url.get_secret_value() if document.store.url else None
        if url == self._url:
            return self._backing
        backing = self._make(url) if url is not None else None
        former, self._backing, self._url = self._backing, backing, url
        if former is not None:
            if not former.store.available:
                self._health.store_changed(available=True, reason=None)  # it is no longer ours to miss
            self._retire(former)
        if backing is not None:
            await backing.store.connect()
        return backing

    def _make(self, url: str) -> Backing:
        try:
            store = RedisStore(url, on_change=partial(self._changed, url))
        except InvalidStoreURL as error:
            raise UnusableConfig(f"store.url: {error}") from error
        return Backing(store, {})

    def _changed(self, url: str, available: bool, reason: Reason | None) -> None:  # noqa: FBT001 - the store's callback
        if url == self._url:
            self._health.store_changed(available=available, reason=reason)

    def _retire(self, backing: Backing) -> None:
        task = asyncio.get_running_loop().create_task(backing.retire())
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

    async def close(self) -> None:
        """Book what was spent and close everything."""
        for task in self._retiring:
            task.cancel()
        await asyncio.gather(*self._retiring, return_exceptions=True)
        if self._backing is not None:
            await self._backing.close(settle_seconds=SETTLE_SECONDS)
