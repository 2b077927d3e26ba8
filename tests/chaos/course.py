"""The course of the whole: calm, two equal storms, an outage, the recovery, and a crowd that hangs up."""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.chaos.clients import CLIENTS, KINDS, MODELS, Crowd, Outcome
from tests.chaos.faults import ALL, BEFORE_CONTENT, LARGE, MIXED, Schedule, calm
from tests.chaos.providers import Provider, Seen
from tests.integration.processes import Sidecar, reserved_ports, running_sidecar
from tests.integration.proxy.harness import until
from tests.integration.proxy.simulated_traffic import CALLS

STORM_SECONDS: Final = 10.0
"""Of each of the two storms: with all that is around them, the suite takes about a minute."""
SEED: Final = 5
OPEN_SECONDS: Final = 1
SLOW_START_SECONDS: Final = min(10, OPEN_SECONDS)
"""In which a recovered provider gets back all of its traffic: `runtime.py`."""
CALM_SECONDS: Final = 2.0
LARGE_SECONDS: Final = 3.0
"""Apart from the storms: what the allocator keeps of a few frames of 17 MiB would hide a leak."""
OUTAGE_SECONDS: Final = 3.0
SPREAD_SECONDS: Final = 0.8
"""Within which all hang up: at the very same moment, it would be this process that is measured."""
ALLOWED_FEWER_FILES: Final = (0, 1)
"""The connection that asked whether it is ready may still have been open at first."""
AWAY_SECONDS: Final = 0.5
"""How long connections are refused, again and again within a storm."""
FAILING_SHARE: Final = 0.5
HASTY_SECONDS: Final = 2
"""The primary's timeouts, so that silence and stalls are met often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """The sidecar with nothing to do."""

    resident_bytes: int
    files: int
    """Open descriptors that are no connections to the providers."""
    under_way: int
    """Requests that a provider is still at work on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """All that was seen."""

    outcomes: Sequence[Outcome]
    met: Mapping[tuple[str, bool], int]
    quiet: Mapping[str, Quiet]
    back_seconds: Mapping[str, float]
    """By model: until the primary answered again."""
    all_back_seconds: float
    """Until no other provider was asked any more."""
    cancelled_seconds: Sequence[float]
    """From each hang-up until the provider was told."""
    not_cancelled: int
    hung_up: int
    stopped_seconds: float
    lines: Sequence[Mapping[str, Any]]
    """Of the audit log."""
    errors: Sequence[str]
    """What the process said on standard error."""

    def of(self, *phases: str) -> list[Outcome]:
        """The outcomes of some phases."""
        return [one for one in self.outcomes if one.phase in phases]


def run(manifests: Path, *, storm_seconds: float, seed: int) -> Course:
    """Start everything, let it all happen, stop everything."""
    with reserved_ports(2) as (primary_port, second_port):
        manifests.write_text(_manifests(primary_port, second_port))
        # A checkout that is not the installed one is tested as it stands.
        environment = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        with running_sidecar(manifests, environment=environment) as sidecar:
            staged = _Staged(sidecar, Provider(primary_port), Provider(second_port), seed=seed)
            asyncio.run(staged.play(storm_seconds))
            begin = time.monotonic()
            sidecar.stop()
            stopped_seconds = time.monotonic() - begin
        return staged.course(stopped_seconds)


