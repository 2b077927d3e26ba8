"""A circuit breaker for each provider and model. pybreaker keeps the state; this tells it what awaited calls came to.

pybreaker knows nothing of asyncio: handed a coroutine function it never sees a failure, and half open it lets
everybody through. So a request asks for a permit, is sent outside, and its outcome is reported afterwards.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Self

from llm_sidecar.failover.circuit import (
    EVIDENCE,
    CircuitSettings,
    CircuitState,
    Evidence,
    NotAdmitted,
    share_of_traffic,
)
from llm_sidecar.failover.routes import Draw
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.plain_pybreaker import pybreaker

Clock = Callable[[], float]
"""Seconds that only grow (`time.monotonic`)."""

OnState = Callable[[str, str, CircuitState], None]
"""Called with provider, model and new state at each change."""

_FOREVER_SECONDS: Final = 10.0**8
"""pybreaker's own clock is the wall's, which may jump: it never ends an open state, we do."""
_STATES: Final = {
    pybreaker.STATE_CLOSED: CircuitState.CLOSED,
    pybreaker.STATE_OPEN: CircuitState.OPEN,
    pybreaker.STATE_HALF_OPEN: CircuitState.HALF_OPEN,
}


class _Failed(Exception):
    """What pybreaker is told a failed attempt by."""


class CircuitBreaker:
    """The breaker of one provider and model."""

    def __init__(
        self,
        settings: CircuitSettings,
        *,
        on_state: Callable[[CircuitState], None],
        clock: Clock = time.monotonic,
        draw: Draw = random.random,
    ) -> None:
        self.settings = settings
        self._on_state = on_state
        self._clock = clock
        self._draw = draw
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=settings.failure_threshold,
            reset_timeout=_FOREVER_SECONDS,
            state_storage=pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED),
            listeners=[_Listener(self._state_changed)],
            throw_new_error_on_trip=False,
        )
        self.state = CircuitState.CLOSED
        self._half_open_at = 0.0
        self._probe: Permit | None = None
        self._probe_began = 0.0
        self._recovered_at: float | None = None
        self._answered_at: float | None = None
        self._has_failed = False
        """Since its last answer: pybreaker counts how often, but asking it takes three calls."""
        self._was_open = False
        """What a mere hint made half open has lost no traffic that should come back slowly."""
        self._era = 0
        """Counts changes of state: an outcome from before one says nothing about what came after."""

    def admit(self, *, gently: bool = True) -> Permit | NotAdmitted:
        """A permit for one attempt, to be used as a context manager; or why there is none.

        `gently` lets a recovered provider's traffic grow slowly. Where nobody else is left to ask, say False.
        """
        now = self._clock()
        if self.state is CircuitState.CLOSED:
            if gently and self._recovered_at is not None and not self._draws_recovered(now - self._recovered_at):
                return NotAdmitted.RECOVERING
            return Permit(self, self._era)
        if self.state is CircuitState.OPEN:
            if now < self._half_open_at:
                return NotAdmitted.OPEN
            self._breaker.half_open()
        # A probe that hangs must not keep a provider shut which has recovered since: another takes its place.
        if self._probe is not None and now - self._probe_began < self.settings.open_seconds:
            return NotAdmitted.PROBING
        self._probe, self._probe_began = Permit(self, self._era), now
        return self._probe

    def _draws_recovered(self, since_seconds: float) -> bool:
        share = share_of_traffic(self.settings, since_recovery_seconds=since_seconds)
        if share >= 1:
            self._recovered_at = None
        return self._draw() < share

    def configure(self, settings: CircuitSettings) -> None:
        """Go on under other settings; a time that has begun to run is kept."""
        self.settings = settings
        self._breaker.fail_max = settings.failure_threshold

    @property
    def probe_in_seconds(self) -> float:
        """When the next probe may go, from now; 0 unless open. For `retry-after` where nobody else is left."""
        return max(0.0, self._half_open_at - self._clock()) if self.state is CircuitState.OPEN else 0.0

    @property
    def is_shut(self) -> bool:
        """True where `admit` would let nobody in for now. Asks for no permit, and changes nothing."""
        if self.state is CircuitState.CLOSED:
            return False
        now = self._clock()
        if self.state is CircuitState.OPEN:
            return now < self._half_open_at
        return self._probe is not None and now - self._probe_began < self.settings.open_seconds

    def hint_failing(self) -> None:
        """Somebody else's breaker opened: let one request find out, unless an answer of our own says better.

        Never more than that: one pod that lies, or has a broken network, must not shut a provider for all.
        """
        now = self._clock()
        known = self._answered_at is not None and now - self._answered_at < self.settings.open_seconds
        if self.state is CircuitState.CLOSED and not known:
            self._breaker.half_open()

    def _report(self, permit: Permit, evidence: Evidence) -> None:
        """Take an outcome. Nothing is told twice: see `Permit`."""
        if permit.era != self._era:
            return  # from before the state changed: neither opens nor closes what came after
        is_replaced = self.state is CircuitState.HALF_OPEN and permit is not self._probe
        if permit is self._probe:
            self._probe = None
        if evidence is Evidence.WORKING:
            self._answered_at = self._clock()
            if self._has_failed or self.state is CircuitState.HALF_OPEN:
                self._has_failed = False
                self._breaker.call(_nothing)
        elif evidence is Evidence.BROKEN and not is_replaced:
            self._has_failed = True
            with suppress(_Failed):
                self._breaker.call(_fail)

    def _state_changed(self, state: str) -> None:
        before, self.state = self.state, _STATES[state]
        self._era += 1
        self._probe = None
        now = self._clock()
        if self.state is CircuitState.OPEN:
            self._half_open_at = now + self.settings.open_seconds
            self._answered_at = None
            self._recovered_at = None
            self._was_open = True
        elif self.state is CircuitState.CLOSED and before is CircuitState.HALF_OPEN and self._was_open:
            self._recovered_at = now
            self._was_open = False
        self._on_state(self.state)


class Permit:
    """Leave for one attempt. Left without an outcome (the client hung up), it counts as if it had never been."""

    __slots__ = ("_breaker", "_reported", "era")

    def __init__(self, breaker: CircuitBreaker, era: int) -> None:
        self._breaker = breaker
        self.era = era
        self._reported = False

    def committed(self) -> None:
        """The first content is there. A probe has found out what it was for, long before its stream ends."""
        if self is self._breaker._probe:  # noqa: SLF001 - the two are one thing in two classes
            self._breaker._report(self, Evidence.WORKING)  # noqa: SLF001 - as above
            self.era = self._breaker._era  # noqa: SLF001 - what becomes of the rest counts like any other's

    def succeeded(self) -> None:
        """The answer is there whole."""
        if not self._reported:
            self._reported = True
            self._breaker._report(self, Evidence.WORKING)  # noqa: SLF001 - as above; every request comes by here

    def failed(self, kind: FailureKind) -> None:
        """The attempt failed, before its first content or after."""
        self._report(EVIDENCE[kind])

    def abandoned(self) -> None:
        """It came to nothing, for no reason of the provider's: the application hung up, or a defect of ours."""
        self._report(Evidence.NONE)

    def _report(self, evidence: Evidence) -> None:
        if not self._reported:
            self._reported = True
            self._breaker._report(self, evidence)  # noqa: SLF001 - as above

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._report(Evidence.NONE)


