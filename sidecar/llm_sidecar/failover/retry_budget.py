"""How much may be tried again at one provider: a bounded share of its requests, over all of them.

Without it, each request's own few attempts multiply the load on a provider at the very time when it has too much.
One owner of retries: what the application's SDK already tries again is recognised, and not multiplied.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from llm_sidecar.failover.backoff import RetryPolicy, pause_seconds
from llm_sidecar.failover.failures import Decision, Failure
from llm_sidecar.failover.routes import Draw

Clock = Callable[[], float]
"""Seconds that only grow (`time.monotonic`)."""

SDK_RETRY_HEADER: Final = "x-stainless-retry-count"
"""Sent by OpenAI's and Anthropic's SDKs with every request: 0, 1, 2…"""


def sdk_retry_count(headers: Mapping[str, str]) -> int:
    """How often the application's SDK has tried this request before; 0 where it does not say."""
    value = headers.get(SDK_RETRY_HEADER, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 4 else 0


@dataclass(frozen=True, slots=True)
class RetryShare:
    """How many retries are granted: in any span of time no more than `burst + share * requests + floor * seconds`."""

    per_request: float = 0.2
    """Finagle's and Envoy's default: a fifth more load, at worst."""
    floor_per_second: float = 0.5
    """A pod that sends a request a minute may retry it, too."""
    burst: float = 10.0


class RetryBudget:
    """The budget of one provider in this process: a token bucket that requests and time fill."""

    def __init__(self, share: RetryShare = RetryShare(), *, clock: Clock = time.monotonic) -> None:
        self._share = share
        self._clock = clock
        self._tokens = share.burst
        self._filled_at = clock()

    def request_began(self, *, sdk_retries: int = 0) -> None:
        """Count a request, before its first attempt here. One that an SDK repeats has been counted before."""
        if sdk_retries == 0 and self._tokens < self._share.burst:
            self._add(self._share.per_request)

    def take(self) -> bool:
        """Take one retry, if there is one left."""
        now = self._clock()
        self._add((now - self._filled_at) * self._share.floor_per_second)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def _add(self, tokens: float) -> None:
        self._tokens = min(self._share.burst, self._tokens + tokens)


class LocalRetries:
    """What one request may still do at one provider. Make one when its first attempt there has failed."""

    def __init__(self, policy: RetryPolicy, budget: RetryBudget, *, sdk_retries: int, draw: Draw) -> None:
        self._policy = policy
        self._budget = budget
        self._draw = draw
        # An SDK that tries again multiplies with us: it gets one attempt here, and asks anew if it wants another.
        self._left = policy.max_attempts - 1 if sdk_retries == 0 else 0
        self._done = 0

    def pause_seconds(self, failure: Failure, *, others_left: bool) -> float | None:
        """How long to wait before the next attempt here; None where there is none: go elsewhere, or give up."""
        decision = failure.decision(others_left=others_left, retry_on_timeout=self._policy.on_timeout)
        if decision is not Decision.RETRY_HERE or self._left <= 0:
            return None
        pause = pause_seconds(self._policy, retry=self._done, hint_seconds=failure.retry_after_seconds, draw=self._draw)
        if pause is None or not self._budget.take():
            return None
        self._left -= 1
        self._done += 1
        return pause
