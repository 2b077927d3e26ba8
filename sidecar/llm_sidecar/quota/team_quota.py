"""The quota of one team, seen from one sidecar: reserve before the call, settle after it.

Nothing is ever decided by what this process remembers while the store can be asked: every reservation asks it, and
its script looks at all limits at once. What is remembered here are open reservations, to renew their leases and to
settle each once; and what may be spent while the store is away (`local_share.py`).
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.team_quota_resource import (
    OnAbandoned,
    OnStoreUnavailable,
    TeamQuotaSpec,
    UnpricedRequests,
)
from llm_sidecar.optimization.clamp import clamped_output_tokens
from llm_sidecar.quota.demand import NOTHING, Charge, Demand, Hold
from llm_sidecar.quota.learning import Learning
from llm_sidecar.quota.ledger import RELEASED, LedgerEntry
from llm_sidecar.quota.limits import ModelLimits, QuotaLimit, WindowPair, compile_limits, held_window
from llm_sidecar.quota.local_share import LocalShare
from llm_sidecar.quota.refusal import (
    LimitState,
    QuotaExceeded,
    QuotaStoreUnavailable,
    tightest_refusal,
    tightest_remaining,
)
from llm_sidecar.quota.reservation import Reservation, UsageSource
from llm_sidecar.quota.scripts import RENEW, RESERVE, RESTORE, SETTLE, quota_keys, share_keys
from llm_sidecar.quota.seen import SeenCounters
from llm_sidecar.quota.settlement import Settlement, SettlementQueue, SettleMode
from llm_sidecar.store import Reply, Store, StoreUnavailable

if TYPE_CHECKING:
    from llm_sidecar.formats.base import ParsedRequest
    from llm_sidecar.quota.journal import Journal

LEASE_SECONDS: Final = 60.0
_RENEW_BATCH: Final = 500
_RENEW_RETRY_SECONDS: Final = 1.0
_KNOWN_MODELS: Final = 1024
_LEVEL_SECONDS: Final = 2.0
"""For how long it is believed how far a limit is used: one of some models is not read while others answer."""


class Quota:
    """Reserves and settles for one team. Without limits nobody is asked before a call."""

    def __init__(
        self,
        store: Store,
        *,
        team: str,
        spec: TeamQuotaSpec,
        sidecar: str = "",
        lease_seconds: float = LEASE_SECONDS,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        on_dropped: Callable[[int], object] | None = None,
        journal: Journal | None = None,
    ) -> None:
        self.settled_by_source: Counter[UsageSource] = Counter()
        self.learning = Learning()
        self._store = store
        self._keys = quota_keys(team)
        self._sidecar = sidecar
        self._lease_ms = int(lease_seconds * 1000)
        self._clock_ms = clock_ms
        self._store_ahead_ms = 0
        self._restoring = asyncio.Lock()
        self._seen = SeenCounters(sidecar)
        self._settlements = SettlementQueue(self._book, on_dropped=on_dropped, journal=journal)
        self._journal = journal
        self._share = LocalShare(
            store, keys=share_keys(team), sidecar=sidecar, is_settled=self._is_settled, clock_ms=self._store_clock_ms
        )
        self._open: dict[str, tuple[Reservation, float]] = {}
        self._renewal: asyncio.Task[None] | None = None
        self.configure(spec)

    @property
    def pending_settlements(self) -> int:
        """Settlements that the store has not confirmed."""
        return self._settlements.pending

    @property
    def dropped_settlements(self) -> int:
        """Settlements given up; the end of the lease charges their input."""
        return self._settlements.dropped

    @property
    def open_reservations(self) -> int:
        """Requests that were let in and have not ended."""
        return len(self._open)

    @property
    def share(self) -> LocalShare:
        """What this sidecar may spend while the store is away."""
        return self._share

    def configure(self, spec: TeamQuotaSpec) -> None:
        """Take new limits for requests from now on. What is spent stays spent; open requests settle as reserved."""
        self._limits = compile_limits(spec)
        self._windows: dict[str, WindowPair] = {}
        self._by_model: dict[str, ModelLimits] = {}
        self._levels: dict[str, tuple[int, int, float]] = {}
        self._policy = spec.on_store_unavailable
        self._allows_unpriced = spec.unpriced_requests is UnpricedRequests.ALLOW
        self.wants_prices = not self._allows_unpriced and ModelLimits.of(self._limits).refuse_unpriced
        """A cost limit refuses what has no price."""
        self._output_clamp = spec.optimization.max_output_tokens
        self._charges_abandoned = spec.on_abandoned is OnAbandoned.CHARGE
        wanted = self._policy is OnStoreUnavailable.LOCAL_SHARE
        self._share.configure(_refusing(self._limits) if wanted else ())

    def limits_of(self, model: str) -> tuple[QuotaLimit, ...]:
        """The limits that count what a model answers."""
        return self._of_model(model).limits

    def _of_model(self, model: str) -> ModelLimits:
        known = self._by_model.get(model)
        if known is None:
            known = ModelLimits.of(tuple(limit for limit in self._limits if limit.applies_to(model)))
            if len(self._by_model) < _KNOWN_MODELS:  # names that clients type must not fill the memory
                self._by_model[model] = known
        return known

    def refuses_unpriced(self, model: str, *, has_price: bool) -> bool:
        """True where a cost limit that refuses counts this model, and it has no price to count with."""
        if has_price or not self.wants_prices:
            return False
        return self._of_model(model).refuse_unpriced

    def needs_bound(self, model: str) -> bool:
        """True where a limit reserves the most that a request may take."""
        return self._of_model(model).reserve_maximum

    def needs_revision(self, reservation: Reservation, demand: Demand) -> bool:
        """True where another demand holds anything else than what is held."""
        limits = self.limits_of(demand.model)
        if limits != self.limits_of(reservation.demand.model):
            return True
        charges = self._charges_abandoned
        before = reservation.demand
        return any(
            demand.hold(limit, charges_abandoned=charges) != before.hold(limit, charges_abandoned=charges)
            for limit in limits
        )

    def output_cap(self, request: ParsedRequest) -> int | None:
        """The most output tokens that a request lets itself be answered with, or the team's clamp; None: no bound."""
        return clamped_output_tokens(request, self._output_clamp)

    def wants_cheaper(self, model: str) -> bool:
        """True where a limit that says Downgrade was, when seen a moment ago, used as far as it says.

        What was seen earlier does not count: whoever asks for the model then hears the level with its reservation.
        """
        downgrading = self._of_model(model).downgrade
        if not downgrading:
            return False
        now_ms = self._clock_ms()
        for name, at_percent in downgrading:
            seen_ms, end_ms, percent = self._levels.get(name, (0, 0, 0.0))
            is_recent = 0 <= now_ms - seen_ms < _LEVEL_SECONDS * 1000 and now_ms + self._store_ahead_ms < end_ms
            if is_recent and percent >= at_percent:
                return True
        return False

    async def reserve(self, request_id: str, demand: Demand) -> Reservation:
        """Take room in all limits, or raise `QuotaExceeded`, or `QuotaStoreUnavailable` by the team's policy.

        `request_id` must be our own and unique: it is what makes settling safe to repeat.
        """
        reservation = Reservation(request_id=request_id, demand=demand, mode=SettleMode.FIRST)
        limits = self.limits_of(demand.model)
        if not limits:  # nobody is asked; the ledger hears of it afterwards
            self._remember(reservation)
            return reservation
        try:
            await self._ask(reservation, demand, limits, mode="new")
        except StoreUnavailable as unavailable:
            return self._without_store(reservation, limits=limits, unavailable=unavailable)
        except asyncio.CancelledError:
            self._enqueue(self._unbacked(reservation, limits), NOTHING, RELEASED)
            raise
        self._remember(reservation)
        return reservation

    async def revise(self, reservation: Reservation, demand: Demand) -> None:
        """Reserve for another model instead: all or nothing, and what was held stays held where there is no room.

        Raises `QuotaExceeded`. With the store away the request goes on with what it holds.
        """
        limits = self.limits_of(demand.model)
        if reservation.backed:
            await self._replace(reservation, demand, limits, mode="revise")
        reservation.demand = demand
        if not reservation.backed and reservation.request_id in self._open:
            self._count_in(reservation, limits)

    async def top_up(self, reservation: Reservation, output_tokens: int) -> None:
        """Hold more, since the answer is longer than was expected. Nothing refuses it: it is being spent already."""
        demand = reservation.demand.with_expected_output(output_tokens)
        if reservation.backed and reservation.request_id in self._open:
            await self._replace(reservation, demand, self.limits_of(demand.model), mode="force")
        reservation.demand = demand

    def settle(self, reservation: Reservation, charge: Charge, entry: LedgerEntry) -> None:
        """Book what was used into the windows that were reserved; once, in the background, never waiting."""
        if self._end(reservation):
            self.settled_by_source[entry.source] += 1
            self._enqueue(reservation, charge, entry.words())

    def release(self, reservation: Reservation) -> None:
        """Give everything back: no provider was reached, so nothing is charged, not even the request."""
        if self._end(reservation) and reservation.counters:
            self._enqueue(reservation, NOTHING, RELEASED)

    async def close(self, *, timeout_seconds: float) -> None:
        """Bring out what is to be settled, at most for so long. Open reservations are left to their leases."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        await self._settlements.close(timeout_seconds=timeout_seconds)
        await self._share.close()
        if self._journal is not None:
            self._journal.close()

    # --- the store

    async def _replace(
        self, reservation: Reservation, demand: Demand, limits: tuple[QuotaLimit, ...], *, mode: str
    ) -> None:
        try:
            await self._ask(reservation, demand, limits, mode=mode)
        except StoreUnavailable as unavailable:
            if mode == "revise":
                self._count_in(reservation, limits)
                if unavailable.maybe_executed:
                    reservation.mode = SettleMode.UNBACKED  # the command may still arrive, even after the settlement
        except asyncio.CancelledError:
            if mode == "revise":
                reservation.mode = SettleMode.UNBACKED
            raise

    async def _ask(
        self, reservation: Reservation, demand: Demand, limits: tuple[QuotaLimit, ...], *, mode: str
    ) -> None:
        """Run the script, and take its answer into the reservation."""
        holds = [demand.hold(limit, charges_abandoned=self._charges_abandoned) for limit in limits]
        seen = self._seen
        # What it holds already stays in its windows, whichever is the current one.
        held = {limit.name: held_window(counter) for limit, counter in reservation.counters}
        for _attempt in range(3):
            instant_ms = self._clock_ms() + self._store_ahead_ms
            asked_under = seen.incarnation
            arguments: list[str | int] = [
                reservation.request_id,
                mode,
                self._lease_ms,
                seen.sequence_field,
                seen.sequence,
                asked_under,
            ]
            windows = [held.get(limit.name) or self._window(limit, instant_ms) for limit in limits]
            for limit, pair, hold in zip(limits, windows, holds, strict=True):
                arguments += (
                    *pair.counters,
                    pair.current.start_ms,
                    pair.current.end_ms,
                    pair.following.end_ms,
                    limit.maximum,
                    hold.amount,
                    hold.beyond,
                    hold.abandoned_charge,
                    0 if limit.is_shadow else 1,
                    limit.thresholds,
                )
            status, now_ms, figures = _parse(await self._store.run(RESERVE, self._keys, arguments))
            if status == b"lost":
                await self._restore(asked_under)
                continue
            if status == b"stale":  # our clock, not Redis's, was off: take its time and ask once more
                self._store_ahead_ms = now_ms - self._clock_ms()
                continue
            if status == b"closed":
                if mode == "force":
                    return
                if mode == "revise":  # its lease had ended: the settlement charges the difference
                    self._count_in(reservation, limits)
                    return
                raise ValueError("this request id was settled already: every request needs an id of its own")
            seen.take(figures[0], figures[1])
            states = _states(limits, windows, figures[2:], holds)
            self._note(states)
            if status == b"admitted":
                reservation.counters = tuple((state.limit, state.counter) for state in states)
                reservation.remaining = tightest_remaining(states)
                reservation.shadow_refused = tuple(
                    state.limit.name for state in states if state.limit.is_shadow and not state.has_room
                )
                return
            refusal = tightest_refusal(states, now_ms=now_ms, demand=demand)
            if refusal is not None:
                raise QuotaExceeded(refusal)
            break
        raise StoreUnavailable("protocol", maybe_executed=False)

    async def _restore(self, lost_incarnation: str) -> None:
        """Tell the store what it has forgotten; once, for all whose call has found that out."""
        async with self._restoring:
            if self._seen.incarnation == lost_incarnation:
                new_incarnation = f"{self._sidecar}:{time.time_ns():x}"
                reply = await self._store.run(RESTORE, self._keys[:1], self._seen.restoring(new_incarnation))
                self._seen.restored(reply)

    async def _book(self, batch: Sequence[Settlement]) -> None:
        seen = self._seen
        for _attempt in range(3):
            asked_under = seen.incarnation
            arguments: list[str | int] = [seen.sequence_field, seen.sequence, asked_under, self._sidecar]
            for settlement in batch:
                if settlement.mode is SettleMode.FIRST:
                    settlement.incarnation = seen.incarnation
                elif settlement.mode is SettleMode.AGAIN and settlement.incarnation != seen.incarnation:
                    # The store has lost data since it was told, and perhaps this: rather twice than never.
                    settlement.mode = SettleMode.UNBACKED
                arguments += settlement.arguments()
            reply = await self._store.run(SETTLE, self._keys, arguments)
            if reply == [b"lost"]:
                await self._restore(asked_under)
                continue
            seen.settled(reply)
            return
        raise StoreUnavailable("protocol", maybe_executed=False)

    def _window(self, limit: QuotaLimit, instant_ms: int) -> WindowPair:
        pair = self._windows.get(limit.name)
        if pair is None or not pair.holds(instant_ms):
            pair = self._windows[limit.name] = limit.windows_at(instant_ms)
        return pair

    def _note(self, states: Sequence[LimitState]) -> None:
        for state in states:
            self._seen.used(state.counter, state.used)
            self._seen.credit(state.counter, state.credit)
            if state.limit.downgrade_at_percent is not None:
                self._levels[state.limit.name] = (self._clock_ms(), state.resets_at_ms, state.level_percent)

    # --- without the store

    def _without_store(
        self, reservation: Reservation, *, limits: tuple[QuotaLimit, ...], unavailable: StoreUnavailable
    ) -> Reservation:
        self._unbacked(reservation, limits)
        refusing = _refusing(limits)
        match self._policy if refusing else OnStoreUnavailable.ALLOW:
            case OnStoreUnavailable.ALLOW:
                self._remember(reservation)
                return reservation
            case OnStoreUnavailable.LOCAL_SHARE:
                holds = {limit.name: reservation.demand.hold(limit, charges_abandoned=False) for limit in refusing}
                lacking = self._share.take(reservation, refusing, holds, self._clock_ms() + self._store_ahead_ms)
                if lacking is None:
                    self._remember(reservation)
                    return reservation
                if unavailable.maybe_executed:
                    self._enqueue(reservation, NOTHING, RELEASED)
                raise QuotaStoreUnavailable(unavailable.reason, lacking=lacking) from unavailable
            case OnStoreUnavailable.DENY:
                if unavailable.maybe_executed:
                    self._enqueue(reservation, NOTHING, RELEASED)  # it may hold what nobody will use
                raise QuotaStoreUnavailable(unavailable.reason) from unavailable

    def _unbacked(self, reservation: Reservation, limits: tuple[QuotaLimit, ...]) -> Reservation:
        reservation.mode = SettleMode.UNBACKED
        self._count_in(reservation, limits)
        return reservation

    def _count_in(self, reservation: Reservation, limits: tuple[QuotaLimit, ...]) -> None:
        """Charge these limits in the end, though the store did not confirm it: where something is held, there."""
        instant_ms = self._clock_ms() + self._store_ahead_ms
        held = {limit.name: counter for limit, counter in reservation.counters}
        reservation.counters = tuple(
            (limit, held.get(limit.name) or self._window(limit, instant_ms).counters[0]) for limit in limits
        )

    def _store_clock_ms(self) -> int:
        """The store's time, as far as it is known: its clock decides which window is the current one."""
        return self._clock_ms() + self._store_ahead_ms

    def _is_settled(self) -> bool:
        """What the store has reserved it counts, settled or not."""
        return not self._settlements.has_unbacked

    # --- what is open

    def _remember(self, reservation: Reservation) -> None:
        self._open[reservation.request_id] = (reservation, time.monotonic())
        if self._renewal is None:
            self._renewal = asyncio.get_running_loop().create_task(self._keep_leases(), name="quota leases")

    def _end(self, reservation: Reservation) -> bool:
        """False for what has ended before, and for what was never limited."""
        return self._open.pop(reservation.request_id, None) is not None

    def _enqueue(self, reservation: Reservation, charge: Charge, words: tuple[str | int, ...]) -> None:
        """Settle with what was used; nothing gives back a hold that is, or may be, in the store."""
        if reservation.local_holds:
            self._share.give_back(reservation, charge)
        settlement = Settlement(
            request_id=reservation.request_id,
            mode=reservation.mode,
            amounts=tuple(
                (counter, *charge.amount(limit.unit), limit.maximum, limit.thresholds)
                for limit, counter in reservation.counters
            ),
            words=words,
        )
        self._settlements.add(settlement)

    async def _keep_leases(self) -> None:
        period_seconds = self._lease_ms / 3000
        pause_seconds = period_seconds
        while True:
            await asyncio.sleep(pause_seconds)
            # Younger ones have most of their lease before them: short calls cost no renewal at all.
            reserved_before = time.monotonic() - period_seconds / 2
            ids = [
                request_id
                for request_id, (reservation, reserved_at) in self._open.items()
                if reservation.counters and not reservation.local_holds and reserved_at < reserved_before
            ]
            try:
                for first in range(0, len(ids), _RENEW_BATCH):
                    batch = ids[first : first + _RENEW_BATCH]
                    await self._store.run(RENEW, self._keys, [self._lease_ms, *batch])
                pause_seconds = period_seconds
            except StoreUnavailable:
                pause_seconds = min(period_seconds, _RENEW_RETRY_SECONDS)


