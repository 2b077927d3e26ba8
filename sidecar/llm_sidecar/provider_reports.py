"""What this proxy sees of its providers, told to the fleet now and then: never in a request's way.

Requests only count in memory. A task in the background writes the counts to Redis, where the controller reads them, and
exchanges with other proxies whose circuit breakers opened: a hint for the breakers here, never a verdict.
"""

from __future__ import annotations

import asyncio
import random
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from llm_sidecar.contract.config import ConfigDocument
from llm_sidecar.contract.keys import provider_openings, provider_reports
from llm_sidecar.contract.provider_reports import (
    OPENING_TTL_SECONDS,
    OPENING_WINDOW_SECONDS,
    READ_WINDOWS,
    REPORT_TTL_SECONDS,
    ProviderReport,
    render_report,
    window_at,
)
from llm_sidecar.failover.circuit import EVIDENCE, Evidence
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.store import Reply, Script, Store, StoreUnavailable

INTERVAL_SECONDS: Final = 5.0
JITTER: Final = 0.2
"""A fleet that was started at once should not write at once. Still under `OPENING_WINDOW_SECONDS`."""
ACTIVE_SECONDS: Final = 60.0
"""So long after its last attempt a provider's openings are still asked for. Idle proxies cost the Redis nothing."""
LAST_FLUSH_SECONDS: Final = 0.2
MAX_READ_MODELS: Final = 256
MAX_MODEL_BYTES: Final = 128

Clock = Callable[[], float]
"""Seconds of the wall's clock: windows are shared with others."""
OnHint = Callable[[str, str], object]
"""Called with provider (its label) and model whose breaker opened elsewhere."""

_TELL: Final = Script(
    "tell_provider",
    """
-- KEYS: openings now and before, then a hash for each window that is told.
-- ARGV: reporter, both lifetimes, most members and their most bytes, how many models opened, those, the reports.
local models = tonumber(ARGV[6])
for i = 3, #KEYS do
  redis.call('HSET', KEYS[i], ARGV[1], ARGV[6 + models + i - 2])
  redis.call('EXPIRE', KEYS[i], ARGV[2])
end
-- pcall: a key of a wrong type, which somebody put there, must not keep reports from being told.
for i = 1, models do redis.pcall('SADD', KEYS[1], ARGV[6 + i]) end
if models > 0 then redis.call('EXPIRE', KEYS[1], ARGV[3]) end
local found = {{}, {}}
for i = 1, 2 do
  local opened = redis.pcall('SRANDMEMBER', KEYS[i], ARGV[4])
  for _, model in ipairs(opened.err and {} or opened) do
    if #model <= tonumber(ARGV[5]) then table.insert(found[i], model) end
  end
end
return found
""",
)


@dataclass(slots=True)
class _Tally:
    answered: int = 0
    milliseconds: float = 0.0
    failures: dict[FailureKind, int] = field(default_factory=dict)
    is_told: bool = True

    def report(self) -> ProviderReport:
        return ProviderReport(
            answered=self.answered,
            answered_milliseconds=round(self.milliseconds),
            failures={str(kind): count for kind, count in self.failures.items()},
        )


@dataclass(slots=True)
class _Known:
    """All about one provider. What is kept is bounded: `READ_WINDOWS` tallies, and its models."""

    identity: str
    models: frozenset[str]
    """As configured: nobody is heard about any other."""
    tallies: dict[int, _Tally] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)
    """Models whose breaker opened here and that nobody was told of yet, with the time."""
    heard: dict[tuple[str, int], None] = field(default_factory=dict)
    """Openings, with their window, that were told or heard of already."""
    counting: _Tally = field(default_factory=_Tally)
    last_attempt_at: float = float("-inf")


