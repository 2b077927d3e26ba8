"""What a proxy tells the controller about a provider, through Redis: counts of one short window. Pure.

Whoever can write to the Redis can write such a report. So a reader takes nothing in it for granted but its shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

WINDOW_SECONDS: Final = 30
READ_WINDOWS: Final = 3
"""The window that runs, and the two before it: what happened in the last 60 to 90 seconds."""
REPORT_TTL_SECONDS: Final = 180
"""Long enough for clocks that differ, short enough to leave nothing behind."""
MAX_REPORT_BYTES: Final = 512
MAX_REPORTER_CHARACTERS: Final = 64

OPENING_WINDOW_SECONDS: Final = 10
OPENING_TTL_SECONDS: Final = 60

FAILURE_WORDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "overloaded": "overload",
        "timeout": "time-outs",
        "connection": "no connection",
        "disconnected": "broken connections",
        "server": "server errors",
        "garbled_answer": "garbled answers",
        "interrupted": "interrupted streams",
    }
)
"""Failures that speak against a provider, as people say them. Others are about limits, keys or requests."""

_MAX_COUNT: Final = 2**53


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderReport:
    """One proxy, one provider, one window."""

    answered: int
    """Attempts that the provider answered, if only to say that the request is wrong."""
    answered_milliseconds: int
    """How long those took to their first content, together."""
    failures: Mapping[str, int] = field(default_factory=dict)
    """Attempts that failed, by a word of `FAILURE_WORDS`."""

    @property
    def failed(self) -> int:
        """All of them."""
        return sum(self.failures.values())

    @property
    def attempts(self) -> int:
        """Attempts that say something about the provider's health."""
        return self.answered + self.failed


def window_at(seconds: float, *, length_seconds: int = WINDOW_SECONDS) -> int:
    """The number of the window at a wall clock's time."""
    return int(seconds // length_seconds)


def render_report(report: ProviderReport) -> bytes:
    """As it is stored."""
    document = {"a": report.answered, "ms": report.answered_milliseconds, "f": dict(report.failures)}
    return json.dumps(document, separators=(",", ":")).encode()


def parse_report(raw: bytes) -> ProviderReport | None:
    """Read one; None for what is none. Unknown fields and words are left out: a newer proxy may tell more."""
    if len(raw) > MAX_REPORT_BYTES:
        return None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict):
        return None
    answered, milliseconds, failures = _count(document.get("a")), _count(document.get("ms")), document.get("f")
    if answered is None or milliseconds is None or not isinstance(failures, dict):
        return None
    counted = {word: _count(failures[word]) for word in FAILURE_WORDS if word in failures}
    known = {word: count for word, count in counted.items() if count is not None}
    return ProviderReport(answered=answered, answered_milliseconds=milliseconds, failures=known)


def _count(value: Any) -> int | None:
    # True is an int, and a huge number would count for more than a fleet.
    return value if type(value) is int and 0 <= value <= _MAX_COUNT else None
