"""Memory for bodies in flight: one bound over all requests together, since one pod's limit is shared by them all."""

from __future__ import annotations

from llm_sidecar.errors import Overloaded

MAX_BODY_BYTES = 32 * 1024 * 1024
"""`maxBodyBytes`: the largest request of the three APIs (Anthropic's own bound) fits."""
MAX_BUFFERED_BYTES = 64 * 1024 * 1024
"""`maxBufferedBytes`: requests and answers that are held, over all requests."""


class BufferBudget:
    """Counts bytes that are held."""

    def __init__(self, limit_bytes: int = MAX_BUFFERED_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0

    def hold(self) -> Held:
        """A holder for one request. Release it in the end."""
        return Held(self)


class Held:
    """What one request holds."""

    __slots__ = ("_budget", "held_bytes")

    def __init__(self, budget: BufferBudget) -> None:
        self._budget = budget
        self.held_bytes = 0

    @property
    def limit_bytes(self) -> int:
        """What all requests may hold together: more than that no request can ever hold."""
        return self._budget.limit_bytes

    def take(self, size_bytes: int) -> None:
        """Hold that much more. Raises `Overloaded`."""
        budget = self._budget
        if budget.held_bytes + size_bytes > budget.limit_bytes:
            raise Overloaded(
                "the sidecar holds as many bytes of requests and answers as it may (maxBufferedBytes): "
                "send this again in a moment, or fewer large requests at once",
                retry_after_milliseconds=1000,
            )
        budget.held_bytes += size_bytes
        self.held_bytes += size_bytes

    def give_back(self, size_bytes: int) -> None:
        """Hold that much less."""
        self._budget.held_bytes -= size_bytes
        self.held_bytes -= size_bytes

    def beside(self) -> Held:
        """A further holder on the same budget, for what outlives this one."""
        return Held(self._budget)

    def release(self) -> None:
        """Hold nothing any more. May be called twice."""
        self._budget.held_bytes -= self.held_bytes
        self.held_bytes = 0
