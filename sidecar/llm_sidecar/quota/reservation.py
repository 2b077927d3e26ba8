"""A request that was let in, and what is known of its place in each limit."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llm_sidecar.quota.demand import Demand, Hold
    from llm_sidecar.quota.limits import QuotaLimit
    from llm_sidecar.quota.settlement import SettleMode

UsageSource = Literal["measured", "estimated", "partial"]


@dataclass(slots=True, kw_only=True, eq=False)
class Reservation:
    """A request that was let in. Made, and changed, by `Quota` alone."""

    request_id: str
    demand: Demand
    mode: SettleMode
    """How it is settled: by what is certain of its record in the store."""
    counters: tuple[tuple[QuotaLimit, str], ...] = ()
    """Where it holds something."""
    remaining: str | None = None
    """The tightest limit as `NAME=remaining`; None where nothing is known."""
    shadow_refused: tuple[str, ...] = ()
    """Limits that only watch, and would have refused it."""
    local_holds: dict[str, Hold] = field(default_factory=dict)
    """Of a request that was let in by this sidecar's own share: what it holds there, by counter."""

    @property
    def backed(self) -> bool:
        """False where the store could not be asked."""
        return self.mode != "unbacked"