class _Staged:
    def __init__(self, sidecar: Sidecar, primary: Provider, second: Provider, *, seed: int) -> None:
        self._sidecar = sidecar
        self._primary = primary
        self._second = second
        self._seed = seed
        self._draw = random.Random(seed)
        self._crowd = Crowd(sidecar, seed=seed)
        self._quiet: dict[str, Quiet] = {}
        self._met: Counter[tuple[str, bool]] = Counter()
        self._back: dict[str, float] = {}
        self._all_back_seconds = float("inf")
        self._hung_up: dict[str, float] = {}

    async def play(self, storm_seconds: float) -> None:
        async with self._primary.running(), self._second.running():
            await self._be_quiet("before")
            async with self._crowd.asking("calm"):
                await asyncio.sleep(CALM_SECONDS)
            for phase in ("first storm", "second storm"):
                await self._storm(phase, storm_seconds)
                await self._be_quiet(phase)
            async with self._crowd.asking("large frames"):
                await self._blow(LARGE, LARGE_SECONDS, times_away=0)
            await self._outage_and_recovery()
            await self._hang_ups()
            await self._be_quiet("end")

    async def _storm(self, phase: str, seconds: float) -> None:
        """First what another provider can make good, then everything; the primary is away now and then."""
        async with self._crowd.asking(f"{phase}, before content"):
            await self._blow(BEFORE_CONTENT, seconds / 2, times_away=2)
        async with self._crowd.asking(phase):
            await self._blow(MIXED, seconds / 2, times_away=1)

    async def _blow(self, faults: Mapping[str, str], seconds: float, *, times_away: int) -> None:
        self._primary.schedule = Schedule(faults, share=FAILING_SHARE, seed=self._seed)
        for _ in range(times_away):
            await asyncio.sleep(max(0.1, seconds / times_away - AWAY_SECONDS))
            await self._primary.go_away()
            await asyncio.sleep(AWAY_SECONDS)
            await self._primary.come()
        if not times_away:
            await asyncio.sleep(seconds)
        self._met += self._primary.schedule.met

    async def _outage_and_recovery(self) -> None:
        self._primary.schedule = Schedule({"500": ALL["500"]}, share=1.0, seed=self._seed)
        async with self._crowd.asking("outage"):
            await asyncio.sleep(OUTAGE_SECONDS)
            self._crowd.phase, healed = "recovery", time.monotonic()
            self._primary.schedule = calm()
            # Its slow start is by chance, so for a moment too: nobody has been sent elsewhere for half a second.
            with suppress(TimeoutError):
                await until(lambda: self._is_all_back(healed), seconds=OPEN_SECONDS + 2 + SLOW_START_SECONDS + 5)
        for one in self._crowd.outcomes:
            if one.phase == "recovery" and one.complete and one.provider.startswith("primary"):
                self._back[one.model] = min(self._back.get(one.model, float("inf")), one.ended - healed)
        elsewhere = [one.ended for one in self._crowd.outcomes if not one.provider.startswith("primary")]
        self._all_back_seconds = max(elsewhere) - healed

    def _is_all_back(self, healed: float) -> bool:
        recent = [one for one in self._crowd.outcomes[-CLIENTS * 20 :] if one.ended > time.monotonic() - 0.5]
        begun = time.monotonic() - healed > 1
        return begun and len(recent) > 0 and all(one.provider.startswith("primary") for one in recent)

    # --- hanging up

    async def _hang_ups(self) -> None:
        """Everybody hangs up: in the middle of a stream, or while waiting for its first content."""
        for shape, kinds, waits in (
            ("chunk_interval_ms=300,chunks=100", [name for name in KINDS if CALLS[name].shape != "plain"], False),
            ("stall_after=0", KINDS, True),
        ):
            self._primary.shape = shape
            async with self._crowd.session() as session:
                await asyncio.gather(*(self._hang_up(session, kinds, waits=waits) for _ in range(CLIENTS)))
        self._primary.shape = ""
        with suppress(TimeoutError):
            await until(lambda: not self._primary.under_way, seconds=3)

    async def _hang_up(self, session: aiohttp.ClientSession, kinds: Sequence[str], *, waits: bool) -> None:
        _, _, prompt, path, body = self._crowd.drawn(kinds)
        name = prompt.split()[0]
        arrived = self._primary.arrivals[name] = asyncio.Event()
        asked = asyncio.create_task(session.post(path, data=body))
        if waits:
            await arrived.wait()
            await asyncio.sleep(self._draw.random() * SPREAD_SECONDS)
            self._hung_up[name] = time.monotonic()
            asked.cancel()
            await asyncio.wait([asked])
        else:
            answer = await asked
            await answer.content.readany()
            await asyncio.sleep(self._draw.random() * SPREAD_SECONDS)
            self._hung_up[name] = time.monotonic()
            answer.close()

    # --- leaks

    async def _be_quiet(self, name: str) -> None:
        """Look at the sidecar once the last request has ended everywhere."""
        providers = (self._primary, self._second)
        files = 0

        def is_settled() -> bool:
            nonlocal files
            files = _open_files(self._sidecar.process.pid) - sum(one.connections for one in providers)
            before = self._quiet.get("before")
            return not any(one.under_way for one in providers) and (
                before is None or before.files - files in ALLOWED_FEWER_FILES
            )

        with suppress(TimeoutError):  # what is left over is told by the figures
            await until(is_settled, seconds=5)
        self._quiet[name] = Quiet(
            resident_bytes=_resident_bytes(self._sidecar.process.pid),
            files=files,
            under_way=sum(one.under_way for one in providers),
        )

    # --- what came of it

    def course(self, stopped_seconds: float) -> Course:
        ends: dict[str, Seen] = {one.name: one for one in self._primary.seen if one.client_gone}
        cancelled = [
            ends[name].ended - moment  # type: ignore[operator]  # it has ended: the client is gone
            for name, moment in self._hung_up.items()
            if name in ends
        ]
        return Course(
            outcomes=self._crowd.outcomes,
            met=self._met,
            quiet=self._quiet,
            back_seconds={model: self._back.get(model, float("inf")) for model in MODELS},
            all_back_seconds=self._all_back_seconds,
            cancelled_seconds=cancelled,
            not_cancelled=len(self._hung_up) - len(cancelled),
            hung_up=len(self._hung_up),
            stopped_seconds=stopped_seconds,
            lines=[json.loads(line) for line in self._sidecar.stdout.all() if line.startswith("{")],
            errors=self._sidecar.stderr.all(),
        )


