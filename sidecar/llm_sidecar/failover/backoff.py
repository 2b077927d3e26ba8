"""How long to wait before the same provider is asked again: full jitter, never earlier than it wants. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llm_sidecar.failover.routes import Draw


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """An LLMProvider's `retry`."""

    max_attempts: int = 3
    initial_backoff_seconds: float = 0.25
    max_backoff_seconds: float = 8.0
    on_timeout: bool = False


def pause_seconds(policy: RetryPolicy, *, retry: int, hint_seconds: float | None, draw: Draw) -> float | None:
    """The wait before retry number `retry` (the first is 0); None where the provider wants a longer one.

    Between 0 and the bound that doubles each time, so that many who failed together do not come back together; a
    hint moves that whole span, for the same reason.
    """
    hint = hint_seconds or 0.0
    if hint > policy.max_backoff_seconds:
        return None
    # 2**64 of anything is over every bound, and a float all the same.
    bound = min(policy.max_backoff_seconds, policy.initial_backoff_seconds * 2.0 ** min(retry, 64))
    return min(hint + draw() * bound, policy.max_backoff_seconds)
