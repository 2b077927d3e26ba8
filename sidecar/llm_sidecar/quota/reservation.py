"""The quota of one team, seen from one sidecar: reserve before the call, settle after it.

Nothing is ever decided by what this process remembers: every reservation asks the store, whose script looks at all
limits at once. What is remembered here are open reservations, to renew their leases and to settle each once.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from llm_sidecar.contract.team_quota_resource import OnStoreUnavailable, TeamQuotaSpec
from llm_sidecar.quota.limits import QuotaLimit, WindowPair, compile_limits
from llm_sidecar.quota.refusal import (
    LimitState,
    QuotaExceeded,
    QuotaStoreUnavailable,
    tightest_refusal,
    tightest_remaining,
)
from llm_sidecar.quota.scripts import RENEW, RESERVE, quota_keys
from llm_sidecar.quota.settlement import Settlement, SettlementQueue, SettleMode
from llm_sidecar.store import Reply, Store, StoreUnavailable

UsageSource = Literal["measured", "estimated", "partial"]

_MAX_AMOUNT: Final = 10**15
"""No request is this large: what a confused provider tells must not fill a 64-bit counter."""

_RENEW_BATCH: Final = 500
_RENEW_RETRY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """A request that was let in. `backed` is False where the store could not be asked and the team allows that."""

    request_id: str
    backed: bool
    counters: tuple[tuple[QuotaLimit, str], ...]
    remaining: str | None
    """The tightest limit as `NAME=remaining`; None where nothing is known."""


class Quota:
    """Reserves and settles for one team. Without limits it asks nobody."""

    def __init__(
        self,
        store: Store,
        *,
        team: str,
        spec: TeamQuotaSpec,
        lease_seconds: float = 60.0,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        on_dropped: Callable[[int], object] | None = None,
    ) -> None:
        self.settled_by_source: Counter[UsageSource] = Counter()
        self._store = store
        self._keys = quota_keys(team)
        self._lease_ms = int(lease_seconds * 1000)
        self._clock_ms = clock_ms
        self._store_ahead_ms = 0
        self._settlements = SettlementQueue(store, keys=self._keys, on_dropped=on_dropped)
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

    def configure(self, spec: TeamQuotaSpec) -> None:
        """Take new limits for requests from now on. What is spent stays spent; open requests settle as reserved."""
        self._limits = compile_limits(spec)
        self._windows: list[WindowPair | None] = [None] * len(self._limits)
        self._allow_without_store = spec.on_store_unavailable is OnStoreUnavailable.ALLOW

    async def reserve(self, *, request_id: str, input_tokens: int, output_tokens: int) -> Reservation:
        """Take room in all limits, or raise `QuotaExceeded`, or `QuotaStoreUnavailable` by the team's policy.

        `request_id` must be our own and unique: it is what makes settling safe to repeat.
        """
        limits = self._limits
        if not limits:
            return Reservation(request_id=request_id, backed=True, counters=(), remaining=None)
        charge_tokens = min(input_tokens, _MAX_AMOUNT)
        tokens = charge_tokens + min(output_tokens, _MAX_AMOUNT)
        try:
            states = await self._ask(request_id, tokens=tokens, charge_tokens=charge_tokens)
        except StoreUnavailable as unavailable:
            return self._without_store(request_id, limits=limits, unavailable=unavailable)
        except asyncio.CancelledError:
            self._enqueue(self._unbacked(request_id, limits=limits), tokens=None)
            raise
        reservation = Reservation(
            request_id=request_id,
            backed=True,
            counters=tuple((state.limit, state.counter) for state in states),
            remaining=tightest_remaining(states),
        )
        self._remember(reservation)
        return reservation

    def settle(self, reservation: Reservation, *, total_tokens: int, source: UsageSource) -> None:
        """Book what was used into the windows that were reserved; once, in the background, never waiting."""
        if self._end(reservation):
            self.settled_by_source[source] += 1
            self._enqueue(reservation, tokens=min(max(0, total_tokens), _MAX_AMOUNT))

    def release(self, reservation: Reservation) -> None:
        """Give everything back: no provider was reached, so nothing is charged, not even the request."""
        if self._end(reservation):
            self._enqueue(reservation, tokens=None)

    async def close(self, *, timeout_seconds: float) -> None:
        """Bring out what is to be settled, at most for so long. Open reservations are left to their leases."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        await self._settlements.close(timeout_seconds=timeout_seconds)

    async def _ask(self, request_id: str, *, tokens: int, charge_tokens: int) -> list[LimitState]:
        limits, known_windows = self._limits, self._windows
        for _attempt in range(2):
            instant_ms = self._clock_ms() + self._store_ahead_ms
            arguments: list[str | int] = [request_id, self._lease_ms]
            windows: list[WindowPair] = []
            for position, limit in enumerate(limits):
                pair = known_windows[position]
                if pair is None or not pair.holds(instant_ms):
                    pair = known_windows[position] = limit.windows_at(instant_ms)
                windows.append(pair)
                arguments += _limit_arguments(limit, pair, tokens=tokens, charge_tokens=charge_tokens)
            reply = await self._store.run(RESERVE, self._keys, arguments)
            status, now_ms, figures = _parse(reply)
            if status == b"stale":  # our clock, not Redis's, was off: take its time and ask once more
                self._store_ahead_ms = now_ms - self._clock_ms()
                continue
            if status == b"closed":
                raise ValueError("this request id was settled already: every request needs an id of its own")
            states = _states(limits, windows, figures, tokens=tokens)
            if status == b"admitted":
                return states
            refusal = tightest_refusal(states, now_ms=now_ms)
            if refusal is not None:
                raise QuotaExceeded(refusal)
            break
        raise StoreUnavailable("protocol", maybe_executed=False)

    def _without_store(
        self, request_id: str, *, limits: tuple[QuotaLimit, ...], unavailable: StoreUnavailable
    ) -> Reservation:
        reservation = self._unbacked(request_id, limits=limits)
        if self._allow_without_store:
            self._remember(reservation)
            return reservation
        if unavailable.maybe_executed:
            self._enqueue(reservation, tokens=None)  # it may hold what nobody will use
        raise QuotaStoreUnavailable(unavailable.reason) from unavailable

    def _unbacked(self, request_id: str, *, limits: tuple[QuotaLimit, ...]) -> Reservation:
        instant_ms = self._clock_ms() + self._store_ahead_ms
        counters = tuple((limit, limit.windows_at(instant_ms).counters[0]) for limit in limits)
        return Reservation(request_id=request_id, backed=False, counters=counters, remaining=None)

    def _remember(self, reservation: Reservation) -> None:
        self._open[reservation.request_id] = (reservation, time.monotonic())
        if self._renewal is None:
            self._renewal = asyncio.get_running_loop().create_task(self._keep_leases(), name="quota leases")

    def _end(self, reservation: Reservation) -> bool:
        """False for what has ended before, and for what was never limited."""
        return self._open.pop(reservation.request_id, None) is not None

    def _enqueue(self, reservation: Reservation, *, tokens: int | None) -> None:
        """Settle with what was used; None gives back a hold that is, or may be, in the store."""
        amounts = tuple(
            (counter, 0 if tokens is None else limit.amount(tokens=tokens)) for limit, counter in reservation.counters
        )
        mode = SettleMode.FIRST if reservation.backed else SettleMode.UNBACKED
        self._settlements.add(Settlement(request_id=reservation.request_id, mode=mode, amounts=amounts))

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
                if reservation.backed and reserved_at < reserved_before
            ]
            try:
                for first in range(0, len(ids), _RENEW_BATCH):
                    batch = ids[first : first + _RENEW_BATCH]
                    await self._store.run(RENEW, self._keys, [self._lease_ms, *batch])
                pause_seconds = period_seconds
            except StoreUnavailable:
                pause_seconds = min(period_seconds, _RENEW_RETRY_SECONDS)


