"""Reads teams' counters and the alerts that their scripts wrote. It writes nothing, and whoever has the Redis URL can
write there, so how much is read is bounded, and nothing of it is believed that the TeamQuota does not know.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from pydantic import SecretStr
from redis.asyncio.cluster import RedisCluster

from llm_operator.reconcile.objects import Key
from llm_operator.redis_client import REDIS_FAILURES, RedisClient, close_client, redis_client
from llm_sidecar.contract.keys import quota_alerts, quota_counter, quota_counters
from llm_sidecar.contract.quota_counters import CounterFigures, LimitUnit, pairs, read_counters

MAX_FIELDS: Final = 20_000
"""32 limits have a few hundred fields for each window that is not swept away yet."""
MAX_ALERTS: Final = 100
"""Of one team and look. The next look takes the next ones."""
AT_ONCE: Final = 16
"""Teams that are read at the same time."""
SOCKET_SECONDS: Final = 2.0
LOOK_SECONDS: Final = 10.0
"""All teams together: a store that answers none must not keep a look going for as long as there are teams."""
FIRST_ALERT: Final = "0-0"

_ALERT_ID: Final = re.compile("[0-9]{1,20}-[0-9]{1,20}")
_READ: Final = """
local time = redis.call('TIME')
local flat = {}
if redis.call('HLEN', KEYS[1]) <= tonumber(ARGV[1]) then flat = redis.call('HGETALL', KEYS[1]) end
return {time[1], time[2], flat, redis.call('XRANGE', KEYS[2], '(' .. ARGV[2], '+', 'COUNT', ARGV[3])}
"""

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """A threshold that was crossed, as the store tells it."""

    id: str
    limit: str
    unit: LimitUnit
    per: str
    start_ms: int
    end_ms: int
    percent: int
    used: int
    maximum: int

    @property
    def counter(self) -> str:
        """The counter's name in the store."""
        return quota_counter(self.limit, self.unit, self.per, self.start_ms, self.end_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamReading:
    """What the store knows of one team."""

    now_ms: int
    """By the store's clock."""
    counters: tuple[CounterFigures, ...] = ()
    alerts: tuple[Alert, ...] = ()
    last_alert: str | None = None
    """The id up to which alerts were read; None where there was none."""


class Usages(Protocol):
    """Where the teams' counters are."""

    async def read(self, teams: Mapping[Key, str]) -> Mapping[Key, TeamReading] | None:
        """What is known of these teams, each with the id of the last alert that was seen; None: it cannot be read."""
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


class RedisUsages:
    """`Usages` in the Redis that the proxies use."""

    def __init__(self, url: SecretStr, *, ca_bundle: str | None = None) -> None:
        self._url = url
        self._ca_bundle = ca_bundle
        self._client: RedisClient | None = None
        self._missed: set[Key] = set()
        self._is_away = False

    async def read(self, teams: Mapping[Key, str]) -> Mapping[Key, TeamReading] | None:
        """See `Usages`."""
        slots = asyncio.Semaphore(self._at_once())
        found: dict[Key, TeamReading] = {}
        failures: list[str] = []

        async def read_one(team: Key, last_alert: str) -> None:
            async with slots:
                try:
                    found[team] = await self._read(team, last_alert)
                except (*REDIS_FAILURES, ValueError) as error:
                    # A part of a Cluster may be away, or a key be of another type: the other teams are read all the
                    # same. A ValueError is a URL that cannot be used; the text of all of these may show it.
                    failures.append(type(error).__name__)

        # Those that could not be read last time go last: their time-outs must not take the others' time.
        order = sorted(teams.items(), key=lambda team: team[0] in self._missed)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await asyncio.gather(*(read_one(*team) for team in order))
        except TimeoutError as error:
            failures.append(type(error).__name__)
        self._missed = teams.keys() - found.keys()
        self._tell(is_away=bool(failures), reason=failures[0] if failures else "")
        return found if found or not failures else None

    async def _read(self, team: Key, last_alert: str) -> TeamReading:
        keys = (quota_counters(str(team)), quota_alerts(str(team)))
        answer: Any = await self._connected().eval(_READ, len(keys), *keys, MAX_FIELDS, last_alert, MAX_ALERTS)
        return read_answer(answer)

    def _at_once(self) -> int:
        try:
            # A Cluster's client closes all its connections when one fails, under the hands of whoever uses them.
            return 1 if isinstance(self._connected(), RedisCluster) else AT_ONCE
        except ValueError:
            return AT_ONCE

    def _connected(self) -> Any:
        if self._client is None:
            self._client = redis_client(self._url, ca_bundle=self._ca_bundle, timeout_seconds=SOCKET_SECONDS)
        return self._client

    def _tell(self, *, is_away: bool, reason: str = "") -> None:
        if is_away != self._is_away:
            if is_away:
                _log.warning("not all teams' usage can be read (%s); their statuses keep their last figures", reason)
            else:
                _log.info("the teams' usage can be read again")
        self._is_away = is_away

    async def close(self) -> None:
        """See `Usages`."""
        if self._client is not None:
            await close_client(self._client)


def read_answer(answer: Any) -> TeamReading:
    """The script's answer."""
    seconds, microseconds, flat, entries = answer
    alerts = [_alert(entry_id.decode(), pairs(words)) for entry_id, words in entries]
    return TeamReading(
        now_ms=int(seconds) * 1000 + int(microseconds) // 1000,
        counters=tuple(read_counters(pairs(flat))),
        alerts=tuple(alert for alert in alerts if alert is not None),
        last_alert=entries[-1][0].decode() if entries else None,
    )


def is_alert_id(text: object) -> bool:
    """True for the id of an alert: what else a status says is not asked for."""
    return isinstance(text, str) and _ALERT_ID.fullmatch(text) is not None


def _alert(entry_id: str, words: Mapping[bytes, bytes]) -> Alert | None:
    try:
        numbers = {name: int(words[name.encode()]) for name in _NUMBERS}
        return Alert(
            id=entry_id,
            limit=words[b"limit"].decode(),
            unit=LimitUnit(words[b"unit"].decode()),
            per=words[b"per"].decode(),
            **numbers,
        )
    except (KeyError, ValueError):
        return None


_NUMBERS: Final = ("start_ms", "end_ms", "percent", "used", "maximum")
