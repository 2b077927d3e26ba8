"""What this sidecar may spend of the team's limits while the store is away: a part that was granted before.

All parts that are granted at one time make `WHOLE_PPM` of each limit together, whoever restarts, joins or is cut off:
`share.lua` sees to it. A grant ends by itself, here and there at the same time. So in a window in which the store was
away for some sidecars, or for all, what is spent exceeds the limit by `WHOLE_PPM` at most. What the store has not heard
of counts against the next grant as well.

A part is a stretch of the whole. Where a limit is so small that not every stretch has a unit of it, some sidecars have
one and others none. A sidecar that never reached the store has no part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from llm_sidecar.quota.limits import held_window
from llm_sidecar.quota.scripts import SHARE
from llm_sidecar.store import Store, StoreUnavailable

if TYPE_CHECKING:
    from llm_sidecar.quota.demand import Charge, Hold
    from llm_sidecar.quota.limits import QuotaLimit
    from llm_sidecar.quota.reservation import Reservation

MILLION: Final = 1_000_000
WHOLE_PPM: Final = 100_000
"""A tenth of each limit for all sidecars together."""
GRANT_SECONDS: Final = 3600.0
"""How long a sidecar that hears nothing may go on."""
RENEW_SECONDS: Final = 10.0
_RETURN_SECONDS: Final = 0.3


@dataclass(slots=True)
class _Account:
    """One limit in one window, as far as this sidecar spends of it without the store."""

    end_ms: int
    used: int = 0
    """What the store has not heard of, as far as the last grant knew."""
    held: int = 0


@dataclass(slots=True)
class _Grant:
    """What the store said last."""

    from_ppm: int
    to_ppm: int
    """The stretch of the whole that is this sidecar's; no other's overlaps with it."""
    sidecars: int
    """So many share."""
    ends_at: float
    """On the monotonic clock."""
    left: dict[str, int] = field(default_factory=dict)
    """Room of the windows that were current then, by counter."""

    @property
    def ppm(self) -> int:
        return self.to_ppm - self.from_ppm

    def left_of(self, limit: QuotaLimit, counter: str) -> int:
        # A window that has begun since the store was asked last was empty then.
        return self.left.get(counter, limit.maximum)

    def units(self, limit: QuotaLimit) -> int:
        """Whole units of a limit on the stretch: those of all sidecars add up to those of the whole."""
        return limit.maximum * self.to_ppm // MILLION - limit.maximum * self.from_ppm // MILLION

    def granted(self, limit: QuotaLimit, counter: str) -> int:
        """The part of what is left, rounded up to a unit where the stretch has one."""
        return min(self.units(limit), -(-self.left_of(limit, counter) * self.ppm // MILLION))


class LocalShare:
    """Renews this sidecar's grant while the store is there, and spends it while it is not."""

    def __init__(
        self,
        store: Store,
        *,
        keys: tuple[str, str, str],
        sidecar: str,
        is_settled: Callable[[], bool],
        renew_seconds: float = RENEW_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._store = store
        self._keys = keys
        self._sidecar = sidecar
        self._is_settled = is_settled
        self._renew_seconds = renew_seconds
        self._monotonic = monotonic
        self._clock_ms = clock_ms
        self._limits: tuple[QuotaLimit, ...] = ()
        self._grant: _Grant | None = None
        self._accounts: dict[str, _Account] = {}
        self._renewal: asyncio.Task[None] | None = None

    @property
    def ppm(self) -> int:
        """The part that may be spent, in millionths of each limit; 0 without a grant that still holds."""
        grant = self._current()
        return 0 if grant is None else grant.ppm

    def configure(self, limits: tuple[QuotaLimit, ...]) -> None:
        """Ask for a part of these limits from now on; of none, ask no more."""
        self._limits = limits
        if limits and (self._renewal is None or self._renewal.done()) and self._sidecar:
            self._renewal = asyncio.get_running_loop().create_task(self._renew(), name="quota share")
        elif not limits and self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
            self._grant = None

    def take(
        self, reservation: Reservation, limits: tuple[QuotaLimit, ...], holds: Mapping[str, Hold], instant_ms: int
    ) -> str | None:
        """Hold `holds` for a request, all or nothing. Returns None, or why not, for the error's message."""
        grant = self._current()
        if grant is None:
            return "this sidecar has no share of the limits: it has not reached the store in the last hour"
        if grant.ppm == 0:
            return "this sidecar has no share of the limits yet: when it asked, other sidecars still had all of it"
        wanted: dict[str, Hold] = {}
        accounts: list[tuple[_Account, Hold]] = []
        for limit in limits:
            hold = holds.get(limit.name)
            if hold is None:
                continue
            pair = limit.windows_at(instant_ms)
            counter = pair.counters[0]
            account = self._account(counter, pair.current.end_ms)
            lacking = _lacking(grant, limit, counter, account, hold)
            if lacking is not None:
                return lacking
            accounts.append((account, hold))
            wanted[counter] = hold
        for account, hold in accounts:
            account.held += hold.amount
        reservation.local_holds.update(wanted)
        self._forget_ended(instant_ms)
        return None

    def give_back(self, reservation: Reservation, charge: Charge) -> None:
        """A request that held something here is over. It may have gone to a model that other limits count."""
        for counter, hold in reservation.local_holds.items():
            account = self._accounts.get(counter)
            if account is not None:
                account.held = max(0, account.held - hold.amount)
        for limit, counter in reservation.counters:
            amount, rest = charge.amount(limit.unit)
            if amount or rest:
                self._account(counter, held_window(counter).current.end_ms).used += amount + (rest > 0)
        reservation.local_holds.clear()

    async def close(self) -> None:
        """Give the part back, so that others may have it, unless some of it may be spent and not be told yet."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
            self._renewal = None
            if self._has_untold():
                return  # it ends by itself, an hour after this sidecar last asked
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(_RETURN_SECONDS):
                    await self._store.run(SHARE, self._keys, [self._sidecar, 0, WHOLE_PPM])

    async def refresh(self) -> None:
        """Ask for a part, and take note of the limits' room. Raises `StoreUnavailable`."""
        now_ms = self._clock_ms()
        limits = self._limits  # others may be configured while the store answers
        windows = [limit.windows_at(now_ms) for limit in limits]
        counters = [pair.counters[0] for pair in windows]
        asked_at = self._monotonic()
        told = {counter: account.used for counter, account in self._accounts.items()}
        before = self._current()
        stretch = (0, 0) if before is None else (before.from_ppm, before.to_ppm)
        reply = await self._store.run(
            SHARE, self._keys, [self._sidecar, int(GRANT_SECONDS * 1000), WHOLE_PPM, *stretch, *counters]
        )
        match reply:
            case [int(from_ppm), int(to_ppm), int(sidecars), *figures]:
                pass
            case _:
                raise StoreUnavailable("protocol")
        left: dict[str, int] = {}
        for position, (limit, counter) in enumerate(zip(limits, counters, strict=True)):
            used, held, credit = (_number(one) for one in figures[3 * position : 3 * position + 3])
            left[counter] = max(0, limit.maximum + credit - used - held)
        # What was spent without the store had been told to it when it was asked. What is still held, and what was spent
        # while it answered, it has not heard of: until it has, nobody else must be given what this is a part of.
        for counter, used in told.items():
            if counter in self._accounts:
                self._accounts[counter].used -= used
        if before is not None and self._has_untold():
            from_ppm, to_ppm = stretch
        self._grant = _Grant(from_ppm, to_ppm, sidecars, asked_at + GRANT_SECONDS, left)
        self._forget_ended(now_ms)

    def _has_untold(self) -> bool:
        return any(account.used or account.held for account in self._accounts.values())

    def _current(self) -> _Grant | None:
        grant = self._grant
        return grant if grant is not None and self._monotonic() < grant.ends_at else None

    def _account(self, counter: str, end_ms: int) -> _Account:
        return self._accounts.setdefault(counter, _Account(end_ms))

    def _forget_ended(self, instant_ms: int) -> None:
        over = [name for name, one in self._accounts.items() if one.end_ms <= instant_ms and not one.held]
        for name in over:
            del self._accounts[name]

    async def _renew(self) -> None:
        while True:
            # Before what was spent here is in the store, its figures would grant the same room a second time.
            if self._store.available and self._is_settled():
                with suppress(StoreUnavailable):
                    await self.refresh()
            await asyncio.sleep(self._renew_seconds)


def _number(value: object) -> int:
    return int(value) if isinstance(value, bytes) else 0


def _lacking(grant: _Grant, limit: QuotaLimit, counter: str, account: _Account, hold: Hold) -> str | None:
    """Why this sidecar's share of a limit does not do; None where it does."""
    granted = grant.granted(limit, counter)
    if hold.amount <= granted - account.used - account.held:
        return None
    share = f"this sidecar's share of limit {limit.name!r}"
    if granted >= hold.amount:
        return f"{share} is spent"
    if grant.left_of(limit, counter) == 0:
        return f"{share} is 0: nothing was left of the limit when the store answered last"
    if grant.units(limit) == 0:
        return f"{share} is 0: the limit is too small to be shared among {grant.sidecars} sidecars"
    return f"{share} is smaller than what this request needs"
