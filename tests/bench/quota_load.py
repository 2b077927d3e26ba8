"""A process of simulated sidecars: `Quota` with a connection of its own for each, and no proxy around it.

Run by `quotas.py`. Takes its settings as JSON, writes what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import redis
import uvloop

from llm_sidecar.quota import Quota, QuotaStoreUnavailable, Reservation
from llm_sidecar.quota.local_share import GRANT_SECONDS, RENEW_SECONDS, WHOLE_PPM
from llm_sidecar.quota.scripts import SHARE, share_keys
from tests.bench.limits import LIMITS, ONE_LIMIT
from tests.bench.quota_request import CHARGE, DEMAND, ENTRY, TOKENS, ObservedStore, spec_of
from tests.bench.quota_results import FleetWindow, ScriptBlock
from tests.bench.targets import NAMESPACE

TEAM: Final = f"{NAMESPACE}/fleet"
CALL_SECONDS: Final = 0.05
"""How long the provider of a simulated call would take: the reservation is held meanwhile."""
CONNECT_SECONDS: Final = 1.0
"""From the last sidecar's start to the first rate."""
READY_LIST: Final = "bench:ready"
START_LIST: Final = "bench:start"
"""Through Redis the load processes tell that they are ready, and are told when to begin, by the machine's clock."""
START_SECONDS: Final = 30
"""More than any of them needs to get ready."""
_PATIENT_SECONDS: Final = 5.0
_Item = TypeVar("_Item")


# --- one caller: the cost of a script


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptSettings:
    """One caller, who reserves for a block of calls, then settles them one by one, and so on."""

    port: int
    limits: int
    calls: int
    blocks: int
    sidecars: int
    """That hold a share of the limits while one of them renews its own."""


async def run_scripts(settings: ScriptSettings) -> dict[str, list[ScriptBlock]]:
    """Blocks of calls, by script."""
    store = ObservedStore(settings.port, timeout_seconds=_PATIENT_SECONDS)
    quota = Quota(store, team=TEAM, spec=spec_of(LIMITS[settings.limits], policy="LocalShare"), sidecar="sidecar-0")
    for number in range(1, settings.sidecars):
        arguments: list[str | int] = [f"sidecar-{number}", int(GRANT_SECONDS * 1000), WHOLE_PPM]
        await store.run(SHARE, share_keys(TEAM), arguments)
    found: dict[str, list[ScriptBlock]] = {"reserve": [], "settle": [], "share": []}
    with redis.Redis(port=settings.port) as look:
        for block in range(settings.blocks + 1):
            blocks = await _one_of_each(quota, store, look, name=str(block), calls=settings.calls)
            if block:  # the first one warms up
                for script, one in blocks.items():
                    found[script].append(one)
    await quota.close(timeout_seconds=_PATIENT_SECONDS)
    await store.close()
    return found


async def _one_of_each(
    quota: Quota, store: ObservedStore, look: redis.Redis, *, name: str, calls: int
) -> dict[str, ScriptBlock]:
    reservations: list[Reservation] = []

    async def reserve(number: int) -> None:
        reservations.append(await quota.reserve(f"{name}-{number}", DEMAND))

    async def settle(reservation: Reservation) -> None:
        is_booked = asyncio.Event()
        store.on_answer = lambda script: is_booked.set() if script == "settle" else None
        quota.settle(reservation, CHARGE, ENTRY)
        await is_booked.wait()

    async def share(_number: int) -> None:
        await quota.share.refresh()

    return {
        "reserve": await _block(reserve, range(calls), look),
        "settle": await _block(settle, reservations, look),
        "share": await _block(share, range(calls), look),
    }


async def _block(call: Callable[[_Item], Awaitable[None]], items: Sequence[_Item], look: redis.Redis) -> ScriptBlock:
    latencies: list[float] = []
    before, cpu_before = _server(look), time.process_time()
    for item in items:
        begin = time.perf_counter()
        await call(item)
        latencies.append((time.perf_counter() - begin) * 1000)
    cpu_after, after = time.process_time(), _server(look)
    return ScriptBlock(
        calls=len(latencies),
        redis_cpu_seconds=after[0] - before[0],
        script_seconds=after[1] - before[1],
        client_cpu_seconds=cpu_after - cpu_before,
        latencies_ms=latencies,
    )


def _server(look: redis.Redis) -> tuple[float, float]:
    """Seconds of CPU that Redis has used, and those that it spent in scripts."""
    cpu: Any = look.info("cpu")
    scripts: Any = look.info("commandstats")
    spent = scripts.get("cmdstat_evalsha", {"usec": 0})["usec"]
    return cpu["used_cpu_user"] + cpu["used_cpu_sys"], spent / 1e6


# --- many sidecars of one team


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """This process's part of the fleet, and how long each rate lasts."""

    port: int
    numbers: tuple[int, int]
    """The first of its sidecars, and the one after its last."""
    sidecars: int
    """Of the whole fleet."""
    policy: str
    rates: tuple[float, ...]
    """Requests per second of the whole fleet, one after the other."""
    warm_up_seconds: float
    window_seconds: float

    @property
    def step_seconds(self) -> float:
        """How long each rate lasts."""
        return self.warm_up_seconds + self.window_seconds

    @property
    def spread_seconds(self) -> float:
        """Over how long the sidecars appear: where they renew shares, as spread as those of pods started one by one."""
        return RENEW_SECONDS if self.policy == "LocalShare" else 0.0

    def window_at(self, position: int, *, start_at: float) -> float:
        """When the window of a rate begins, if the fleet starts at that instant."""
        begin_at = start_at + self.spread_seconds + CONNECT_SECONDS
        return begin_at + position * self.step_seconds + self.warm_up_seconds


