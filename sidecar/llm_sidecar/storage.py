"""The store in use, and the team's quota that counts in it: both outlive reloads of the configuration."""

from __future__ import annotations

import asyncio
import secrets
import socket
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import ref

from llm_sidecar.contract.redis_url import InvalidStoreURL
from llm_sidecar.exchange import StoreUse
from llm_sidecar.quota.journal import Journal
from llm_sidecar.quota.provider_rate import ProviderRates
from llm_sidecar.quota.team_quota import Quota
from llm_sidecar.redis_kinds import make_store
from llm_sidecar.runtime import UnusableConfig

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llm_sidecar.contract.config import ConfigDocument, StoreEntry, TeamEntry
    from llm_sidecar.health import Health
    from llm_sidecar.store import Reason, SharedStore

SETTLE_SECONDS: Final = 1.5
"""At the end of the process: a native sidecar is killed two seconds after its pod's grace period ended."""
RETIRE_SECONDS: Final = 600.0
"""How long requests that were reserved in a store which is no longer configured may take to end."""
LOOK_SECONDS: Final = 1.0


@dataclass(slots=True, eq=False)
class Backing:
    """One store, and the quotas of teams in it."""

    entry: StoreEntry = field(repr=False)
    store: SharedStore
    sidecar: str
    """Names this process in the store: the pod's name, and what tells its restarts apart."""
    state_directory: Path | None
    on_dropped: Callable[[int], object]
    rates: ProviderRates
    quotas: dict[str, Quota] = field(default_factory=dict)
    use: StoreUse | None = field(default_factory=StoreUse)
    """Given to who uses it; None once it is retiring."""

    def quota(self, document: ConfigDocument) -> Quota | None:
        """The quota of the document's team, with its newest limits. Open reservations stay with it."""
        team = document.team
        if team is None:
            return None
        quota = self.quotas.get(team.label)
        if quota is None:
            quota = Quota(
                self.store,
                team=team.label,
                spec=team.spec,
                sidecar=self.sidecar,
                on_dropped=self.on_dropped,
                journal=self._journal(team),
            )
            self.quotas[team.label] = quota
        else:
            quota.configure(team.spec)
        return quota

    def _journal(self, team: TeamEntry) -> Journal | None:
        if self.state_directory is None:
            return None
        return Journal(self.state_directory / f"{team.namespace}.{team.name}.settlements.jsonl")

    async def close(self, *, settle_seconds: float) -> None:
        """Book what was spent, and close."""
        await asyncio.gather(
            self.rates.close(), *(quota.close(timeout_seconds=settle_seconds) for quota in self.quotas.values())
        )
        await self.store.close()

    async def retire(self) -> None:
        """Close once no request has it any more, and nothing that was reserved here is under way."""
        in_use = ref(self.use) if self.use is not None else None
        self.use = None
        for _ in range(int(RETIRE_SECONDS / LOOK_SECONDS)):
            used = in_use is not None and in_use() is not None
            if not used and not any(quota.open_reservations for quota in self.quotas.values()):
                break
            await asyncio.sleep(LOOK_SECONDS)
        await self.close(settle_seconds=SETTLE_SECONDS)


class Storage:
    """Gives each configuration its store. Only the one in use speaks for the proxy's health."""

    def __init__(self, health: Health, *, state_directory: Path | None = None) -> None:
        self._health = health
        self._state_directory = state_directory
        self._sidecar = f"{socket.gethostname()}:{secrets.token_hex(4)}"
        self._backing: Backing | None = None
        self._open: set[Backing] = set()
        """With those that are about to come into use, and those that are retiring."""
        self._retiring: dict[Backing, asyncio.Task[None]] = {}

    async def prepare(self, document: ConfigDocument) -> Backing | None:
        """The backing for a document, connected; None where it names no store. Raises `UnusableConfig`.

        Until `switch_to` tells that requests go there, nothing changes for those that are served.
        """
        entry = document.store
        if entry.url is None:
            return None
        if self._backing is not None and self._backing.entry == entry:
            return self._backing
        backing = self._make(entry, url=entry.url.get_secret_value())
        self._open.add(backing)
        await backing.store.connect()
        return backing

    def switch_to(self, backing: Backing | None) -> None:
        """New requests use this one from now on. All others are closed once the requests that have them are over."""
        if backing is not self._backing:
            self._backing = backing
            self._tell(None if backing is None else backing.store.reason)
        for other in self._open - self._retiring.keys() - {backing}:
            task = asyncio.get_running_loop().create_task(other.retire())
            self._retiring[other] = task
            task.add_done_callback(partial(self._retired, other))

    def _make(self, entry: StoreEntry, *, url: str) -> Backing:
        def changed(available: bool, reason: Reason | None) -> None:  # noqa: FBT001 - the store's callback
            if backing is self._backing:
                self._health.store_changed(available=available, reason=reason)

        try:
            store = make_store(url, ca_bundle=entry.ca_bundle, on_change=changed)
        except InvalidStoreURL as error:
            raise UnusableConfig(f"store: {error}") from error
        backing = Backing(
            entry, store, self._sidecar, self._state_directory, self._health.settlements_dropped, ProviderRates(store)
        )
        return backing

    def _tell(self, reason: Reason | None) -> None:
        """Another store is in use: its state is the one that counts, and it was not told while it was connected."""
        if reason is not None or self._health.store_reason is not None:
            self._health.store_changed(available=reason is None, reason=reason)

    def _retired(self, backing: Backing, task: asyncio.Task[None]) -> None:
        del self._retiring[backing]
        if not task.cancelled():
            self._open.discard(backing)

    async def close(self) -> None:
        """Book what was spent, also in stores that are retiring, and close everything."""
        retiring = list(self._retiring.values())
        for task in retiring:
            task.cancel()
        await asyncio.gather(*retiring, return_exceptions=True)
        await asyncio.gather(*(backing.close(settle_seconds=SETTLE_SECONDS) for backing in self._open))
        self._open.clear()
