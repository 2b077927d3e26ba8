"""A real store, a link to it that loses commands and replies on demand, and what must be true of a team's counters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, Literal

from llm_sidecar.contract.quota_counters import CounterFigures, pairs, read_counters
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.prices import Prices
from llm_sidecar.quota import Charge, Demand, QuotaLimit, Reservation
from llm_sidecar.quota.demand import Hold
from llm_sidecar.store import Reply, Script, Store, StoreUnavailable

FEMTO: Final = 10**6
PRICES: Final = {
    "dear": Prices(input=1_234_567, cached_input=123_456, cache_write=2_345_678, output=9_876_543),
    "cheap": Prices(input=7, cached_input=1, cache_write=9, output=13),
}
"""Of the cheap one, a hundred thousand tokens make one nano-dollar."""
Lost = Literal["command", "reply"]


class LossyStore:
    """A store behind a link: the next script is lost on its way there, or its reply on the way back; or all are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lose_next: Lost | None = None
        self.is_away = False

    @property
    def available(self) -> bool:
        return not self.is_away

    async def get(self, key: str) -> bytes | None:
        return await self._store.get(key)

    async def get_many(self, keys: Sequence[str]) -> list[bytes | None]:
        return await self._store.get_many(keys)

    async def set(self, key: str, value: bytes, *, ttl_seconds: int) -> None:
        await self._store.set(key, value, ttl_seconds=ttl_seconds)

    async def run(self, script: Script, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Reply:
        if self.is_away:
            raise StoreUnavailable("connection", maybe_executed=False)
        lost, self.lose_next = self.lose_next, None
        if lost == "command":
            raise StoreUnavailable("timeout")
        reply = await self._store.run(script, keys, arguments)
        if lost == "reply":
            raise StoreUnavailable("timeout")
        return reply

    async def close(self) -> None:
        await self._store.close()


State = Literal["open", "abandoned", "absent"]


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    """One request as the model knows it."""

    reservation: Reservation
    sidecar: int
    demand: Demand
    state: State
    """In the store: it has its holds, it lost them with its lease, or it was never heard of."""
    holds: dict[str, tuple[QuotaLimit, Hold]] = field(default_factory=dict)
    """By counter: what the store holds for it."""
    booked: dict[str, int] = field(default_factory=dict)
    """By counter: what was charged when its lease ended."""
    is_expired: bool = False
    """Its lease has ended, and nobody has looked yet."""
    local: dict[str, int] = field(default_factory=dict)
    """By counter: what it holds of its sidecar's share."""
    is_orphan: bool = False
    """Its sidecar was killed."""

    @property
    def request_id(self) -> str:
        return self.reservation.request_id


@dataclass(slots=True, kw_only=True)
class Account:
    """What one counter must be."""

    used: Fraction = Fraction(0)
    held: int = 0
    beyond: int = 0


class Model:
    """Every counter, by an account of its own."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.requests: dict[str, Request] = {}

    def account(self, counter: str) -> Account:
        return self.accounts.setdefault(counter, Account())

    def hold(self, request: Request, holds: dict[str, tuple[QuotaLimit, Hold]]) -> None:
        """The store has taken these holds, in place of those that it had."""
        self.drop_holds(request)
        request.holds = holds
        for counter, (_limit, hold) in holds.items():
            self.account(counter).held += hold.amount
            self.account(counter).beyond += hold.beyond

    def drop_holds(self, request: Request) -> None:
        for counter, (_limit, hold) in request.holds.items():
            self.account(counter).held -= hold.amount
            self.account(counter).beyond -= hold.beyond
        request.holds = {}

    def reclaim(self) -> None:
        """Somebody has looked: what had ended is charged with what it surely sent."""
        for request in self.requests.values():
            if request.is_expired and request.state == "open":
                request.booked = {counter: hold.abandoned_charge for counter, (_limit, hold) in request.holds.items()}
                self.drop_holds(request)
                for counter, amount in request.booked.items():
                    self.account(counter).used += amount
                request.state, request.is_expired = "abandoned", False

    def settle(self, request: Request, charge: Charge) -> None:
        """The store has heard what it came to."""
        # It counts where it was reserved, though the sidecar may have come to think of another window.
        reserved = {counter.split("|")[0]: counter for counter in (*request.holds, *request.booked)}
        self.drop_holds(request)
        for counter, amount in request.booked.items():
            self.account(counter).used -= amount
        for limit, counter in request.reservation.counters:
            amount, rest = charge.amount(limit.unit)
            self.account(reserved.get(limit.name, counter)).used += amount + Fraction(rest, FEMTO)
        del self.requests[request.request_id]

    def forget(self, request: Request) -> None:
        """It was given back."""
        self.settle(request, Charge(requests=0))


def holds_of(
    demand: Demand, counters: Sequence[tuple[QuotaLimit, str]], *, charges_abandoned: bool
) -> dict[str, tuple[QuotaLimit, Hold]]:
    """What a demand takes of each limit, by counter."""
    return {counter: (limit, demand.hold(limit, charges_abandoned=charges_abandoned)) for limit, counter in counters}


def spec(maxima: dict[str, int], *, policy: str, on_abandoned: str, cost_usd: str) -> TeamQuotaSpec:
    """A team with a limit of every unit, one of them for some models only."""
    return TeamQuotaSpec.model_validate(
        {
            "limits": [
                {"name": "calls", "per": "Minute", "requests": maxima["calls"]},
                {"name": "strict", "per": "Minute", "tokens": maxima["strict"], "reservation": "Maximum"},
                {"name": "usual", "per": "Month", "tokens": maxima["usual"]},
                {"name": "dear", "per": "Month", "tokens": maxima["dear"], "models": ["dear*"]},
                {"name": "budget", "per": "Month", "costUSD": cost_usd, "reservation": "Maximum"},
                {"name": "parallel", "concurrentRequests": maxima["parallel"]},
                {"name": "watched", "per": "Month", "tokens": 50, "onExceeded": {"action": "Shadow"}},
            ],
            "onStoreUnavailable": policy,
            "onAbandoned": on_abandoned,
        }
    )


def figures_by_counter(flat: Reply) -> tuple[dict[str, CounterFigures], dict[str, Fraction]]:
    """The team's counters as they lie in the store, and of each what is used, to the femto-dollar."""
    if not isinstance(flat, list):
        raise TypeError("the counters are a hash")
    fields = pairs([one for one in flat if isinstance(one, bytes)])
    figures = {one.counter: one for one in read_counters(fields)}
    used = {name: Fraction(one.used) for name, one in figures.items()}
    for name, value in fields.items():
        counter, _, kind = name.decode().rpartition("|")
        if kind == "rest":
            used[counter] = used.get(counter, Fraction(0)) + Fraction(int(value), FEMTO)
    return figures, used


def ledger_sums(entries: Reply) -> dict[str, Fraction]:
    """What the ledger's charges come to, by counter."""
    sums: dict[str, Fraction] = {}
    for entry in entries if isinstance(entries, list) else ():
        for line in filter(None, entry_fields(entry)["charges"].split("\n")):
            counter, delta = line.split("\t")
            sums[counter] = sums.get(counter, Fraction(0)) + Fraction(delta)
    return sums


def entry_fields(entry: Any) -> dict[str, str]:
    """One entry of a stream."""
    return {name.decode(): value.decode() for name, value in pairs(entry[1]).items()}
