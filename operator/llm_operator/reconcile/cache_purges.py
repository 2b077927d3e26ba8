"""Purges of cached answers that the annotation `llm-sidecar.io/purge-cache` asks for, each once for each of its values.

The resource's status remembers what was carried out; until it says so, a field beside each team's epochs does. Hence a
controller that stopped half-way goes on with the teams that are left, and one that comes later does nothing again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from llm_operator.events import event_document
from llm_operator.kube import EVENT, TEAM_QUOTA, ApiError, Kind, Kube
from llm_operator.reconcile.objects import Key, ObservedResource
from llm_operator.reconcile.purge_store import Purges, PurgeStep, StoreAway
from llm_sidecar.contract import keys
from llm_sidecar.contract.names import PURGE_CACHE_ANNOTATION

VALUE_CHARACTERS: Final = 64
RETRY_SECONDS: Final = 5.0
ATTEMPT_SECONDS: Final = 10.0
"""A store that hangs must not keep other resources' purges waiting; what is left is tried again."""
PURGED: Final = "CachePurged"
DELAYED: Final = "CachePurgeDelayed"
REFUSED: Final = "CachePurgeRefused"

_log: Final = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True, eq=False)
class _Order:
    """What one value of one resource's annotation asks for, and how far it is."""

    kind: Kind
    key: Key
    uid: str
    value: str
    purged: set[str] = field(default_factory=set)
    """Teams whose answers are void already."""
    purged_at: str | None = None
    """Set once nothing is left to do."""
    is_refused: bool = False
    was_delayed: bool = False
    """Told by an Event: once is enough."""

    def step(self, team: str) -> PurgeStep:
        """What it means for one team."""
        is_team = self.kind == TEAM_QUOTA
        return PurgeStep(
            team=team,
            remembered_in=keys.cache_purged_for(self.kind.name, str(self.key)),
            value=self.value,
            epoch=keys.CACHE_EPOCH_OF_TEAM if is_team else keys.cache_epoch_of_provider(str(self.key)),
        )


