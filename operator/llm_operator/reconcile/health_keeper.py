"""Keeps each provider's health: probes it in its own rhythm, reads the proxies' reports, and tells when there is news.

Only the controller probes, so that a fleet of proxies does not.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from llm_operator.reconcile.credentials import Credentials
from llm_operator.reconcile.health import FAILED_PROBES, HealthFacts, Probe, ProbeOutcome, health
from llm_operator.reconcile.health_probe import ProbeProvider
from llm_operator.reconcile.key_check import digest_of
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.objects import Key
from llm_operator.reconcile.report_reader import Reports
from llm_operator.reconcile.traffic import Traffic
from llm_operator.status import Condition, Truth
from llm_sidecar.contract.resources import HealthCheckMode, LLMProviderSpec

AT_ONCE: Final = 32
JITTER: Final = 0.1
CONFIRM_SECONDS: Final = 5.0
"""A probe that failed is repeated so soon: only then is it believed."""
READ_SECONDS: Final = 10.0
GATHER_SECONDS: Final = 0.2
"""New providers that come together are read together."""
FIGURES_SECONDS: Final = 30.0
"""Figures alone change the condition no more often."""


@dataclass(slots=True, kw_only=True)
class _Watched:
    """One provider."""

    identity: tuple[bytes, object]
    spec: LLMProviderSpec
    credentials: Credentials
    label: str
    told: Condition
    told_at: float = float("-inf")
    event_truth: Truth | None = None
    """What the last Event told, or would have."""
    probe: Probe | None = None
    failed_probes: int = 0
    traffic: Traffic | None = None
    is_read: bool = False
    task: asyncio.Task[None] | None = None

    @property
    def is_passive(self) -> bool:
        return self.spec.health_check.mode is HealthCheckMode.PASSIVE

    def facts(self) -> HealthFacts:
        return HealthFacts(
            probe=self.probe, failed_probes=self.failed_probes, is_passive=self.is_passive, traffic=self.traffic
        )


class HealthKeeper:
    """See the module. `on_change` is called with the provider whose condition changed."""

    def __init__(
        self,
        probe: ProbeProvider,
        reports: Reports | None,
        *,
        clock: Callable[[], float],
        metrics: ControllerMetrics,
        on_change: Callable[[Key], None],
    ) -> None:
        self._probe = probe
        self._reports = reports
        self._clock = clock
        self._metrics = metrics
        self._on_change = on_change
        self._watched: dict[Key, _Watched] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._newcomer = asyncio.Event()

    def condition(
        self, key: Key, spec: LLMProviderSpec, credentials: Credentials, *, label: str, remembered: Condition | None
    ) -> Condition:
        """A provider's health, as it should be told now; begins to watch it, anew where what is asked has changed.

        `remembered` is what a controller before this one wrote: it stands until this one knows something.
        """
        identity = (digest_of(spec, credentials), spec.health_check)
        watched = self._watched.get(key)
        if watched is None or watched.identity != identity:
            before = self._stop(key)
            told = remembered or health(HealthFacts(probe=None, is_passive=_is_passive(spec), traffic=None))
            watched = _Watched(identity=identity, spec=spec, credentials=credentials, label=label, told=told)
            known = (before.event_truth if before is not None else None) or (remembered.truth if remembered else None)
            watched.event_truth = known if known is not Truth.UNKNOWN else None
            self._watched[key] = watched
            self._begin(key, watched)
        if watched.label != label:
            self._remove_series(watched)
            watched.label = label
        self._show(watched)
        return watched.told

    def _begin(self, key: Key, watched: _Watched) -> None:
        self._newcomer.set()
        if not watched.is_passive:
            watched.task = asyncio.create_task(self._probe_for_ever(key, watched))
        else:
            self._judge(key, watched)

    def turned(self, key: Key) -> Condition | None:
        """The condition where it is news for whoever reads Events: it works no more, or works again. Once."""
        watched = self._watched.get(key)
        if watched is None or watched.told.truth in {Truth.UNKNOWN, watched.event_truth}:
            return None
        is_first = watched.event_truth is None
        watched.event_truth = watched.told.truth
        # That a new provider works is no news: `Ready` tells of it.
        return None if is_first and watched.told.holds else watched.told

    def forget(self, key: Key) -> None:
        """The provider is gone, or cannot be used."""
        self._stop(key)

    def _stop(self, key: Key) -> _Watched | None:
        watched = self._watched.pop(key, None)
        if watched is not None:
            self._remove_series(watched)
            if watched.task is not None:
                watched.task.cancel()
        return watched

    async def run(self) -> None:
        """Read the proxies' reports, until cancelled."""
        while self._reports is not None:
            await self._read(self._reports)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(READ_SECONDS):
                    await self._newcomer.wait()
            await asyncio.sleep(GATHER_SECONDS)
            self._newcomer.clear()

    async def close(self) -> None:
        """Stop probing and reading."""
        tasks = [watched.task for watched in self._watched.values() if watched.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._reports is not None:
            await self._reports.close()

    async def _read(self, reports: Reports) -> None:
        asked = dict(self._watched)
        if not asked:
            return
        found = await reports.read(sorted(asked))
        self._metrics.report_reads.labels("done" if found is not None else "failed").inc()
        for key, watched in asked.items():
            watched.traffic = found.get(key) if found is not None else None
            watched.is_read = True
            if self._watched.get(key) is watched:
                self._judge(key, watched)

    async def _probe_for_ever(self, key: Key, watched: _Watched) -> None:
        while True:
            async with self._slots:
                probe = await self._probe(str(key), watched.spec, watched.credentials)
            self._metrics.health_probes.labels(str(probe.outcome)).inc()
            watched.failed_probes = watched.failed_probes + 1 if probe.outcome is ProbeOutcome.FAILED else 0
            watched.probe = probe
            self._judge(key, watched)
            await asyncio.sleep(_pause_seconds(watched))

    def _judge(self, key: Key, watched: _Watched) -> None:
        is_probed = watched.is_passive or watched.probe is not None
        is_read = watched.is_read or self._reports is None
        if not (is_probed and is_read):
            return
        fresh, told, now = health(watched.facts()), watched.told, self._clock()
        if fresh.truth is Truth.UNKNOWN and 0 < watched.failed_probes < FAILED_PROBES:
            return  # one probe that failed changes nothing; the next one comes soon
        is_other = (fresh.truth, fresh.reason) != (told.truth, told.reason)
        if is_other or (fresh.message != told.message and now - watched.told_at >= FIGURES_SECONDS):
            watched.told, watched.told_at = fresh, now
            self._show(watched)
            self._on_change(key)

    def _show(self, watched: _Watched) -> None:
        if watched.told.truth is Truth.UNKNOWN:
            self._remove_series(watched)
        else:
            self._metrics.provider_healthy.labels(watched.label).set(watched.told.holds)

    def _remove_series(self, watched: _Watched) -> None:
        self._metrics.provider_healthy.remove_by_labels({"provider": watched.label})


def _is_passive(spec: LLMProviderSpec) -> bool:
    return spec.health_check.mode is HealthCheckMode.PASSIVE


def _pause_seconds(watched: _Watched) -> float:
    interval_seconds = float(watched.spec.health_check.interval_seconds)
    if 0 < watched.failed_probes < FAILED_PROBES:
        interval_seconds = min(interval_seconds, CONFIRM_SECONDS)
    return interval_seconds * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads probes, guards nothing
