"""Keeps each team's usage: reads the counters, and tells when a status has something new to say.

Only the controller reads every team's counters, so that what people see does not cost the proxies anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from llm_operator.reconcile.alerts import is_known
from llm_operator.reconcile.burn_rate import BurnMeter, exhausted_at_ms, span_ms
from llm_operator.reconcile.metrics import ControllerMetrics
from llm_operator.reconcile.objects import Key, ObservedTeam
from llm_operator.reconcile.usage_reader import FIRST_ALERT, MAX_ALERTS, Alert, TeamReading, Usages, is_alert_id
from llm_operator.reconcile.usage_status import Knowledge, LimitTold, Picture, is_news
from llm_sidecar.contract.limit_usage import LimitUsage, beyond_without_store, usage_at

READ_SECONDS: Final = 5.0
AWAY_SECONDS: Final = 30.0
"""A store that cannot be read for less is no news."""

_NOTHING_YET: Final = Picture(knowledge=Knowledge.NOT_YET)


@dataclass(frozen=True, slots=True)
class PendingAlert:
    """A crossing of which no Event was written yet."""

    alert: Alert
    reset: int
    """How much of the window had been reset."""


@dataclass(slots=True)
class _Watched:
    """One team."""

    uid: str
    read_at: float
    """When it was read last, or looked for first."""
    told: Picture | None = None
    told_at: float = float("-inf")
    meters: dict[tuple[str, str, str], BurnMeter] = field(default_factory=dict)
    is_new: bool = True
    last_alert: str | None = None
    """Up to which alerts were read; None before the first look."""
    pending: list[PendingAlert] = field(default_factory=list)
    series: set[str] = field(default_factory=set)


class UsageKeeper:
    """See the module. `on_change` is called with the team whose status has something to say."""

    def __init__(
        self,
        usages: Usages | None,
        *,
        teams: Callable[[], Iterable[ObservedTeam]],
        clock: Callable[[], float],
        metrics: ControllerMetrics,
        on_change: Callable[[Key], None],
    ) -> None:
        self._usages = usages
        self._teams = teams
        self._clock = clock
        self._metrics = metrics
        self._on_change = on_change
        self._watched: dict[Key, _Watched] = {}

    async def run(self) -> None:
        """Read for as long as the loop runs."""
        while self._usages is not None:
            await self.look(self._usages)
            await asyncio.sleep(READ_SECONDS)

    async def close(self) -> None:
        """Read no more."""
        if self._usages is not None:
            await self._usages.close()

    async def look(self, usages: Usages) -> None:
        """Read all teams once."""
        teams = {team.key: team for team in self._teams()}
        for key in self._watched.keys() - teams.keys():
            self.forget(key)
        if not teams:
            return
        asked = {key: self._last_alert(team) for key, team in teams.items() if team.resource is not None}
        found = await usages.read(asked)
        self._metrics.usage_reads.labels("done" if found is not None else "failed").inc()
        for key, team in teams.items():
            reading = found.get(key) if found is not None else None
            if reading is not None:
                self._take(team, reading)
            else:
                self._miss(team)

    def picture(self, team: ObservedTeam) -> Picture:
        """A team's usage, as its status shall tell it now."""
        if self._usages is None:
            return Picture(knowledge=Knowledge.NO_STORE)
        watched = self._watched.get(team.key)
        return watched.told if watched is not None and watched.told is not None else _NOTHING_YET

    def pending(self, key: Key) -> list[PendingAlert]:
        """Crossings of which Events must be written before the next status."""
        watched = self._watched.get(key)
        return list(watched.pending) if watched is not None else []

    def told(self, key: Key, pending: list[PendingAlert]) -> None:
        """Events of these were written, and the status says so."""
        watched = self._watched.get(key)
        if watched is not None:
            watched.pending = [one for one in watched.pending if one not in pending]

    def forget(self, key: Key) -> None:
        """The team is gone."""
        watched = self._watched.pop(key, None)
        for limit in watched.series if watched is not None else ():
            self._metrics.quota_used_ratio.remove_by_labels({"team": str(key), "limit": limit})

    def _last_alert(self, team: ObservedTeam) -> str:
        watched = self._watched.get(team.key)
        if watched is None or watched.uid != team.uid:
            self.forget(team.key)
            watched = self._watched[team.key] = _Watched(team.uid, read_at=self._clock())
        if watched.last_alert is None:
            written = team.status.get("lastAlert")
            watched.last_alert = str(written) if is_alert_id(written) else FIRST_ALERT
        return watched.last_alert

    # --- what was read

    def _take(self, team: ObservedTeam, reading: TeamReading) -> None:
        watched = self._watched.get(team.key)
        if watched is None or team.resource is None:
            return
        watched.read_at = self._clock()
        spec = team.resource.spec
        usages = usage_at(spec, reading.counters, reading.now_ms)
        self._take_alerts(team, watched, reading)
        self._show(team.key, watched, usages)
        fresh = Picture(
            knowledge=Knowledge.READ,
            limits=tuple(
                replace(
                    self._limit(watched, usage, reading.now_ms),
                    beyond_without_store=beyond_without_store(usage, spec.on_store_unavailable),
                )
                for usage in usages
            ),
            thresholds=tuple(sorted(spec.alerts.thresholds_percent)),
            read_at_ms=reading.now_ms,
        )
        known = {(one.unit.value, one.figures.per, one.name) for one in usages}
        watched.meters = {name: meter for name, meter in watched.meters.items() if name in known}
        self._tell(team.key, watched, fresh)

    def _miss(self, team: ObservedTeam) -> None:
        watched = self._watched.setdefault(team.key, _Watched(team.uid, read_at=self._clock()))
        if team.resource is not None and self._clock() - watched.read_at < AWAY_SECONDS:
            return
        knowledge = Knowledge.AWAY if team.resource is not None else Knowledge.UNREADABLE
        before = watched.told or _NOTHING_YET
        # The figures stay as they were written last, and say of when they are.
        lost = Picture(
            knowledge=knowledge, limits=before.limits, thresholds=before.thresholds, read_at_ms=before.read_at_ms
        )
        self._tell(team.key, watched, lost)

    def _tell(self, key: Key, watched: _Watched, fresh: Picture) -> None:
        now = self._clock()
        is_new = is_news(watched.told, fresh, seconds_since_told=now - watched.told_at)
        if is_new:
            watched.told, watched.told_at = fresh, now
        if is_new or watched.pending:
            self._on_change(key)

    def _limit(self, watched: _Watched, usage: LimitUsage, now_ms: int) -> LimitTold:
        if not usage.has_window:
            return LimitTold(usage=usage)
        meter = watched.meters.setdefault((usage.unit.value, usage.figures.per, usage.name), BurnMeter())
        meter.observe(now_ms, usage.figures)
        per_hour = meter.per_hour(span_ms(usage))
        return LimitTold(usage=usage, burn_per_hour=per_hour, exhausted_at_ms=exhausted_at_ms(usage, per_hour, now_ms))

    def _take_alerts(self, team: ObservedTeam, watched: _Watched, reading: TeamReading) -> None:
        if len(watched.pending) >= MAX_ALERTS:
            return  # no Event can be written at present: the others wait in the store
        is_first, watched.is_new = watched.is_new and watched.last_alert == FIRST_ALERT, False
        watched.last_alert = reading.last_alert or watched.last_alert
        resets: Mapping[str, int] = {figures.counter: figures.reset for figures in reading.counters}
        for alert in reading.alerts:
            # Where no status tells which were told, what is over already is told no more.
            if not is_known(alert, team) or (is_first and alert.end_ms <= reading.now_ms):
                continue
            labels = (str(team.key), alert.limit, str(alert.percent))
            self._metrics.quota_threshold_crossings.labels(*labels).inc()
            watched.pending.append(PendingAlert(alert, resets.get(alert.counter, 0)))

    def _show(self, key: Key, watched: _Watched, usages: tuple[LimitUsage, ...]) -> None:
        series: dict[str, Any] = {usage.name: float(usage.share) for usage in usages}
        for gone in watched.series - series.keys():
            self._metrics.quota_used_ratio.remove_by_labels({"team": str(key), "limit": gone})
        for limit, share in series.items():
            self._metrics.quota_used_ratio.labels(str(key), limit).set(share)
        watched.series = set(series)
