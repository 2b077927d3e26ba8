"""Sidecars of one team on one store, in any order of events, beside a model that says what the counters must be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import Any, Final, TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from llm_sidecar.contract.windows import Per, window_at
from llm_sidecar.quota import Charge, Demand, LedgerEntry, Quota, QuotaExceeded, QuotaStoreUnavailable
from llm_sidecar.quota.limits import QuotaLimit, compile_limits
from llm_sidecar.quota.scripts import RENEW, quota_keys
from llm_sidecar.quota.settlement import Settlement, SettleMode
from llm_sidecar.store import Script, Store
from tests.integration.quota.world import (
    PRICES,
    LossyStore,
    Lost,
    Model,
    Request,
    entry_fields,
    figures_by_counter,
    holds_of,
    ledger_sums,
    spec,
)

SIDECARS: Final = 3
MINUTE_SECONDS: Final = 0.08
"""In these tests a minute is so long, so that windows end by themselves."""
BASE: Final = {"calls": 12, "strict": 3000, "usual": 6000, "dear": 3000, "parallel": 6}
SHARED_SCALE: Final = 20
"""A share is a thirtieth of each limit: with larger ones, requests fit into it."""
LOCAL_SHARE: Final = Fraction(1, 10)
COMMAND: Final = Script(name="command", source="return redis.call(unpack(ARGV))")
"""Any command, to the server that has its key: every kind of store runs scripts."""
_TEAMS: Final = count(1)
_LOST = st.sampled_from([None, None, None, None, "command", "reply"])
_MODELS = st.sampled_from(["dear-1", "cheap-1"])
_PICK = st.integers(0, 999)
Value = TypeVar("Value")


@dataclass(slots=True, kw_only=True)
class Place:
    """Where a machine runs."""

    loop: asyncio.AbstractEventLoop
    store: Store
    policy: str

    def run(self, work: Coroutine[Any, Any, Value]) -> Value:
        return self.loop.run_until_complete(work)


@dataclass(slots=True, kw_only=True)
class Fleet:
    """The sidecars of one example."""

    team: str
    links: list[LossyStore]
    quotas: list[Quota]
    maxima: dict[str, int]
    is_away: bool = False


class QuotaMachine(RuleBasedStateMachine):
    """Rules are what sidecars do and suffer; the invariants are what is promised."""

    place: Place

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.numbers = count(1)
        self.settled: list[tuple[int, Settlement]] = []
        self.local: dict[str, int] = {}
        """By counter: what open requests hold of their sidecars' shares."""
        self.untold: dict[str, int] = {}
        """By counter: what was spent of shares, and the store has not heard of."""
        self.may_exceed = False
        """Something was spent unchecked, or settled after its lease had ended: a limit may be overrun then."""
        self.fleet = self.place.run(self._started())

    # --- life

    async def _started(self) -> Fleet:
        team = f"payments/t{next(_TEAMS)}"
        links = [LossyStore(self.place.store) for _ in range(SIDECARS)]
        self.on_abandoned = "Charge"
        fleet = Fleet(team=team, links=links, quotas=[], maxima=self._base())
        for number in range(SIDECARS):
            fleet.quotas.append(self._quota(fleet, number))
        self.highest = {limit.name: limit.maximum for limit in fleet.quotas[0]._limits}
        return fleet

    def _base(self) -> dict[str, int]:
        scale = SHARED_SCALE if self.place.policy == "LocalShare" else 1
        return {name: maximum * scale for name, maximum in BASE.items()}

    def _maximum(self, name: str) -> int:
        limits = compile_limits(self._spec(self.fleet.maxima))
        return next(limit.maximum for limit in limits if limit.name == name)

    def _spec(self, maxima: dict[str, int]) -> Any:
        budget = f"{maxima['strict'] * 3 / 10**8:.9f}"
        return spec(maxima, policy=self.place.policy, on_abandoned=self.on_abandoned, cost_usd=budget)

    def _quota(self, fleet: Fleet, number: int) -> Quota:
        return Quota(
            fleet.links[number],
            team=fleet.team,
            spec=self._spec(fleet.maxima),
            sidecar=f"sidecar-{number}",
            lease_seconds=600,
        )

    @initialize(on_abandoned=st.sampled_from(["Charge", "Release"]))
    def begin(self, on_abandoned: str) -> None:
        self.on_abandoned = on_abandoned
        self.place.run(self._configure())

    def teardown(self) -> None:
        async def end() -> None:
            await self._come_back()
            for request in list(self.model.requests.values()):
                if not request.is_orphan:
                    await self._settle(request, Charge(tokens=3, cost_femto_usd=5))
            await self._check()
            for quota in self.fleet.quotas:
                await quota.close(timeout_seconds=1)

        self.place.run(end())

    # --- rules

    @rule(
        sidecar=st.integers(0, SIDECARS - 1),
        model=_MODELS,
        tokens=st.tuples(st.integers(0, 400), st.integers(0, 300), st.integers(0, 600)),
        lost=_LOST,
    )
    def reserve(self, sidecar: int, model: str, tokens: tuple[int, int, int], lost: Lost | None) -> None:
        self.place.run(self._reserve(sidecar, _demand(model, *tokens), lost))

    @precondition(lambda self: self._live())
    @rule(pick=_PICK, share=st.floats(0, 1), lost=_LOST)
    def settle(self, pick: int, share: float, lost: Lost | None) -> None:
        request = self._picked(pick)
        demand = request.demand
        tokens = int(share * (demand.input_tokens + demand.maximum_output_tokens))
        most = 0
        if demand.prices is not None:
            most = (
                demand.input_tokens * demand.prices.dearest_input + demand.maximum_output_tokens * demand.prices.output
            )
        charge = Charge(tokens=tokens, cost_femto_usd=int(share * most))
        self.fleet.links[request.sidecar].lose_next = lost
        self.place.run(self._settle(request, charge))

    @precondition(lambda self: self.settled and not self.fleet.is_away)
    @rule(pick=_PICK)
    def repeat_a_settlement(self, pick: int) -> None:
        sidecar, settlement = self.settled[pick % len(self.settled)]
        settlement.incarnation = self.fleet.quotas[sidecar]._seen.incarnation  # the store has lost nothing since
        self.place.run(self.fleet.quotas[sidecar]._book([settlement]))

    @precondition(lambda self: self._live())
    @rule(pick=_PICK, lost=_LOST)
    def release(self, pick: int, lost: Lost | None) -> None:
        request = self._picked(pick)
        self.fleet.links[request.sidecar].lose_next = lost
        self.place.run(self._release(request))

    @precondition(lambda self: self._live())
    @rule(pick=_PICK, model=_MODELS, lost=_LOST)
    def ask_another_model(self, pick: int, model: str, lost: Lost | None) -> None:
        request = self._picked(pick)
        before = request.demand
        demand = _demand(model, before.input_tokens, before.expected_output_tokens, before.maximum_output_tokens)
        self.place.run(self._revise(request, demand, lost))

    @precondition(lambda self: self._live() and not self.fleet.is_away)
    @rule(pick=_PICK, output_tokens=st.integers(1, 600))
    def top_up(self, pick: int, output_tokens: int) -> None:
        request = self._picked(pick)
        self.place.run(self._top_up(request, output_tokens))

    @precondition(lambda self: any(one.state == "open" and not one.is_expired for one in self.model.requests.values()))
    @rule(pick=_PICK)
    def a_lease_ends(self, pick: int) -> None:
        open_ = [one for one in self.model.requests.values() if one.state == "open" and not one.is_expired]
        request = open_[pick % len(open_)]
        self.place.run(self._ask("ZADD", quota_keys(self.fleet.team)[1], "XX", 1, request.request_id))
        request.is_expired = True

    @precondition(lambda self: not self.fleet.is_away)
    @rule(sidecar=st.integers(0, SIDECARS - 1))
    def renew(self, sidecar: int) -> None:
        mine = [one for one in self.model.requests.values() if one.sidecar == sidecar and not one.is_orphan]
        ids = [one.request_id for one in mine]
        self.place.run(self.place.store.run(RENEW, quota_keys(self.fleet.team), [600_000, *ids]))
        for one in mine:
            if one.state == "open":
                one.is_expired = False

    @precondition(lambda self: not self.fleet.is_away)
    @rule(sidecar=st.integers(0, SIDECARS - 1))
    def kill(self, sidecar: int) -> None:
        """What it held in the store stays there until its lease ends; what the store never heard of is gone."""
        for request in list(self.model.requests.values()):
            if request.sidecar == sidecar:
                request.is_orphan = True
                self._drop_local(request)
                if request.state == "absent":
                    del self.model.requests[request.request_id]
        self.place.run(self._replace(sidecar))

    @rule(tenths=st.integers(3, 15))
    def change_the_limits(self, tenths: int) -> None:
        self.fleet.maxima = {name: max(1, maximum * tenths // 10) for name, maximum in self._base().items()}
        self.highest = {name: max(self.highest[name], self._maximum(name)) for name in self.highest}
        self.place.run(self._configure())

    @precondition(lambda self: not self.fleet.is_away)
    @rule()
    def the_store_goes_away(self) -> None:
        self.place.run(self._refresh())
        self.fleet.is_away = True
        for link in self.fleet.links:
            link.is_away = True

    @precondition(lambda self: self.fleet.is_away)
    @rule()
    def the_store_is_back(self) -> None:
        self.place.run(self._come_back())

    @rule()
    def a_window_ends(self) -> None:
        now_ms = int(time.time() * 1000)
        end_ms = window_at(Per.MINUTE, "UTC", now_ms).end_ms
        self.place.run(asyncio.sleep((end_ms - now_ms + 2) / 1000))  # the store's clock is this machine's

    # --- what holds at any time

    @invariant()
    def counters_are_the_models(self) -> None:
        self.place.run(self._check())

    async def _check(self) -> None:
        for counter in self.local | self.untold:
            spent = self.local.get(counter, 0) + self.untold.get(counter, 0)
            assert spent <= LOCAL_SHARE * self.highest[counter.split("|")[0]], (counter, spent)
        if self.fleet.is_away:
            return  # what is settled is on its way
        team = quota_keys(self.fleet.team)
        figures, used = figures_by_counter(await self._ask("HGETALL", team[0]))
        now_ms = int(time.time() * 1000)
        booked = ledger_sums(await self._ask("XRANGE", team[3], "-", "+"))
        for counter, account in self.model.accounts.items():
            found = figures.get(counter)
            is_over = int(counter.rsplit("|", 1)[1]) <= now_ms
            held = (found.held, found.beyond) if found else (0, 0)
            assert held == (account.held, account.beyond), (counter, held, account)
            if not is_over:
                assert used.get(counter, Fraction(0)) == account.used, (counter, used.get(counter), account)
            assert booked.get(counter, Fraction(0)) == account.used, (counter, booked.get(counter), account)
            self._check_limit(counter, account.used + account.held)
        strangers = {name for name, one in figures.items() if one.held} - self.model.accounts.keys()
        assert not strangers, strangers
        alerts = [entry_fields(one) for one in await self._ask("XRANGE", team[4], "-", "+")]
        told = [(one["limit"], one["start_ms"], one["percent"]) for one in alerts]
        assert len(told) == len(set(told)), told

    def _check_limit(self, counter: str, taken: Fraction) -> None:
        if self.may_exceed or counter.split("|", maxsplit=1)[0] not in {"calls", "strict", "parallel", "budget"}:
            return
        maximum = self.highest[counter.split("|", maxsplit=1)[0]]
        slack = LOCAL_SHARE * maximum if self.place.policy == "LocalShare" else Fraction(0)
        assert taken <= maximum + slack, (counter, taken, maximum)

    # --- how a rule does it

    async def _reserve(self, sidecar: int, demand: Demand, lost: Lost | None) -> None:
        quota, link = self.fleet.quotas[sidecar], self.fleet.links[sidecar]
        request_id, limits = f"r{next(self.numbers)}", quota.limits_of(demand.model)
        before_ms = int(time.time() * 1000)
        was_heard = lost != "command" and not link.is_away
        if was_heard:
            self.model.reclaim()
        link.lose_next = lost
        try:
            reservation = await quota.reserve(request_id, demand)
        except QuotaExceeded as exceeded:
            told = exceeded.refusal
            assert told.used + told.reserved + told.requested > told.limit, told
            self._must_lack_room(limits, demand, before_ms)
        except QuotaStoreUnavailable:
            assert link.is_away or lost is not None
            await self._drained(sidecar)
        else:
            request = Request(reservation=reservation, sidecar=sidecar, demand=demand, state="absent")
            self.model.requests[request_id] = request
            record = await self._record(request_id)
            if record is None:
                assert not reservation.backed
                request.local = {counter: hold.amount for counter, hold in reservation.local_holds.items()}
                for counter, amount in request.local.items():
                    self.local[counter] = self.local.get(counter, 0) + amount
                self.may_exceed = self.may_exceed or self.place.policy == "Allow"
                if was_heard:
                    self._must_lack_room(limits, demand, before_ms)
                return
            by_name = {limit.name: limit for limit in limits}
            counters = [(by_name[counter.split("|")[0]], counter) for counter in record]
            self._must_have_room(counters, demand)
            request.state = "open"
            self.model.hold(request, holds_of(demand, counters, charges_abandoned=self.on_abandoned == "Charge"))
            held = {
                name: (hold.amount, hold.abandoned_charge, hold.beyond) for name, (_, hold) in request.holds.items()
            }
            assert record == held, (record, held)

    async def _settle(self, request: Request, charge: Charge) -> None:
        quota = self.fleet.quotas[request.sidecar]
        reservation, demand = request.reservation, request.demand
        counted = {limit.name for limit, _counter in reservation.counters}
        assert counted == {limit.name for limit in quota.limits_of(demand.model)}, (demand.model, counted)
        if charge.tokens > 0 and not reservation.backed:
            self.may_exceed = self.may_exceed or self.place.policy == "Allow"
        if request.state == "abandoned":
            self.may_exceed = True
        entry = LedgerEntry(source="measured", model=demand.model, cost_femto_usd=charge.cost_femto_usd, status=200)
        again = tuple(
            (counter, *charge.amount(limit.unit), limit.maximum, limit.thresholds)
            for limit, counter in reservation.counters
        )
        quota.settle(reservation, charge, entry)
        self._end_local(request, charge)
        self.model.settle(request, charge)
        await self._drained(request.sidecar)
        if not self.fleet.is_away:
            self.untold.clear()
            repeated = Settlement(
                request_id=request.request_id,
                mode=SettleMode.AGAIN,
                amounts=again,
                words=entry.words(),
            )
            self.settled.append((request.sidecar, repeated))

    def _end_local(self, request: Request, charge: Charge) -> None:
        """What it held of the share is now what it cost."""
        for limit, counter in request.reservation.counters:
            if counter in request.local:
                amount, rest = charge.amount(limit.unit)
                self.untold[counter] = self.untold.get(counter, 0) + amount + (rest > 0)
        self._drop_local(request)

    def _drop_local(self, request: Request) -> None:
        for counter, amount in request.local.items():
            self.local[counter] -= amount
        request.local = {}

    async def _refresh(self) -> None:
        """As each sidecar does by itself every few seconds, until each has its part."""
        for quota in self.fleet.quotas * SIDECARS:
            if self.place.policy == "LocalShare":
                await quota.share.refresh()

    async def _come_back(self) -> None:
        self.fleet.is_away = False
        for number, link in enumerate(self.fleet.links):
            link.is_away = False
            await self._drained(number)
        self.untold.clear()  # what open requests hold is still theirs alone to tell

    async def _release(self, request: Request) -> None:
        self.fleet.quotas[request.sidecar].release(request.reservation)
        self._end_local(request, Charge(requests=0))
        self.model.forget(request)
        await self._drained(request.sidecar)
        if not self.fleet.is_away:
            self.untold.clear()

    async def _replace(self, sidecar: int) -> None:
        await _killed(self.fleet.quotas[sidecar])
        self.fleet.quotas[sidecar] = self._quota(self.fleet, sidecar)

    async def _revise(self, request: Request, demand: Demand, lost: Lost | None) -> None:
        quota = self.fleet.quotas[request.sidecar]
        limits = quota.limits_of(demand.model)
        before_ms = int(time.time() * 1000)
        was_heard = lost != "command" and request.reservation.backed and not self.fleet.is_away
        request.is_expired = request.is_expired and not was_heard  # whoever is heard of is alive
        if was_heard and request.state == "open":
            self.model.reclaim()
        old, old_state = dict(request.holds), request.state
        self.fleet.links[request.sidecar].lose_next = lost if request.reservation.backed else None
        try:
            await quota.revise(request.reservation, demand)
        except QuotaExceeded:
            self.model.drop_holds(request)
            self._must_lack_room(limits, demand, before_ms, kept={limit.name: name for name, (limit, _) in old.items()})
            self.model.hold(request, old)
            return
        finally:
            self.fleet.links[request.sidecar].lose_next = None
        request.demand = demand
        if old_state != "open" or not was_heard:
            return
        record = await self._record(request.request_id)
        assert record is not None
        by_name = {limit.name: limit for limit in limits}
        if (
            lost == "reply"
            and not record.keys() - old.keys()
            and any(counter.split("|")[0] not in by_name for counter in record)
        ):
            return  # it had no room, and nobody heard of that
        counters = [(by_name[counter.split("|")[0]], counter) for counter in record]
        expected = holds_of(demand, counters, charges_abandoned=self.on_abandoned == "Charge")
        found = record
        if lost == "reply" and found != {
            name: (hold.amount, hold.abandoned_charge, hold.beyond) for name, (_, hold) in expected.items()
        }:
            return
        self.model.hold(request, expected)

    async def _top_up(self, request: Request, output_tokens: int) -> None:
        demand = request.demand.with_expected_output(output_tokens)
        was_heard = request.reservation.backed
        request.is_expired = request.is_expired and not was_heard
        if was_heard and request.state == "open":
            self.model.reclaim()
        await self.fleet.quotas[request.sidecar].top_up(request.reservation, output_tokens)
        request.demand = demand
        if request.state == "open" and was_heard:
            counters = [(limit, name) for name, (limit, _) in request.holds.items()]
            self.model.hold(request, holds_of(demand, counters, charges_abandoned=self.on_abandoned == "Charge"))

    def _must_have_room(self, counters: list[tuple[QuotaLimit, str]], demand: Demand) -> None:
        for limit, counter in counters:
            assert limit.is_shadow or self._fits(limit, counter, demand), (limit, counter, self.model.account(counter))

    def _must_lack_room(
        self, limits: tuple[QuotaLimit, ...], demand: Demand, before_ms: int, kept: dict[str, str] | None = None
    ) -> None:
        """Some limit refuses, in the window that was the current one before the call or in the one after it."""
        now_ms = int(time.time() * 1000)
        names = kept or {}
        for limit in limits:
            for instant_ms in (before_ms, now_ms):
                counter = names.get(limit.name) or limit.windows_at(instant_ms).counters[0]
                if not limit.is_shadow and not self._fits(limit, counter, demand):
                    return
        raise AssertionError(f"a false refusal of {demand}: {self.model.accounts}")

    def _fits(self, limit: QuotaLimit, counter: str, demand: Demand) -> bool:
        account = self.model.account(counter)
        amount = demand.hold(limit, charges_abandoned=True).amount
        return int(account.used) + account.held + amount <= limit.maximum

    async def _record(self, request_id: str) -> dict[str, tuple[int, int, int]] | None:
        """What the store holds for a request, by counter; None where it holds nothing."""
        text = await self._ask("HGET", quota_keys(self.fleet.team)[2], request_id)
        if text is None or not text.startswith(b"o"):
            return None
        lines = [line.split("\t") for line in text.decode().split("\n")[1:]]
        return {counter: (int(amount), int(charge), int(beyond)) for counter, amount, charge, beyond in lines}

    async def _ask(self, *words: str | int) -> Any:
        return await self.place.store.run(COMMAND, (str(words[1]),), words)

    async def _drained(self, sidecar: int) -> None:
        if self.fleet.links[sidecar].is_away:
            return
        async with asyncio.timeout(10):
            while self.fleet.quotas[sidecar].pending_settlements:  # noqa: ASYNC110 - nothing tells when
                await asyncio.sleep(0.001)
        self.fleet.links[sidecar].lose_next = None

    async def _configure(self) -> None:
        for quota in self.fleet.quotas:
            quota.configure(self._spec(self.fleet.maxima))

    def _live(self) -> list[Request]:
        return [one for one in self.model.requests.values() if not one.is_orphan]

    def _picked(self, pick: int) -> Request:
        live = self._live()
        return live[pick % len(live)]


def _demand(model: str, input_tokens: int, expected: int, more: int) -> Demand:
    return Demand(
        model=model,
        input_tokens=input_tokens,
        input_tokens_at_most=input_tokens,
        expected_output_tokens=min(expected, expected + more),
        maximum_output_tokens=max(expected, more),
        prices=PRICES[model.partition("-")[0]],
    )


async def _killed(quota: Quota) -> None:
    """End its tasks as a kernel does, with nothing brought out."""
    for task in (quota._renewal, quota._share._renewal, quota._settlements._worker):
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