def _open_files(process_id: int) -> int:
    return sum(1 for _ in Path(f"/proc/{process_id}/fd").iterdir())


def _resident_bytes(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) * 1024


def _manifests(primary_port: int, second_port: int) -> str:
    """For each kind of provider a primary, and a healthy one of another kind that stands in for it."""
    second = {"OpenAI": "Anthropic", "Anthropic": "Google", "Google": "OpenAI"}
    hasty = {f"{name}Seconds": HASTY_SECONDS for name in ("response", "firstToken", "idle")}
    documents = [
        {"apiVersion": "llm-sidecar.io/v1alpha1", "kind": "TeamQuota", "metadata": {"name": "all"}, "spec": {}}
    ]
    for kind, other in second.items():
        model = f"model-{kind.lower()}"
        primary = {
            "models": [{"name": model}],
            "timeouts": hasty,
            "retry": {"maxAttempts": 2, "initialBackoffMilliseconds": 50, "maxBackoffSeconds": 1},
            # High enough that the primary is asked all through the storms, where half of its answers are good.
            "circuitBreaker": {"failureThreshold": 20, "openSeconds": OPEN_SECONDS},
        }
        stand_in = {"models": [{"name": f"stand-in-{kind.lower()}", "failoverFor": [model]}], "priority": 10}
        documents.append(_provider(f"primary-{kind.lower()}", kind, primary_port, primary))
        documents.append(_provider(f"second-{kind.lower()}", other, second_port, stand_in))
    return "\n---\n".join(map(json.dumps, documents))


def _provider(name: str, kind: str, port: int, spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": "llm-sidecar.io/v1alpha1",
        "kind": "LLMProvider",
        "metadata": {"name": name},
        "spec": {
            "type": kind,
            "baseURL": f"http://127.0.0.1:{port}" + ("/v1" if kind == "OpenAI" else ""),
            "cache": {"ttlSeconds": {"generation": 0}},
            **spec,
        },
    }