class CachePurger:
    """See the module. `fields` hears what is asked for and tells what was done; `run` does it."""

    def __init__(
        self,
        purges: Purges | None,
        *,
        kube: Kube,
        teams: Callable[[], Iterable[ObservedResource[Any]]],
        timestamp: Callable[[], str],
        on_done: Callable[[Kind, Key], None],
    ) -> None:
        self._purges = purges
        self._kube = kube
        self._teams = teams
        self._timestamp = timestamp
        self._on_done = on_done
        self._orders: dict[tuple[str, Key], _Order] = {}
        self._wake = asyncio.Event()

    def fields(self, kind: Kind, observed: ObservedResource[Any]) -> dict[str, Any]:
        """What the status shall say of the purge that this resource asks for; nothing before it was carried out."""
        value = (observed.document["metadata"].get("annotations") or {}).get(PURGE_CACHE_ANNOTATION)
        if value is None or value == _carried_out(observed):
            self.forget(kind, observed.key)
            return {}
        order = self._orders.get((kind.plural, observed.key))
        if order is None or (order.value, order.uid) != (value, observed.uid):
            order = _Order(kind=kind, key=observed.key, uid=observed.uid, value=value)
            self._orders[kind.plural, observed.key] = order
            self._wake.set()
        return {} if order.purged_at is None else {"cachePurged": {"value": value, "at": order.purged_at}}

    def forget(self, kind: Kind, key: Key) -> None:
        """This resource asks for nothing, or is no more."""
        self._orders.pop((kind.plural, key), None)

    async def run(self) -> None:
        """Carry out what is asked for, and try again what could not be, until cancelled."""
        while True:
            self._wake.clear()
            for order in [one for one in self._orders.values() if one.purged_at is None and not one.is_refused]:
                if self._is_wanted(order):
                    await self._try(order)
            is_waiting = any(one.purged_at is None and not one.is_refused for one in self._orders.values())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RETRY_SECONDS if is_waiting else None):
                    await self._wake.wait()

    async def close(self) -> None:
        """Close the connections."""
        if self._purges is not None:
            await self._purges.close()

    def _is_wanted(self, order: _Order) -> bool:
        return self._orders.get((order.kind.plural, order.key)) is order

    async def _try(self, order: _Order) -> None:
        problem = _problem(order.value)
        if self._purges is None:
            problem = "the controller has no Redis. Fix: set LLM_OPERATOR_REDIS_URL to the one that the proxies use"
        if problem or self._purges is None:
            order.is_refused = True
            await self._tell(order, REFUSED, f"{PURGE_CACHE_ANNOTATION} purged nothing: {problem}.")
            return
        try:
            async with asyncio.timeout(ATTEMPT_SECONDS):
                failure = await self._purge(order, self._purges)
        except TimeoutError:
            failure = "TimeoutError"
        if failure:
            await self._delayed(order, failure)
            return
        # Another value may have come meanwhile, or the resource have gone: then the status has nothing to say of this.
        order.purged_at = self._timestamp()
        if self._is_wanted(order):
            self._on_done(order.kind, order.key)
        await self._tell(order, PURGED, _purged_message(order))

    async def _purge(self, order: _Order, purges: Purges) -> str:
        """Purge for the teams that are left; why one of them could not be, or nothing. All are tried: a part of a
        Cluster may be away.
        """
        failure = ""
        for team in self._concerned(order):
            if team not in order.purged:
                try:
                    await purges.purge(order.step(team))
                except StoreAway as error:
                    failure = error.reason
                else:
                    order.purged.add(team)
        return failure

    def _concerned(self, order: _Order) -> list[str]:
        if order.kind == TEAM_QUOTA:
            return [str(order.key)]
        return [keys.NO_TEAM, *sorted(str(team.key) for team in self._teams())]

    async def _delayed(self, order: _Order, failure: str) -> None:
        if order.was_delayed:
            return
        order.was_delayed = True
        _log.warning("the cache of %s %s cannot be purged yet (%s)", order.kind.name, order.key, failure)
        left = [_shown(team) for team in self._concerned(order) if team not in order.purged]
        message = (
            f"Redis could not be asked ({failure}): cached answers are still served of {', '.join(left)}. "
            f"It is tried again every {RETRY_SECONDS:g} s. Fix: see whether Redis runs and the controller reaches it."
        )
        await self._tell(order, DELAYED, message)

    async def _tell(self, order: _Order, reason: str, message: str) -> None:
        event = event_document(
            order.kind,
            order.key,
            uid=order.uid,
            warns=reason != PURGED,
            reason=reason,
            message=message,
            now=self._timestamp(),
        )
        with contextlib.suppress(ApiError):  # one that is lost is no loss: the status says it
            await self._kube.create(EVENT, event)


def _carried_out(observed: ObservedResource[Any]) -> object:
    """The value that the status remembers."""
    done = observed.status.get("cachePurged")
    return done.get("value") if isinstance(done, dict) else None


def _problem(value: str) -> str:
    """Why a value cannot be used, or nothing."""
    if 1 <= len(value) <= VALUE_CHARACTERS and value.isprintable():
        return ""
    return f"its value must be 1 to {VALUE_CHARACTERS} printable characters. Fix: write the time, as by $(date +%s)"


def _purged_message(order: _Order) -> str:
    teams = ", ".join(_shown(team) for team in sorted(order.purged - {keys.NO_TEAM}))
    if order.kind == TEAM_QUOTA:
        return f"All cached answers of team {teams} are void, for {PURGE_CACHE_ANNOTATION}: {order.value}."
    pods = f"{teams} and {_shown(keys.NO_TEAM)}" if teams else _shown(keys.NO_TEAM)
    return f"Cached answers of provider {order.key} are void, for {PURGE_CACHE_ANNOTATION}: {order.value}. Of {pods}."


def _shown(team: str) -> str:
    return "pods without a team" if team == keys.NO_TEAM else team