@dataclass(slots=True, kw_only=True)
class _Window:
    """What is seen at one rate."""

    begin_at: float
    end_at: float
    latencies_ms: list[float] = field(default_factory=list)
    unanswered: int = 0


class _Sidecar:
    def __init__(self, number: int, settings: FleetSettings) -> None:
        self._number = number
        self._settings = settings
        self._asked = self._let_in = 0
        self.store = ObservedStore(settings.port)
        spec = spec_of(ONE_LIMIT, policy=settings.policy)
        self.quota = Quota(self.store, team=TEAM, spec=spec, sidecar=f"sidecar-{number}")
        self.store.begin()

    async def keep_pace(self, window: _Window, *, period_seconds: float) -> None:
        """Reserve whenever a request is due, one after the other; what had to wait for the last one is late."""
        loop = asyncio.get_running_loop()
        first_at = window.begin_at - self._settings.warm_up_seconds
        due = first_at + period_seconds * self._number / self._settings.sidecars
        while max(due, time.monotonic()) < window.end_at:
            is_late = due <= time.monotonic()
            await _sleep_until(due)
            # A timer that fires late is this process's fault, a queue behind the last reservation is not.
            begin = due if is_late else time.monotonic()
            reservation = await self._reserve()
            now = time.monotonic()
            if window.begin_at <= now < window.end_at:
                window.latencies_ms.append((now - begin) * 1000)
                window.unanswered += reservation is None or not reservation.backed
            if reservation is not None:
                loop.call_later(CALL_SECONDS, self.quota.settle, reservation, CHARGE, ENTRY)
            due += period_seconds

    async def _reserve(self) -> Reservation | None:
        """None where the store did not answer in time, and the policy refuses then."""
        self._asked += 1
        try:
            reservation = await self.quota.reserve(f"{self._number}-{self._asked}", DEMAND)
        except QuotaStoreUnavailable:
            return None
        self._let_in += 1
        return reservation

    async def close(self) -> int:
        """Bring out what is to be settled. Returns how many requests this sidecar let in and settled."""
        await self.quota.close(timeout_seconds=_PATIENT_SECONDS)
        await self.store.close()
        return self._let_in - self.quota.dropped_settlements


async def _sleep_until(instant: float) -> None:
    await asyncio.sleep(max(0.0, instant - time.monotonic()))


def _agreed_start(port: int) -> float:
    with redis.Redis(port=port) as look:
        look.rpush(READY_LIST, "ready")
        told: Any = look.blpop([START_LIST], timeout=START_SECONDS)
    if told is None:
        raise SystemExit(f"not told when to start within {START_SECONDS} s")
    return float(told[1])


async def run_fleet(settings: FleetSettings, *, start_at: float) -> dict[str, Any]:
    """A window for each rate, and how many tokens were settled altogether."""
    sidecars: list[_Sidecar] = []
    for number in range(*settings.numbers):
        await _sleep_until(start_at + settings.spread_seconds * number / settings.sidecars)
        sidecars.append(_Sidecar(number, settings))
    windows = []
    for position, rate in enumerate(settings.rates):
        window_at = settings.window_at(position, start_at=start_at)
        window = _Window(begin_at=window_at, end_at=window_at + settings.window_seconds)
        windows.append(await _step(sidecars, window, period_seconds=settings.sidecars / rate))
    await asyncio.sleep(2 * CALL_SECONDS)  # the last calls end
    settled = sum(await asyncio.gather(*(sidecar.close() for sidecar in sidecars)))
    return {"windows": windows, "settled_tokens": settled * TOKENS}


async def _step(sidecars: Sequence[_Sidecar], window: _Window, *, period_seconds: float) -> FleetWindow:
    lanes = asyncio.gather(*(sidecar.keep_pace(window, period_seconds=period_seconds) for sidecar in sidecars))
    await _sleep_until(window.begin_at)
    renewals, cpu_seconds = _renewals(sidecars), time.process_time()
    await _sleep_until(window.end_at)
    cpu_seconds, renewals = time.process_time() - cpu_seconds, _renewals(sidecars) - renewals
    await lanes
    return FleetWindow(
        latencies_ms=window.latencies_ms, unanswered=window.unanswered, renewals=renewals, cpu_seconds=cpu_seconds
    )


def _renewals(sidecars: Sequence[_Sidecar]) -> int:
    return sum(sidecar.store.answered.get("share", 0) for sidecar in sidecars)


def main(kind: str, settings: str, output: str) -> None:
    """Run one part of the measurement; what it found goes into the file `output`."""
    document = json.loads(settings)
    found: dict[str, Any]
    if kind == "scripts":
        blocks = uvloop.run(run_scripts(ScriptSettings(**document)))
        found = {script: [asdict(block) for block in several] for script, several in blocks.items()}
    else:
        of_fleet = FleetSettings(**document)
        fleet = uvloop.run(run_fleet(of_fleet, start_at=_agreed_start(of_fleet.port)))
        found = {**fleet, "windows": [asdict(window) for window in fleet["windows"]]}
    Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
