"""What the operator costs, and how fast changes travel. Printed at the end of the run."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pytest

from llm_sidecar.contract.names import GROUP_VERSION
from tests.e2e import config_watch, resources
from tests.e2e.api_server import ApiServer, connected
from tests.e2e.applications import INJECT, Applications
from tests.e2e.figures import quantile, section, spread
from tests.e2e.operator_processes import Component, Cost, api_calls, cpu_share, memory, told
from tests.e2e.release import Release
from tests.e2e.simulated_pods import PODS_PER_SECOND, TEAM, Crowd, Placed, crowd, is_injected, simulated, submit

pytestmark = [pytest.mark.needs("cluster"), pytest.mark.needs("helm")]

Team = Callable[[], Applications]
TellFigure = Callable[[str], None]

PROMISED_SECONDS: Final = 5.0
BLOCKS: Final = 4
BLOCK_SECONDS: Final = 5
EDITS: Final = 10
NAMESPACES: Final = 10
PODS_EACH: Final = 20
AT_REST_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.2
QUIET_SECONDS: Final = 4.0
"""Statuses wait up to three seconds for each other."""
SETTLE_SECONDS: Final = 120.0


async def test_admission_at_twenty_pods_a_second(team: Team, tell_figure: TellFigure) -> None:
    """Dry runs, in turns with and without the annotation, so that both meet the same noise of the machine."""
    applications = team()
    webhook = Component(applications.release, "webhook")
    plain: list[float] = []
    asking: list[float] = []
    async with connected(applications.cluster) as api:
        # Connections and caches are those of a cluster that has been running.
        await submit(api, _pods(applications, annotations=INJECT)[:PODS_PER_SECOND], dry_run=True)
        before = webhook.costs()
        for _ in range(BLOCKS):
            stored, seconds = await submit(api, _pods(applications, annotations={}), dry_run=True)
            assert not any(map(is_injected, stored))
            plain += seconds
            stored, seconds = await submit(api, _pods(applications, annotations=INJECT), dry_run=True)
            assert all(map(is_injected, stored))
            asking += seconds
        after = webhook.costs()

    made = applications.cluster.kubectl("get", "pods", f"--namespace={applications.namespace}")["items"]
    assert made == []
    spent = sum(after[pod].cpu_seconds - before[pod].cpu_seconds for pod in after)
    heading = f"admission at {PODS_PER_SECOND} pods a second (dry runs, {len(asking)} pods of each kind)"
    tell_figure(
        section(
            heading,
            f"pods that ask for the proxy: {_latency(asking)}",
            f"pods that do not: {_latency(plain)}",
            f"webhook: {1000 * spent / len(asking):.1f} ms of CPU for a pod, with its probes",
        )
    )


async def test_an_edit_is_in_the_pod_and_in_use_within_seconds(team: Team, tell_figure: TellFigure) -> None:
    applications = team()
    applications.deploy("app", applications.waiting())
    in_pod: list[float] = []
    in_use: list[float] = []
    async with connected(applications.cluster) as api:
        with config_watch.watching(applications, applications.pod_of("app")) as watch:
            for number in range(EDITS):
                since = time.time()
                await api.merge(_team_quota(applications.namespace), _limits(1000 + number))
                in_pod.append(watch.wait_for("file", since=since))
                in_use.append(watch.wait_for("in use", since=since))

    heading = "an edited TeamQuota reaches a running pod"
    tell_figure(section(heading, f"in its file: {spread(in_pod)}", f"in use: {spread(in_use)}"))
    assert max(in_use) < PROMISED_SECONDS


@pytest.fixture
def observed(release: Release) -> Iterator[Observed]:
    """Ten namespaces for twenty pods each, and the operator's processes."""
    with crowd(release, namespaces=NAMESPACES, pods_each=PODS_EACH) as made:
        yield Observed(crowd=made, controller=Component(release, "controller"), webhook=Component(release, "webhook"))


async def test_what_two_hundred_injected_pods_cost(observed: Observed, tell_figure: TellFigure) -> None:
    """In CPU, in memory, and in calls to the API server: while they come, at rest, and for a change."""
    lines = [f"before: {observed.memory()}"]
    async with connected(observed.crowd.release.cluster) as api:
        coming = partial(submit, api, observed.crowd.manifests(), dry_run=False)
        calls, _ = await observed.measure(coming, partial(observed.crowd.is_told, api), lines=lines, name="they come")
        # Those of ten teams that were made anew, too.
        assert calls["patch", "pods"] >= NAMESPACES * PODS_EACH
        await observed.measure(_rest, _at_once, lines=lines, name="at rest")
        tell_figure(section(f"{NAMESPACES * PODS_EACH} injected pods of {NAMESPACES} teams (simulated)", *lines))
        await _measure_edits(observed, api, tell_figure)


