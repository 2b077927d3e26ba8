"""The one circuit breaker around the store: what failed thrice in a row is not waited for again until it recovered.

pybreaker keeps the state; its own calls know nothing of asyncio, so outcomes are reported to it afterwards.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from llm_sidecar.plain_pybreaker import pybreaker
from llm_sidecar.store import Reason, StoreUnavailable

OnChange = Callable[[bool, Reason | None], None]
"""Called with whether the store is available from now on, and the reason where it is not."""

_FOREVER_SECONDS: Final = 10.0**8
"""pybreaker's own clock is the wall's, which may jump: it never ends an open state, we do."""


class StoreBreaker:
    """Closed: calls pass. Open: they fail at once, until one probe succeeded."""

    def __init__(self, *, failure_threshold: int, on_change: OnChange | None) -> None:
        self.reason: Reason = "connection"
        self._failing = False
        self.ever_succeeded = False
        """Nothing speaks against a store that was not asked yet, and nothing for it."""
        self._on_change = on_change
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=failure_threshold,
            reset_timeout=_FOREVER_SECONDS,
            state_storage=pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED),
            listeners=[_Listener(self._state_changed)],
            throw_new_error_on_trip=False,
        )
        self._announced = True
        self.closed = True

    def succeeded(self) -> None:
        """Report a call that worked; free of cost while all do."""
        if self._failing or not self.ever_succeeded:
            self._failing, self.ever_succeeded = False, True
            if self._breaker.current_state == pybreaker.STATE_OPEN:
                self._breaker.half_open()
            self._breaker.call(_nothing)

    def failed(self, reason: Reason) -> None:
        """Report a failure. A store that never answered is away from its first failure on."""
        self._failing, self.reason = True, reason
        if self._breaker.current_state == pybreaker.STATE_OPEN:
            return
        if not self.ever_succeeded:
            self._breaker.open()
            return
        with suppress(StoreUnavailable):
            self._breaker.call(_fail, reason)

    def begin_probe(self) -> None:
        """Let the one probe begin: still closed to callers."""
        if self._breaker.current_state == pybreaker.STATE_OPEN:
            self._breaker.half_open()

    def _state_changed(self, state: str) -> None:
        self.closed = state == pybreaker.STATE_CLOSED
        # Half open is an open breaker to everybody but the probe: nobody needs to hear of it.
        if state != pybreaker.STATE_HALF_OPEN and self.closed != self._announced:
            self._announced = self.closed
            if self._on_change is not None:
                self._on_change(self.closed, None if self.closed else self.reason)


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, on_state: Callable[[str], None]) -> None:
        self._on_state = on_state

    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:  # noqa: ARG002
        self._on_state(new_state.name)


def _nothing() -> None:
    return None


def _fail(reason: Reason) -> None:
    raise StoreUnavailable(reason)