class CircuitBreakers:
    """All breakers of this process, by provider and model. They outlive configurations: a reload heals nobody."""

    def __init__(self, *, on_state: OnState, clock: Clock = time.monotonic, draw: Draw = random.random) -> None:
        self._on_state = on_state
        self._clock = clock
        self._draw = draw
        self._breakers: dict[tuple[str, str], CircuitBreaker] = {}

    def of(self, provider: str, model: str, *, settings: CircuitSettings) -> CircuitBreaker:
        """The breaker for a provider and a configured model's name. Other settings than before take effect at once."""
        found = self._breakers.get((provider, model))
        if found is None:
            found = CircuitBreaker(
                settings,
                on_state=lambda state: self._on_state(provider, model, state),
                clock=self._clock,
                draw=self._draw,
            )
            self._breakers[provider, model] = found
            self._on_state(provider, model, found.state)
        elif found.settings is not settings and found.settings != settings:
            found.configure(settings)
        return found

    def is_shut(self, provider: str, model: str) -> bool:
        """True where nobody would be let in for now: see `CircuitBreaker.is_shut`."""
        found = self._breakers.get((provider, model))
        return found is not None and found.is_shut

    def hint_failing(self, provider: str, model: str) -> None:
        """Somebody else's breaker for these opened: see `CircuitBreaker.hint_failing`. Unused ones need no hint."""
        found = self._breakers.get((provider, model))
        if found is not None:
            found.hint_failing()

    def keep(self, wanted: Collection[tuple[str, str]]) -> list[tuple[str, str]]:
        """Forget all others after a reload. Returns those forgotten, for metrics to drop their series."""
        forgotten = [key for key in self._breakers if key not in wanted]
        for key in forgotten:
            del self._breakers[key]
        return forgotten


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, on_state: Callable[[str], None]) -> None:
        self._on_state = on_state

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:  # noqa: ARG002
        self._on_state(new_state.name)


def _nothing() -> None:
    return None


def _fail() -> None:
    raise _Failed
