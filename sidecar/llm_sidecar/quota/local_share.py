"""What this sidecar may spend of the team's limits while the store is away: a part that was granted before.

All parts that are granted at one time make `WHOLE_PPM` of each limit together, whoever restarts, joins or is cut off:
`share.lua` sees to it. A grant ends by itself, here and there at the same time. So in a window in which the store was
away for some sidecars, or for all, what is spent exceeds the limit by `WHOLE_PPM` at most.

A sidecar that never reached the store has no part.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

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
class _Spent:
    """One limit in one window, as far as this sidecar spends of it without the store."""

    end_ms: int
    granted: int
    used: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        return self.granted - self.used - self.held


@dataclass(slots=True)
class _Grant:
    """What the store said last."""

    ppm: int
    ends_at: float
    """On the monotonic clock."""
    left: dict[str, int] = field(default_factory=dict)
    """Room of the windows that were current then, by counter."""


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
        self._spent: dict[str, _Spent] = {}
        self._renewal: asyncio.Task[None] | None = None

    @property
    def ppm(self) -> int:
        """The part that may be spent, in millionths of each limit; 0 without a grant that still holds."""
        grant = self._grant
        return grant.ppm if grant is not None and self._monotonic() < grant.ends_at else 0

    def configure(self, limits: tuple[QuotaLimit, ...]) -> None:
        """Ask for a part of these limits from now on; of none, ask no more."""
        self._limits = limits
        if limits and self._renewal is None and self._sidecar:
            self._renewal = asyncio.get_running_loop().create_task(self._renew(), name="quota share")
        elif not limits and self._renewal is not None:
            self._renewal.cancel()
            self._renewal = None
            self._grant = None

    def take(
        self, reservation: Reservation, limits: tuple[QuotaLimit, ...], holds: Mapping[str, Hold], instant_ms: int
    ) -> str | None:
        """Hold `holds` for a request, all or nothing. Returns None, or why not, for the error's message."""
        ppm = self.ppm
        if ppm == 0:
            return "this sidecar has no share of the limits: it has not reached the store in the last hour"
        accounts: list[tuple[_Spent, Hold]] = []
        for limit in limits:
            hold = holds.get(limit.name)
            if hold is None:
                continue
            account = self._account(limit, instant_ms, ppm)
            if hold.amount > account.left:
                return f"this sidecar's share of limit {limit.name!r} is spent"
            accounts.append((account, hold))
        for account, hold in accounts:
            account.held += hold.amount
        reservation.local_holds.update(holds)
        return None

    def give_back(self, reservation: Reservation, charge: Charge) -> None:
        """A request that held something here is over."""
        for limit, counter in reservation.counters:
            hold, account = reservation.local_holds.get(limit.name), self._spent.get(counter)
            if hold is not None and account is not None:
                amount, rest = charge.amount(limit.unit)
                account.held = max(0, account.held - hold.amount)
                account.used += amount + (rest > 0)
        reservation.local_holds.clear()

    async def close(self) -> None:
        """Give the part back, so that others may have it."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
            self._renewal = None
            with suppress(StoreUnavailable, TimeoutError):  # else it ends by itself
                async with asyncio.timeout(_RETURN_SECONDS):
                    await self._store.run(SHARE, self._keys, [self._sidecar, 0, WHOLE_PPM])

    async def refresh(self) -> None:
        """Ask for a part, and take note of the limits' room. Raises `StoreUnavailable`."""
        now_ms = self._clock_ms()
        windows = [limit.windows_at(now_ms) for limit in self._limits]
        counters = [pair.counters[0] for pair in windows]
        asked_at = self._monotonic()
        reply = await self._store.run(
            SHARE, self._keys, [self._sidecar, int(GRANT_SECONDS * 1000), WHOLE_PPM, *counters]
        )
        match reply:
            case [int(ppm), *figures]:
                pass
            case _:
                raise StoreUnavailable("protocol")
        left: dict[str, int] = {}
        for position, (limit, counter) in enumerate(zip(self._limits, counters, strict=True)):
            used, held, credit = (_number(one) for one in figures[3 * position : 3 * position + 3])
            left[counter] = max(0, limit.maximum + credit - used - held)
        self._grant = _Grant(ppm, asked_at + GRANT_SECONDS, left)
        # What was spent without the store is told to it by now. What is still held is not.
        self._spent = {counter: _Spent(one.end_ms, 0, 0, one.held) for counter, one in self._spent.items() if one.held}

    def _account(self, limit: QuotaLimit, instant_ms: int, ppm: int) -> _Spent:
        pair = limit.windows_at(instant_ms)
        counter = pair.counters[0]
        account = self._spent.get(counter)
        if account is None or account.granted == 0:
            # A window that has begun since the store was asked last was empty then.
            left = self._grant.left.get(counter, limit.maximum) if self._grant is not None else 0
            account = _Spent(pair.current.end_ms, left * ppm // MILLION, held=account.held if account else 0)
            self._spent = {name: one for name, one in self._spent.items() if one.end_ms > instant_ms or one.held}
            self._spent[counter] = account
        return account

    async def _renew(self) -> None:
        while True:
            # Before what was spent here is in the store, its figures would grant the same room a second time.
            if self._store.available and self._is_settled():
                with suppress(StoreUnavailable):
                    await self.refresh()
            await asyncio.sleep(self._renew_seconds)


def _number(value: object) -> int:
    return int(value) if isinstance(value, bytes) else 0
