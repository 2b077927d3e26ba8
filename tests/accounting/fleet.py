"""The sidecars: real processes on ports that stay theirs, killed and started again."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import orjson

from tests.accounting.fault_proxy import FaultProxy
from tests.accounting.settings import HOUR_SECONDS, LEASE_SECONDS, MINUTE_SECONDS, SKEW_SECONDS, Plan
from tests.accounting.teams import NAMESPACE, TEAMS
from tests.conftest import ROOT
from tests.integration.processes import Sidecar, reserved_ports, start_process, wait_until_ready

SKEWS: Final = (0, SKEW_SECONDS, -SKEW_SECONDS, 0)


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """One sidecar, in all its lives."""

    number: int
    port: int
    admin_port: int
    skew_seconds: int
    link: FaultProxy
    """Between it and the store."""
    state: Path
    """Its folder, which outlives it: what it let in without the store is written there."""
    sidecar: Sidecar | None = None
    lives: list[Sidecar] = field(default_factory=list)
    away: list[tuple[float, float]] = field(default_factory=list)
    """From when to when (seconds since 1970) it did not run."""

    @property
    def has_journal(self) -> bool:
        """True while something waits that the store has not confirmed: the file goes with the last of it."""
        return any(self.state.glob("*.settlements.jsonl"))


class Fleet:
    """All of them."""

    def __init__(self, plan: Plan, *, manifests: Path, members: Sequence[Member]) -> None:
        self._plan = plan
        self._manifests = manifests
        self._token = secrets.token_urlsafe(24)
        self.members = members

    def address(self, number: int) -> tuple[str, str]:
        """Base URL and token."""
        return f"http://127.0.0.1:{self.members[number].port}", self._token

    async def start(self, member: Member) -> None:
        """Start one, and wait until it is ready."""
        await asyncio.to_thread(self._start, member)

    async def kill(self, member: Member) -> None:
        """End one as the kernel does when memory is short, and start it again."""
        if member.sidecar is None:
            raise AssertionError("it must run to be killed")
        began = time.time()
        member.sidecar.process.kill()
        await asyncio.to_thread(member.sidecar.process.wait)
        member.sidecar = None
        await self.start(member)
        member.away.append((began, time.time()))

    async def has_told_all(self) -> bool:
        """True where every sidecar reaches the store, and nothing that was let in without it is still in a journal."""
        reached = await asyncio.gather(*(asyncio.to_thread(_reaches_store, member) for member in self.members))
        return all(reached) and not any(member.has_journal for member in self.members)

    async def stop(self) -> None:
        """End all as a cluster does, and hold each to a clean end."""
        running = [member.sidecar for member in self.members if member.sidecar is not None]
        for member in self.members:
            member.sidecar = None
        await asyncio.gather(*(asyncio.to_thread(one.stop) for one in running))

    def _start(self, member: Member) -> None:
        options = {
            "skew-seconds": member.skew_seconds,
            "lease-seconds": LEASE_SECONDS,
            "minute-seconds": MINUTE_SECONDS,
            "hour-seconds": HOUR_SECONDS,
        }
        command = (
            sys.executable,
            *("-m", "tests.accounting.sidecar_process"),
            *(f"--{name}={value}" for name, value in options.items()),
            *("--", "run", "-f", str(self._manifests), "--team", f"{NAMESPACE}/{TEAMS[member.number % len(TEAMS)]}"),
            *("--port", str(member.port), "--admin-port", str(member.admin_port), f"--token={self._token}"),
            *("--redis", f"redis://127.0.0.1:{member.link.port}", "--state-dir", str(member.state)),
        )
        server = start_process(command, {"PYTHONPATH": str(ROOT)})
        member.sidecar = Sidecar(
            command=command,
            process=server.process,
            stdout=server.stdout,
            stderr=server.stderr,
            base_url=f"http://127.0.0.1:{member.port}",
            admin_url=f"http://127.0.0.1:{member.admin_port}",
            token=self._token,
        )
        member.lives.append(member.sidecar)
        wait_until_ready(member.sidecar, f"{member.sidecar.admin_url}/readyz")


def _reaches_store(member: Member) -> bool:
    if member.sidecar is None:
        return False
    with urllib.request.urlopen(f"{member.sidecar.admin_url}/readyz", timeout=5) as answer:  # noqa: S310 - loopback
        return bool(orjson.loads(answer.read())["store"]["available"])


@asynccontextmanager
async def running(plan: Plan, *, manifests: Path, store_port: int) -> AsyncIterator[Fleet]:
    """Start the fleet, each member behind a link of its own; whatever still runs at the end is killed."""
    async with AsyncExitStack() as stack:
        ports = stack.enter_context(reserved_ports(2 * plan.sidecars))
        members = [
            Member(
                number=number,
                port=ports[2 * number],
                admin_port=ports[2 * number + 1],
                # Members of one team follow each other by the number of teams: each team has right and wrong clocks.
                skew_seconds=SKEWS[number // len(TEAMS) % len(SKEWS)] if "skew" in plan.faults else 0,
                state=manifests.parent / f"state-{number}",
                link=await stack.enter_async_context(FaultProxy(store_port).listening()),
            )
            for number in range(plan.sidecars)
        ]
        for member in members:
            member.state.mkdir()
        fleet = Fleet(plan, manifests=manifests, members=members)
        try:
            await asyncio.gather(*(fleet.start(member) for member in members))
            yield fleet
        finally:
            for member in members:
                if member.sidecar is not None:
                    member.sidecar.process.kill()
                    member.sidecar.process.wait()
