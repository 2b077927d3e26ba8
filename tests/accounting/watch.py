"""An observer at the store itself, past all faulty links: it keeps the ledger, the alerts, and the peaks of counters.

What a server loses with its data, the observer has read just before.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Final

from llm_sidecar.contract import keys
from llm_sidecar.contract.quota_counters import CounterFigures, pairs, read_counters
from tests.accounting.teams import NAMESPACE, TEAMS

if TYPE_CHECKING:
    from tests.accounting.stores import Stores

LOOK_SECONDS: Final = 0.05
FEMTO: Final = 10**6


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """One entry of a team's ledger."""

    team: str
    request_id: str
    source: str
    provider: str
    status: int
    at: float
    """Seconds since 1970, by the store's clock."""
    charges: Mapping[str, Fraction]
    """By counter; of cost in nano-USD, with its fraction."""
    fields: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class Peak:
    """The most that was seen of one counter."""

    used: int = 0
    taken: int = 0
    """Used and held at the same moment."""
    beyond: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One threshold of one counter, as it was reported."""

    team: str
    counter: str
    percent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The store has just forgotten something."""

    fault: str
    at: float
    held: Mapping[tuple[str, str], int]
    """By team and counter: what was in flight."""


@dataclass(slots=True, kw_only=True)
class Seen:
    """All that was seen."""

    ledger: dict[str, Booked] = field(default_factory=dict)
    """By the entry's id in the stream, with what a store has lost since."""
    alerts: dict[str, Alert] = field(default_factory=dict)
    peaks: dict[tuple[str, str], Peak] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    used: dict[tuple[str, str], Fraction] = field(default_factory=dict)
    """Of each counter, as it was when it was last seen; a window that is over is swept away."""
    now: dict[tuple[str, str], CounterFigures] = field(default_factory=dict)
    """At the last look."""
    open_ids: set[str] = field(default_factory=set)
    """Reservations, at the last look, that are neither settled nor abandoned."""
    looks: int = 0


class Watch:
    """Looks again and again."""

    def __init__(self, stores: Stores) -> None:
        self._stores = stores
        self._last: dict[str, str] = dict.fromkeys((*map(_ledger, TEAMS), *map(_alerts, TEAMS)), "-")
        self._looking = asyncio.Lock()
        self.seen = Seen()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until told to stop. A store that is away is looked at again."""
        while not stop.is_set():
            with suppress(OSError, TimeoutError):
                await self.look()
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)

    async def look(self) -> None:
        """Look once."""
        async with self._looking:
            primary = self._stores.primary
            words: list[tuple[str, ...]] = []
            for team in TEAMS:
                words += [
                    ("HGETALL", keys.quota_counters(_label(team))),
                    ("XRANGE", _ledger(team), self._last[_ledger(team)], "+"),
                    ("XRANGE", _alerts(team), self._last[_alerts(team)], "+"),
                    ("HGETALL", keys.quota_reservations(_label(team))),
                ]
            replies = await self._stores.ask_all(primary, words)
            self.seen.open_ids.clear()
            self.seen.now.clear()
            for team, first in zip(TEAMS, range(0, len(replies), 4), strict=True):
                self._take_counters(team, pairs(replies[first]))
                self._take_ledger(team, replies[first + 1])
                self._take_alerts(team, replies[first + 2])
                records = pairs(replies[first + 3])
                self.seen.open_ids |= {name.decode() for name, value in records.items() if value.startswith(b"o")}
            self.seen.looks += 1

    async def note_loss(self, fault: str) -> None:
        """Look for the last time at what is about to be forgotten."""
        await self.look()
        await self.look()  # a busy server may have answered the first look before what had reached it earlier
        held = {key: figures.held for key, figures in self.seen.now.items()}
        self.seen.losses.append(Loss(fault=fault, at=time.time(), held=held))

    def _take_counters(self, team: str, fields: Mapping[bytes, bytes]) -> None:
        for figures in read_counters(fields):
            key = (team, figures.counter)
            rest = int(fields.get(f"{figures.counter}|rest".encode(), b"0"))
            peak = self.seen.peaks.setdefault(key, Peak())
            peak.used = max(peak.used, figures.used)
            peak.taken = max(peak.taken, figures.used + figures.held)
            peak.beyond = max(peak.beyond, figures.beyond)
            self.seen.now[key] = figures
            self.seen.used[key] = figures.used + Fraction(rest, FEMTO)

    def _take_ledger(self, team: str, entries: list[Any]) -> None:
        for name, flat in entries:
            fields = {key.decode(): value.decode() for key, value in pairs(flat).items()}
            self._last[_ledger(team)] = f"({name.decode()}"
            self.seen.ledger[f"{team}/{name.decode()}"] = _booked(team, fields)

    def _take_alerts(self, team: str, entries: list[Any]) -> None:
        for name, flat in entries:
            fields = {key.decode(): value.decode() for key, value in pairs(flat).items()}
            self._last[_alerts(team)] = f"({name.decode()}"
            counter = keys.quota_counter(
                fields["limit"], fields["unit"], fields["per"], int(fields["start_ms"]), int(fields["end_ms"])
            )
            self.seen.alerts[f"{team}/{name.decode()}"] = Alert(
                team=team, counter=counter, percent=int(fields["percent"])
            )


def _booked(team: str, fields: Mapping[str, str]) -> Booked:
    charges: dict[str, Fraction] = {}
    for line in filter(None, fields["charges"].split("\n")):
        counter, delta = line.split("\t")
        charges[counter] = charges.get(counter, Fraction()) + Fraction(delta)
    return Booked(
        team=team,
        request_id=fields["id"],
        source=fields["source"],
        provider=fields.get("provider", ""),
        status=int(fields.get("status") or 0),
        at=int(fields["at_ms"]) / 1000,
        charges=charges,
        fields=fields,
    )


def _label(team: str) -> str:
    return f"{NAMESPACE}/{team}"


def _ledger(team: str) -> str:
    return keys.quota_ledger(_label(team))


def _alerts(team: str) -> str:
    return keys.quota_alerts(_label(team))
