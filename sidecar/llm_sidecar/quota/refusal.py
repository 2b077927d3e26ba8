"""Why a request was not let in. The proxy turns these facts into the error of the API that was called."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from llm_sidecar.contract.windows import Per
from llm_sidecar.quota.limits import LimitUnit, QuotaLimit
from llm_sidecar.store import Reason

_HOLDS_SETTLE_MS: Final = 1000
"""Where only holds are in the way, room comes back as soon as running requests end: a guess, for `retry-after`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRefusal:
    """The limit that refused a request, and its figures at that moment."""

    limit_name: str
    unit: LimitUnit
    per: Per
    limit: int
    used: int
    reserved: int
    requested: int
    resets_at_ms: int
    retry_after_ms: int
    never_fits: bool


class QuotaExceeded(Exception):
    """A limit has no room for this request. Its `refusal` says which, by how much, and until when."""

    def __init__(self, refusal: QuotaRefusal) -> None:
        super().__init__(f"limit {refusal.limit_name} of {refusal.limit} {refusal.unit} per {refusal.per} has no room")
        self.refusal = refusal


class QuotaStoreUnavailable(Exception):
    """The team's quota cannot be counted now, and its policy is to refuse requests then."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitState:
    """What the store told of one limit, before the request itself."""

    limit: QuotaLimit
    counter: str
    requested: int
    used: int
    reserved: int
    resets_at_ms: int

    @property
    def remaining(self) -> int:
        """What this request leaves, if it is let in."""
        return max(0, self.limit.maximum - self.used - self.reserved - self.requested)

    def refusal(self, *, now_ms: int) -> QuotaRefusal | None:
        """The facts, if this limit has no room."""
        if self.used + self.reserved + self.requested <= self.limit.maximum:
            return None
        until_reset_ms = max(1, self.resets_at_ms - now_ms)
        only_holds_are_in_the_way = self.used + self.requested <= self.limit.maximum
        return QuotaRefusal(
            limit_name=self.limit.name,
            unit=self.limit.unit,
            per=self.limit.per,
            limit=self.limit.maximum,
            used=self.used,
            reserved=self.reserved,
            requested=self.requested,
            resets_at_ms=self.resets_at_ms,
            retry_after_ms=min(until_reset_ms, _HOLDS_SETTLE_MS) if only_holds_are_in_the_way else until_reset_ms,
            never_fits=self.requested > self.limit.maximum,
        )


def tightest_refusal(states: Iterable[LimitState], *, now_ms: int) -> QuotaRefusal | None:
    """Of the limits that refuse, the one to tell: one that can never be met, else the one to wait for longest."""
    refusals = [refusal for state in states if (refusal := state.refusal(now_ms=now_ms)) is not None]
    return max(refusals, key=lambda refusal: (refusal.never_fits, refusal.retry_after_ms), default=None)


def tightest_remaining(states: Iterable[LimitState]) -> str | None:
    """`NAME=remaining` of the limit that is nearest to its end, by its share."""
    tightest = min(states, key=lambda state: state.remaining / state.limit.maximum, default=None)
    return None if tightest is None else f"{tightest.limit.name}={tightest.remaining}"
