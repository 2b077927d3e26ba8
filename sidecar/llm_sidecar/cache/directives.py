"""What the application says of caching in `Cache-Control`. Pure; what is unknown or malformed says nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_DIRECTIVE: Final = re.compile(r"""(?:"(?:[^"\\]|\\.)*+(?:"|$)|[^",])++""", re.DOTALL)
"""What stands between commas; those within quotes do not count."""
_SECONDS: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Directives:
    """The directives that are obeyed (RFC 9111, RFC 5861)."""

    no_store: bool = False
    """Neither answer from the cache nor keep the answer."""
    no_cache: bool = False
    """Do not answer from the cache; the new answer may be kept."""
    only_if_cached: bool = False
    """Answer from the cache or not at all."""
    max_age_seconds: int | None = None
    """The cached answer may be as old as this."""
    stale_if_error_seconds: int = 0
    """Where every provider fails, an answer may be served for so long after its time."""

    @property
    def want_newer(self) -> bool:
        """True where an answer that is under way for another may be older than what is wanted."""
        return self.no_cache or self.max_age_seconds is not None

    def served_for_seconds(self, ttl_seconds: int) -> int:
        """What is cached is served while it is younger than this, if it is fresh for `ttl_seconds`; 0 is never."""
        if self.no_store or self.no_cache:
            return 0
        return ttl_seconds if self.max_age_seconds is None else min(ttl_seconds, self.max_age_seconds)


NO_DIRECTIVES: Final = Directives()


def cache_directives(values: Iterable[str]) -> Directives:
    """Read the values of all `Cache-Control` headers of a request, as one list."""
    pairs = [directive.partition("=") for directive in _DIRECTIVE.findall(", ".join(values))]
    told = {name.strip().lower(): value.strip().strip('"') for name, _, value in pairs}
    return Directives(
        no_store="no-store" in told,
        no_cache="no-cache" in told,
        only_if_cached="only-if-cached" in told,
        max_age_seconds=_seconds(told.get("max-age")),
        stale_if_error_seconds=_seconds(told.get("stale-if-error")) or 0,
    )


def _seconds(text: str | None) -> int | None:
    return int(text) if text is not None and _SECONDS.fullmatch(text) else None
