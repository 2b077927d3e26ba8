"""Which outcomes speak against a provider, and how fast its traffic comes back after it recovered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from llm_sidecar.formats.told_error import FailureKind


class Evidence(StrEnum):
    """What a failed attempt says about the provider's health."""

    BROKEN = "broken"
    WORKING = "working"
    """It answered, if only to say that the request is wrong."""
    NONE = "none"
    """About limits, keys or addresses, not about health."""


EVIDENCE: Final[Mapping[FailureKind, Evidence]] = MappingProxyType(
    {
        FailureKind.RATE_LIMITED: Evidence.NONE,
        FailureKind.QUOTA_EXHAUSTED: Evidence.NONE,
        FailureKind.OVERLOADED: Evidence.BROKEN,
        FailureKind.AUTHENTICATION: Evidence.NONE,
        FailureKind.INVALID_REQUEST: Evidence.WORKING,
        FailureKind.TOO_LONG: Evidence.WORKING,
        FailureKind.CONTENT_POLICY: Evidence.WORKING,
        FailureKind.NOT_FOUND: Evidence.WORKING,
        FailureKind.TIMEOUT: Evidence.BROKEN,
        FailureKind.CONNECTION: Evidence.BROKEN,
        FailureKind.DISCONNECTED: Evidence.BROKEN,
        FailureKind.SERVER: Evidence.BROKEN,
        FailureKind.GARBLED_ANSWER: Evidence.BROKEN,
        FailureKind.REDIRECTED: Evidence.NONE,
        FailureKind.INTERRUPTED: Evidence.BROKEN,
    }
)


class CircuitState(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class NotAdmitted(StrEnum):
    """Why a request may not go to a provider now: the reason under which its candidate is skipped."""

    OPEN = "circuit_open"
    PROBING = "circuit_probing"
    """One request is finding out whether it works again."""
    RECOVERING = "circuit_recovering"
    """It works again, and gets its traffic back bit by bit. Never a reason to answer nobody: see `admit`."""


@dataclass(frozen=True, slots=True)
class CircuitSettings:
    """An LLMProvider's `circuitBreaker`."""

    failure_threshold: int = 5
    """So many failures in a row open it."""
    open_seconds: float = 30.0
    slow_start_seconds: float = 10.0
    """A provider that was away for a while, with cold caches and few machines, is not hit by everybody at once."""


_FIRST_SHARE: Final = 0.1


def share_of_traffic(settings: CircuitSettings, *, since_recovery_seconds: float) -> float:
    """The part of its requests that a recovered provider gets: from a tenth to all of them."""
    if since_recovery_seconds >= settings.slow_start_seconds:
        return 1.0
    return _FIRST_SHARE + (1 - _FIRST_SHARE) * max(0.0, since_recovery_seconds) / settings.slow_start_seconds
