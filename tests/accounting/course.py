"""One course of the check: everything is started, clients ask while the storm blows, and then all is quiet."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.accounting import fleet as fleets
from tests.accounting import stores as store_servers
from tests.accounting.clients import Asked, Crowd
from tests.accounting.fleet import Fleet
from tests.accounting.settings import LEASE_SECONDS, Plan
from tests.accounting.storm import Storm
from tests.accounting.teams import PRICES, TEAMS, manifests
from tests.accounting.truth import Cost, TruthfulProvider, by_request
from tests.accounting.watch import Seen, Watch
from tests.integration.processes import reserved_ports

CALM_SECONDS: Final = 1.5
"""Before the storm, and after it: requests that begin well and meet it, and those that find everything mended."""
SETTLING_SECONDS: Final = LEASE_SECONDS + 6.25 + 5.0 + 1.0
"""In which holds must be gone: the lease of a killed sidecar, the longest pause until a store is probed again, the
longest until a settlement is told again, and the looks. Each of them is rare, and they may come one after the other."""

QUIET_LOOKS: Final = 4
"""In a row, a quarter of a second apart: who has just found the store again tells the rest between them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What everybody saw."""

    plan: Plan
    asked: Sequence[Asked]
    costs: Mapping[str, Sequence[Cost]]
    """By nonce: what the providers know of it."""
    seen: Seen
    met: Counter[str]
    away: Sequence[tuple[float, float]]
    """When the store was away for somebody."""
    sidecar_away: Sequence[Sequence[tuple[float, float]]]
    """By sidecar: when it did not run."""
    quiet_seconds: float
    """From the last answer until nothing was held any more."""
    killed: int


async def play(plan: Plan) -> Evidence:
    """Let it all happen."""
    async with AsyncExitStack() as stack:
        main_port, spare_port = stack.enter_context(reserved_ports(2))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llm-sidecar-")))
        path = folder / "manifests.yaml"
        path.write_text(manifests(seconds=plan.seconds, main_port=main_port, spare_port=spare_port))
        providers = {
            "main": TruthfulProvider(main_port, troubled="provider" in plan.faults, seed=plan.seed),
            "spare": TruthfulProvider(spare_port, troubled=False, seed=plan.seed),
        }
        for provider in providers.values():
            await stack.enter_async_context(provider.running())
        stores = await stack.enter_async_context(store_servers.running())
        fleet = await stack.enter_async_context(fleets.running(plan, manifests=path, store_port=stores.primary.port))
        watch = Watch(stores)
        storm = Storm(plan, stores=stores, fleet=fleet, watch=watch)
        crowd = Crowd(plan, fleet)
        quiet_seconds = await _play(storm, crowd=crowd, watch=watch, fleet=fleet)
        return Evidence(
            plan=plan,
            asked=crowd.asked,
            costs=by_request(providers, PRICES),
            seen=watch.seen,
            met=storm.met + Counter(await _lasting(plan, providers["main"], crowd.asked)),
            away=storm.away,
            sidecar_away=[member.away for member in fleet.members],
            quiet_seconds=quiet_seconds,
            killed=storm.met["kill"],
        )


async def _play(storm: Storm, *, crowd: Crowd, watch: Watch, fleet: Fleet) -> float:
    stop_asking, stop_looking = asyncio.Event(), asyncio.Event()
    looking = asyncio.create_task(watch.run(stop_looking))
    asking = asyncio.create_task(crowd.ask_until(stop_asking))
    try:
        await asyncio.sleep(CALM_SECONDS)
        await storm.blow()
        await asyncio.sleep(CALM_SECONDS)
    finally:
        stop_asking.set()
        await asking
    quiet_seconds = await _be_quiet(crowd, watch, fleet)
    await fleet.stop()
    stop_looking.set()
    await looking
    await watch.look()
    return quiet_seconds


async def _be_quiet(crowd: Crowd, watch: Watch, fleet: Fleet) -> float:
    """Wait until nothing is held, and every sidecar that was cut off has told the store what it had let in meanwhile.

    What a killed sidecar held goes with its team's next request, so there is one.
    """
    began = time.monotonic()
    quiet_looks = 0
    while time.monotonic() - began < SETTLING_SECONDS:
        await watch.look()
        held = sum(figures.held for figures in watch.seen.now.values())
        if not watch.seen.open_ids and not held and await fleet.has_told_all():
            quiet_looks += 1
        else:
            quiet_looks = 0
        if quiet_looks == QUIET_LOOKS:
            break
        await asyncio.sleep(0.25)
        if time.monotonic() - began > LEASE_SECONDS:
            await asyncio.gather(*(crowd.ask_once(number) for number in range(len(TEAMS))))
    return time.monotonic() - began


async def _lasting(plan: Plan, main: TruthfulProvider, asked: Sequence[Asked]) -> Mapping[str, int]:
    met = {
        "provider": sum(count for (name, _), count in main.schedule.met.items() if name != "nothing"),
        "hang-up": sum(one.result == "hung up" for one in asked),
        "skew": sum(bool(skew) for skew in (fleets.SKEWS[n // len(TEAMS) % 4] for n in range(plan.sidecars))),
    }
    return {name: count for name, count in met.items() if name in plan.faults}