def _limit_arguments(limit: QuotaLimit, pair: WindowPair, *, tokens: int, charge_tokens: int) -> tuple[str | int, ...]:
    return (
        *pair.counters,
        pair.current.start_ms,
        pair.current.end_ms,
        pair.following.end_ms,
        limit.maximum,
        limit.amount(tokens=tokens),
        limit.amount(tokens=charge_tokens),
    )


def _parse(reply: Reply) -> tuple[bytes, int, list[Reply]]:
    match reply:
        case [bytes(status), bytes(now_ms), *figures]:
            return status, int(now_ms), figures
        case _:
            raise StoreUnavailable("protocol")


def _states(
    limits: tuple[QuotaLimit, ...], windows: list[WindowPair], figures: list[Reply], *, tokens: int
) -> list[LimitState]:
    states: list[LimitState] = []
    for position, (limit, pair) in enumerate(zip(limits, windows, strict=True)):
        match figures[3 * position : 3 * position + 3]:
            case [int(index), bytes(used), bytes(held)]:
                window = pair.following if index else pair.current
                states.append(
                    LimitState(
                        limit=limit,
                        counter=pair.counters[index],
                        requested=limit.amount(tokens=tokens),
                        used=max(0, int(used)),
                        reserved=max(0, int(held)),
                        resets_at_ms=window.end_ms,
                    )
                )
            case _:
                raise StoreUnavailable("protocol")
    return states