class ProviderReports:
    """See the module. `configure` at each configuration, `start` once, `note` per attempt, `close` at the end.

    Providers are named by their label, as elsewhere in the proxy; what is told names them by namespace and name.
    """

    def __init__(
        self, *, on_hint: OnHint, clock: Clock = time.time, interval_seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._on_hint = on_hint
        self._clock = clock
        self._interval_seconds = interval_seconds
        self._reporter = secrets.token_hex(8)
        self._window = window_at(clock())
        self._known: dict[str, _Known] = {}
        self._store: Store | None = None
        self._task: asyncio.Task[None] | None = None

    def configure(self, document: ConfigDocument, store: Store | None) -> None:
        """Which providers there are from now on, and where to tell. Counts of those that stay are kept."""
        before, self._known, self._store = self._known, {}, store
        for entry in document.providers:
            models = frozenset(model.name for model in entry.spec.models)
            known = before.get(entry.label)
            if known is None or known.identity != entry.identity:
                known = _Known(entry.identity, models)
                known.tallies[self._window] = known.counting
            known.models = models
            self._known[entry.label] = known

    def note(self, provider: str, failure: FailureKind | None, milliseconds: float) -> None:
        """Count an attempt that is over: None where it was answered, and how long the first content took."""
        known = self._known.get(provider)
        if known is None:
            return  # a request under way when its provider was taken out of the configuration
        tally = known.counting
        if failure is None or EVIDENCE[failure] is Evidence.WORKING:
            tally.answered += 1
            tally.milliseconds += milliseconds
        elif EVIDENCE[failure] is Evidence.BROKEN:
            tally.failures[failure] = tally.failures.get(failure, 0) + 1
        else:
            return
        tally.is_told = False

    def opened(self, provider: str, model: str) -> None:
        """A breaker opened here: tell the others. `model` is its configured name."""
        known = self._known.get(provider)
        if known is not None:
            known.opened[model] = self._clock()

    def start(self) -> None:
        """Begin to tell."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="provider reports")

    async def close(self) -> None:
        """Tell what is left, briefly, and stop. Call it while the store is still open."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_FLUSH_SECONDS):
                    await self.flush()

    async def _run(self) -> None:
        while True:
            spread = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads a fleet, guards nothing
            await asyncio.sleep(self._interval_seconds * spread)
            await self.flush()

    async def flush(self) -> None:
        """Tell what was counted, and hear what others told. One write for all providers; without a store, nothing."""
        now = self._clock()
        self._window = window_at(now)
        for known in self._known.values():
            _advance(known, self._window, now)
        store = self._store
        if store is None or not store.available:
            return
        concerned = [
            (label, known)
            for label, known in self._known.items()
            if known.opened or now - known.last_attempt_at < ACTIVE_SECONDS
        ]
        # Started together, they leave in one write: the store's connection collects what one turn of the loop sends.
        await asyncio.gather(*(self._tell(store, label, known, now) for label, known in concerned))

    async def _tell(self, store: Store, label: str, known: _Known, now: float) -> None:
        opening = window_at(now, length_seconds=OPENING_WINDOW_SECONDS)
        untold = {window: tally for window, tally in known.tallies.items() if not tally.is_told}
        models = list(known.opened)
        keys = [provider_openings(known.identity, opening), provider_openings(known.identity, opening - 1)]
        keys += [provider_reports(known.identity, window) for window in untold]
        arguments: list[str | int | bytes] = [self._reporter, REPORT_TTL_SECONDS, OPENING_TTL_SECONDS]
        arguments += [MAX_READ_MODELS, MAX_MODEL_BYTES, len(models), *models]
        arguments += [render_report(tally.report()) for tally in untold.values()]
        for tally in untold.values():
            tally.is_told = True  # what is counted from here on is told the next time
        try:
            reply = await store.run(_TELL, keys, arguments)
        except BaseException as error:
            # All that was counted in a window is told again: a report replaces the one before it.
            for tally in untold.values():
                tally.is_told = False
            if not isinstance(error, StoreUnavailable):
                raise
            return
        for model in models:
            known.opened.pop(model, None)
            known.heard[model, opening] = None
        self._hear(label, known, reply, opening)

    def _hear(self, label: str, known: _Known, reply: Reply, opening: int) -> None:
        found = reply if isinstance(reply, list) else []
        for models, window in zip(found, (opening, opening - 1), strict=False):
            for model in models if isinstance(models, list) else []:
                name = model.decode(errors="replace") if isinstance(model, bytes) else ""
                if name in known.models and (name, window) not in known.heard:
                    known.heard[name, window] = None
                    self._on_hint(label, name)
        for heard in [heard for heard in known.heard if heard[1] < opening - 1]:
            del known.heard[heard]


def _advance(known: _Known, window: int, now: float) -> None:
    """Count in the window that runs, and forget what nobody reads any more."""
    if not known.counting.is_told:
        known.last_attempt_at = now
    if window not in known.tallies:
        known.counting = known.tallies[window] = _Tally()
    for old in [old for old in known.tallies if not window - READ_WINDOWS < old <= window]:
        del known.tallies[old]
    for model in [model for model, at in known.opened.items() if now - at >= OPENING_WINDOW_SECONDS * 2]:
        del known.opened[model]  # the store was away: it is no news any more
