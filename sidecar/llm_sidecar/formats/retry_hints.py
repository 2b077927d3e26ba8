"""When a provider wants to be asked again: `retry-after` in its spellings, and the resets of rate limits.

What a header says is believed only where it can be true: no negative or endless time, no date that has passed, and
nothing beyond a day.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

MAX_HINT_SECONDS: Final = 86_400.0
"""Longer is as good as never to a request that is waiting; a bound keeps what follows from odd numbers."""

_UNIT_SECONDS: Final[Mapping[str, float]] = MappingProxyType(
    {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
)
_PART: Final = re.compile(r"(\d{1,15}(?:\.\d{0,15})?)(ns|us|µs|ms|s|m|h|d)", re.ASCII)
_NUMBER: Final = re.compile(r"\d{1,15}(?:\.\d{0,15})?", re.ASCII)
_MAX_CHARACTERS: Final = 64
_TRY_AGAIN: Final = re.compile(r"\btry again in ((?:\d{1,9}(?:\.\d{1,9})?(?:ms|s|m|h|d)){1,4})", re.ASCII)

Headers = Iterable[tuple[str, str]]


def sane(seconds: float) -> float | None:
    """`seconds` within bounds; None where it is no time to wait."""
    if not math.isfinite(seconds) or seconds < 0:
        return None
    return min(seconds, MAX_HINT_SECONDS)


def duration_seconds(text: str) -> float | None:
    """`20ms`, `6m0s`, `1h2m3.5s`, or a bare number of seconds."""
    text = text.strip()
    if len(text) > _MAX_CHARACTERS:
        return None
    if _NUMBER.fullmatch(text):
        return sane(float(text))
    total, end = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != end:
            return None
        total += float(part[1]) * _UNIT_SECONDS[part[2]]
        end = part.end()
    return sane(total) if text and end == len(text) else None


def hint_in_message(message: str) -> float | None:
    """OpenAI writes "Please try again in 1.2s" where it sends no header."""
    found = _TRY_AGAIN.search(message)
    return duration_seconds(found[1]) if found else None


class RetryHeaders:
    """The headers of one error answer, read for hints. `now_seconds` is the time since 1970 by our own clock."""

    def __init__(self, headers: Headers, *, now_seconds: float) -> None:
        self._values: dict[str, str] = {}
        for name, value in headers:
            self._values.setdefault(name.lower(), value.strip())
        # A date means a time by the clock of the one who wrote it; ours may differ.
        told = _http_date(self._values.get("date", ""))
        self._now_seconds = now_seconds if told is None else told

    def retry_after_seconds(self) -> float | None:
        """`retry-after-ms`, else `retry-after` as seconds or as a date."""
        milliseconds = self._values.get("retry-after-ms", "")
        if _NUMBER.fullmatch(milliseconds):
            return sane(float(milliseconds) / 1000)
        value = self._values.get("retry-after", "")
        seconds = duration_seconds(value)
        return seconds if seconds is not None else self._until(_http_date(value))

    def openai_reset_seconds(self) -> float | None:
        """`x-ratelimit-reset-*` of the limits that are used up; Azure's `remaining: -1, reset: 0` means nothing."""
        return _longest(
            duration_seconds(value)
            for limit, value in self._ended_by("x-ratelimit-reset-")
            if self._values.get(f"x-ratelimit-remaining-{limit}") == "0"
        )

    def anthropic_reset_seconds(self) -> float | None:
        """`anthropic-ratelimit-*-reset` of the limits that are used up."""
        prefix, suffix = "anthropic-ratelimit-", "-reset"
        return _longest(
            self._until(_rfc3339(value))
            for name, value in self._ended_by(prefix)
            if name.endswith(suffix) and self._values.get(prefix + name.removesuffix(suffix) + "-remaining") == "0"
        )

    def _ended_by(self, prefix: str) -> Iterable[tuple[str, str]]:
        return [(name.removeprefix(prefix), value) for name, value in self._values.items() if name.startswith(prefix)]

    def _until(self, moment_seconds: float | None) -> float | None:
        return None if moment_seconds is None else sane(moment_seconds - self._now_seconds)


def _longest(waits: Iterable[float | None]) -> float | None:
    """All limits must let us through again; a reset of zero tells nothing about one that is used up."""
    return max((wait for wait in waits if wait), default=None)


def _http_date(text: str) -> float | None:
    if not text or len(text) > _MAX_CHARACTERS:
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return _seconds(moment)


def _rfc3339(text: str) -> float | None:
    if len(text) > _MAX_CHARACTERS:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return _seconds(moment)


def _seconds(moment: datetime) -> float | None:
    try:
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except OverflowError:
        return None
