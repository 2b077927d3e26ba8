"""Why a request was not let in. The proxy turns these facts into the error of the API that was called."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.quota_counters import LimitUnit
from llm_sidecar.contract.windows import Per
from llm_sidecar.quota.limits import QuotaLimit
from llm_sidecar.store import Reason

if TYPE_CHECKING:
    from llm_sidecar.quota.demand import Demand

_HOLDS_SETTLE_MS: Final = 1000
"""Where only holds are in the way, room comes back as soon as running requests end: a guess, for `retry-after`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRefusal:
    """The limit that refused a request, and its figures at that moment, in the limit's unit (cost: nano-USD)."""

    limit_name: str
    unit: LimitUnit
    per: Per | None
    limit: int
    used: int
    reserved: int
    requested: int
    resets_at_ms: int | None
    """None: the limit has no window."""
    retry_after_ms: int
    never_fits: bool
    fitting_output_tokens: int | None = None
    """Of a request that never fits: the largest cap of each of its answers with which it would, into all limits."""
    can_downgrade: bool = False
    """A cheaper model may answer instead."""


class QuotaExceeded(Exception):
    """A limit has no room for this request. Its `refusal` says which, by how much, and until when."""

    def __init__(self, refusal: QuotaRefusal) -> None:
        super().__init__(f"limit {refusal.limit_name} of {refusal.limit} {refusal.unit} has no room")
        self.refusal = refusal


class QuotaStoreUnavailable(Exception):
    """The team's quota cannot be counted now, and its policy is to refuse requests then."""

    def __init__(self, reason: Reason, *, lacking: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.lacking = lacking
        """Under `LocalShare`, why this sidecar's own share does not do."""


@dataclass(slots=True, kw_only=True)
class LimitState:
    """What the store told of one limit, without the request itself."""

    limit: QuotaLimit
    counter: str
    requested: int
    used: int
    reserved: int
    credit: int = 0
    resets_at_ms: int

    @property
    def maximum(self) -> int:
        """The limit, with what was granted on top."""
        return self.limit.maximum + self.credit

    @property
    def remaining(self) -> int:
        """What this request leaves, if it is let in."""
        return max(0, self.maximum - self.used - self.reserved - self.requested)

    @property
    def has_room(self) -> bool:
        """True where the request fits."""
        return self.used + self.reserved + self.requested <= self.maximum

    @property
    def level_percent(self) -> float:
        """Used and reserved, of the limit."""
        return 100 * (self.used + self.reserved) / max(1, self.maximum)

    def refusal(self, *, now_ms: int, demand: Demand) -> QuotaRefusal | None:
        """The facts, if this limit has no room."""
        if self.has_room or self.limit.is_shadow:
            return None
        until_reset_ms = max(1, self.resets_at_ms - now_ms)
        only_holds_are_in_the_way = self.used + self.requested <= self.maximum
        never_fits = self.requested > self.maximum
        return QuotaRefusal(
            limit_name=self.limit.name,
            unit=self.limit.unit,
            per=self.limit.per,
            limit=self.maximum,
            used=self.used,
            reserved=self.reserved,
            requested=self.requested,
            resets_at_ms=None if self.limit.per is None else self.resets_at_ms,
            retry_after_ms=min(until_reset_ms, _HOLDS_SETTLE_MS) if only_holds_are_in_the_way else until_reset_ms,
            never_fits=never_fits,
            fitting_output_tokens=demand.fitting_output_tokens(self.limit, self.maximum) if never_fits else None,
            can_downgrade=self.limit.downgrade_at_percent is not None,
        )


def tightest_refusal(states: Iterable[LimitState], *, now_ms: int, demand: Demand) -> QuotaRefusal | None:
    """Of the limits that refuse, the one to tell: one that can never be met, else the one to wait for longest.

    Of several that can never be met, the one that leaves the least output: a cap that fits it fits them all.
    """
    refusals = [refusal for state in states if (refusal := state.refusal(now_ms=now_ms, demand=demand)) is not None]
    return max(
        refusals,
        key=lambda refusal: (
            refusal.never_fits,
            -(refusal.fitting_output_tokens or 0) if refusal.never_fits else refusal.retry_after_ms,
        ),
        default=None,
    )


def tightest_remaining(states: Iterable[LimitState]) -> str | None:
    """`NAME=remaining` of the limit that is nearest to its end, by its share; of those that refuse anything."""
    tightest, least_share, least = None, math.inf, 0
    for state in states:
        if state.limit.is_shadow:
            continue
        remaining = state.remaining
        share = remaining / max(1, state.maximum)
        if share < least_share:
            tightest, least_share, least = state.limit, share, remaining
    return None if tightest is None else f"{tightest.name}={shown(tightest.unit, least)}"


def shown(unit: LimitUnit, amount: int) -> str:
    """An amount for people: cost in US dollars, all else as a number."""
    if unit is not LimitUnit.COST:
        return str(amount)
    dollars, nano = divmod(amount, 10**9)
    return f"{dollars}.{nano:09d}".rstrip("0").rstrip(".")
