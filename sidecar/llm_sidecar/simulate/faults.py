"""The grammar of faults: one for the header, the flag and the path prefix, so what is learnt once works everywhere.

`name=value,name=value`. Nothing here touches a socket: `delivery` carries it out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

FAULT_HEADER: Final = "x-llm-simulate"
FAULT_PATH: Final = "/fault/"

STATUSES: Final = (400, 401, 402, 403, 404, 408, 413, 429, 500, 502, 503, 504, 529)
REDIRECTS: Final = (301, 302, 303, 307, 308)

_MAXIMUM_TRACKED_SPECS: Final = 4096
_MAXIMUM_BYTES: Final = 256 * 1024 * 1024
_MAXIMUM_MILLISECONDS: Final = 24 * 3600 * 1000
_MAXIMUM_SECONDS: Final = 365 * 24 * 3600
_MAXIMUM_COUNT: Final = 1_000_000
_MAXIMUM_DIGITS: Final = 12


class FaultSpecError(ValueError):
    """Met when a fault specification cannot be read; the message names the part."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What shall go wrong, or differ, for one request."""

    latency_ms: int = 0
    """Wait before the first byte of the answer."""
    first_token_ms: int = 0
    """Wait between a stream's opening events and its first content."""
    chunk_interval_ms: int = 0
    """Wait before each further content event."""
    chunks: int | None = None
    """Number of content pieces of a stream; the answer grows when it is shorter than that."""
    answer_bytes: int | None = None
    """Least size of the answer's text."""
    usage: str | None = None
    """`none`: tell no usage, as many self-hosted servers do."""
    cached_tokens: int = 0
    """So many of the input's tokens count as read from the provider's prompt cache."""
    thinking_tokens: int | None = None
    """So many tokens of hidden thinking, whether the request asked for thinking or not."""
    seed: int = 0
    """Of `fail_percent`; also tells apart two otherwise equal specifications, which else share their counters."""

    status: int | None = None
    quota: str | None = None
    retry_after_seconds: str | None = None
    """Overrides the hint of a 429 or 503; `none` gives none."""
    cut_after: int | None = None
    end_after: int | None = None
    stall_after: int | None = None
    malformed_after: int | None = None
    error_after: int | None = None
    oversized_frame_bytes: int | None = None
    garbage: str | None = None
    redirect: int | None = None

    fail_times: int | None = None
    """Only the first so many requests with this specification fail."""
    fail_percent: int | None = None
    """Only so many percent of the requests with this specification fail, by `seed`."""

    def without_failures(self) -> Faults:
        """Keep delays and shape, drop everything that makes a request fail."""
        nothing: dict[str, Any] = dict.fromkeys(FAILURES)
        return replace(self, **nothing)


FAILURES: Final = (
    "status",
    "quota",
    "cut_after",
    "end_after",
    "stall_after",
    "malformed_after",
    "error_after",
    "oversized_frame_bytes",
    "garbage",
    "redirect",
)


def _whole(minimum: int, maximum: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= _MAXIMUM_DIGITS and minimum <= int(text) <= maximum):
            raise FaultSpecError(f"must be a whole number from {minimum} to {maximum}")
        return int(text)

    return read


def _one_of(*choices: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in choices:
            raise FaultSpecError(f"must be one of {', '.join(choices)}")
        return text

    return read


def _listed(choices: tuple[int, ...]) -> Callable[[str], int]:
    def read(text: str) -> int:
        return int(_one_of(*map(str, choices))(text))

    return read


def _seconds_or_none(text: str) -> str:
    digits = text.replace(".", "", 1)
    is_number = digits.isascii() and digits.isdecimal() and len(digits) <= _MAXIMUM_DIGITS
    if text != "none" and not (is_number and float(text) <= _MAXIMUM_SECONDS):
        raise FaultSpecError(f"must be a number of seconds up to {_MAXIMUM_SECONDS}, or none")
    return text


_COUNT = _whole(0, _MAXIMUM_COUNT)
_MILLISECONDS = _whole(0, _MAXIMUM_MILLISECONDS)
_READERS: Final[dict[str, Callable[[str], int | str]]] = {
    "latency_ms": _MILLISECONDS,
    "first_token_ms": _MILLISECONDS,
    "chunk_interval_ms": _MILLISECONDS,
    "chunks": _whole(1, _MAXIMUM_COUNT),
    "answer_bytes": _whole(1, _MAXIMUM_BYTES),
    "usage": _one_of("none"),
    "cached_tokens": _COUNT,
    "thinking_tokens": _COUNT,
    "seed": _whole(0, 2**32 - 1),
    "status": _listed(STATUSES),
    "quota": _one_of("exhausted"),
    "retry_after_seconds": _seconds_or_none,
    "cut_after": _COUNT,
    "end_after": _COUNT,
    "stall_after": _COUNT,
    "malformed_after": _COUNT,
    "error_after": _COUNT,
    "oversized_frame_bytes": _whole(1, _MAXIMUM_BYTES),
    "garbage": _one_of("html", "json"),
    "redirect": _listed(REDIRECTS),
    "fail_times": _COUNT,
    "fail_percent": _whole(0, 100),
}
assert set(_READERS) == {field.name for field in fields(Faults)}  # noqa: S101 - a field without a reader would be dead


def parse_faults(specification: str, *, base: Faults | None = None) -> Faults:
    """Read `name=value,name=value` over `base`; empty means nothing.

    Raises `FaultSpecError` that names the part.
    """
    values: dict[str, int | str] = {}
    for part in filter(None, (part.strip() for part in specification.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        reader = _READERS.get(name)
        if reader is None or not equals:
            raise FaultSpecError(f"fault {part[:80]!r}: expected name=value with a name of {', '.join(_READERS)}")
        if name in values:
            raise FaultSpecError(f"fault {name!r} is given twice")
        try:
            values[name] = reader(value)
        except FaultSpecError as error:
            raise FaultSpecError(f"fault {part[:80]!r}: {error}") from None
    return replace(base or Faults(), **values)  # type: ignore[arg-type]  # each reader returns its field's type


class FaultSchedule:
    """Remembers how often a specification was met, for `fail_times` and `fail_percent`."""

    def __init__(self) -> None:
        self._met: dict[Faults, int] = {}
        self._dice: dict[Faults, random.Random] = {}

    def decide(self, faults: Faults) -> Faults:
        """Return the faults that hold for this one request."""
        if faults.fail_times is None and faults.fail_percent is None:
            return faults
        if len(self._met) >= _MAXIMUM_TRACKED_SPECS:
            self.reset()
        met = self._met[faults] = self._met.get(faults, 0) + 1
        if faults.fail_times is not None and met > faults.fail_times:
            return faults.without_failures()
        if faults.fail_percent is not None:
            dice = self._dice.setdefault(faults, random.Random(faults.seed))  # noqa: S311 - repeatable on purpose
            if dice.random() * 100 >= faults.fail_percent:
                return faults.without_failures()
        return faults

    def reset(self) -> None:
        """Begin to count anew."""
        self._met.clear()
        self._dice.clear()