def _refusing(limits: tuple[QuotaLimit, ...]) -> tuple[QuotaLimit, ...]:
    """Those that do more than watch."""
    return tuple(limit for limit in limits if not limit.is_shadow)


def _parse(reply: Reply) -> tuple[bytes, int, list[Reply]]:
    match reply:
        case [bytes(status), bytes(now_ms), *figures]:
            return status, int(now_ms), figures
        case _:
            raise StoreUnavailable("protocol")


def _states(
    limits: tuple[QuotaLimit, ...], windows: list[WindowPair], figures: list[Reply], holds: list[Hold]
) -> list[LimitState]:
    if len(figures) != 4 * len(limits):
        raise StoreUnavailable("protocol")
    states: list[LimitState] = []
    rows = iter(figures)
    for limit, pair, hold, index, used, held, credit in zip(
        limits, windows, holds, rows, rows, rows, rows, strict=True
    ):
        if not isinstance(used, bytes) or not isinstance(held, bytes) or not isinstance(credit, bytes):
            raise StoreUnavailable("protocol")
        window = pair.following if index else pair.current
        states.append(
            LimitState(
                limit=limit,
                counter=pair.counters[1 if index else 0],
                requested=hold.amount,
                used=max(0, int(used)),
                reserved=max(0, int(held)),
                credit=int(credit),
                resets_at_ms=window.end_ms,
            )
        )
    return states