async def _measure_edits(observed: Observed, api: ApiServer, tell_figure: TellFigure) -> None:
    """One team's limit: that team's Secret and pods. A shared provider: those of all teams."""
    lines: list[str] = []
    provider = _provider(observed.crowd.release.namespace)
    try:
        for name, teams, path, edit in (
            ("a TeamQuota edited", 1, _team_quota(observed.crowd.namespaces[0]), _limits(5000)),
            ("an LLMProvider edited", NAMESPACES, provider, _priority(501)),
        ):
            before = await observed.crowd.hashes(api)
            is_told = partial(observed.crowd.is_told_anew, api, before, teams)
            calls, seconds = await observed.measure(partial(api.merge, path, edit), is_told, lines=lines, name=name)
            lines.append(f"  {teams} Secrets, {teams * PODS_EACH} pods, the last of them told after {seconds:.1f} s")
            assert calls["patch", "pods"] == teams * PODS_EACH
            assert calls["apply", "secrets"] == teams
    finally:
        await api.merge(provider, _priority(500))
    tell_figure(section("an edit and its calls to the API server, with those pods", *lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """A crowd of pods, and what they cost the operator."""

    crowd: Crowd
    controller: Component
    webhook: Component

    def memory(self) -> str:
        """What each process holds now."""
        return "; ".join(f"{one.name} {memory(one.costs().values())}" for one in (self.controller, self.webhook))

    async def measure(
        self,
        change: Callable[[], Awaitable[Any]],
        is_done: Callable[[], Awaitable[bool]],
        *,
        lines: list[str],
        name: str,
    ) -> tuple[Counter[tuple[str, str]], float]:
        """The controller's calls from before a change until it is at rest again; the seconds until it was done."""
        before, costs, began = api_calls(self.controller.counts()), self._costs(), time.perf_counter()
        await change()
        await _until(is_done, what="not every pod was told of the change")
        done_at = time.perf_counter()
        now = await self._at_rest()
        shares = self._shares(costs, seconds=time.perf_counter() - began)
        lines += [f"{name}: {self.memory()}; CPU {shares}", f"  {told(now - before)}"]
        return now - before, done_at - began

    async def _at_rest(self) -> Counter[tuple[str, str]]:
        """All calls so far, once none came for a while."""
        calls, since = api_calls(self.controller.counts()), time.perf_counter()

        async def is_quiet() -> bool:
            nonlocal calls, since
            now = api_calls(self.controller.counts())
            if now != calls:
                calls, since = now, time.perf_counter()
            return time.perf_counter() - since > QUIET_SECONDS

        await _until(is_quiet, what="the controller did not come to rest")
        return calls

    def _costs(self) -> dict[str, dict[str, Cost]]:
        return {one.name: one.costs() for one in (self.controller, self.webhook)}

    def _shares(self, before: dict[str, dict[str, Cost]], *, seconds: float) -> str:
        after = self._costs()
        return "; ".join(f"{name} {cpu_share(before[name], after[name], seconds=seconds)}" for name in after)


async def _until(holds: Callable[[], Awaitable[bool]], *, what: str) -> None:
    deadline = time.perf_counter() + SETTLE_SECONDS
    while not await holds():
        assert time.perf_counter() < deadline, f"{what} within {SETTLE_SECONDS:.0f} s"
        await asyncio.sleep(POLL_SECONDS)


async def _rest() -> None:
    await asyncio.sleep(AT_REST_SECONDS)


async def _at_once() -> bool:
    return True


def _pods(applications: Applications, *, annotations: dict[str, str]) -> list[Placed]:
    names = (f"simulated-{number}" for number in range(PODS_PER_SECOND * BLOCK_SECONDS))
    return [(applications.namespace, simulated(name, annotations=annotations)) for name in names]


def _latency(seconds: list[float]) -> str:
    return f"p50 {1000 * quantile(seconds, 0.5):.1f} ms, p99 {1000 * quantile(seconds, 0.99):.1f} ms"


def _team_quota(namespace: str) -> str:
    return f"/apis/{GROUP_VERSION}/namespaces/{namespace}/teamquotas/{TEAM}"


def _provider(namespace: str) -> str:
    return f"/apis/{GROUP_VERSION}/namespaces/{namespace}/llmproviders/fingerprint"


def _limits(requests: int) -> resources.Object:
    return {"spec": {"limits": [{"name": "daily", "per": "Day", "requests": requests}]}}


def _priority(priority: int) -> resources.Object:
    return {"spec": {"priority": priority}}
