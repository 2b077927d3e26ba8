"""One picture of what all proxies saw of a provider. Pure.

Reports can be forged, so each reporter has one vote, whatever counts it claims.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Final

from llm_sidecar.contract.provider_reports import FAILURE_WORDS, ProviderReport

FAILING_SHARE: Final = 0.5
"""A reporter counts as failing when this part of its attempts failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What the proxies saw of one provider of late."""

    reporters: int = 0
    failing: int = 0
    """Reporters for whom most attempts failed."""
    failures: int = 0
    error_share: float = 0.0
    """The mean of the reporters' own: one that claims a million failures has one vote like all others."""
    milliseconds: float | None = None
    """The median of the reporters' own means."""
    worst: str | None = None
    """The failure that most reporters told of."""


def traffic(reports: Iterable[tuple[bytes, ProviderReport]]) -> Traffic:
    """One picture of all reports; a reporter's own, of several windows, are added up."""
    by_reporter: dict[bytes, list[ProviderReport]] = {}
    for reporter, report in reports:
        by_reporter.setdefault(reporter, []).append(report)
    if not by_reporter:
        return Traffic()
    votes = [_Vote.of(own) for own in by_reporter.values()]
    told = Counter(word for vote in votes for word in vote.words)
    means = [vote.milliseconds for vote in votes if vote.milliseconds is not None]
    return Traffic(
        reporters=len(votes),
        failing=sum(vote.error_share >= FAILING_SHARE for vote in votes),
        failures=sum(vote.failed for vote in votes),
        error_share=fmean(vote.error_share for vote in votes),
        milliseconds=median(means) if means else None,
        worst=max(told, key=lambda word: (told[word], word)) if told else None,
    )


@dataclass(frozen=True, slots=True)
class _Vote:
    failed: int
    error_share: float
    milliseconds: float | None
    words: frozenset[str]

    @classmethod
    def of(cls, reports: Sequence[ProviderReport]) -> _Vote:
        attempts, failed = sum(one.attempts for one in reports), sum(one.failed for one in reports)
        answered = attempts - failed
        milliseconds = sum(one.answered_milliseconds for one in reports) / answered if answered else None
        words = frozenset(word for one in reports for word in FAILURE_WORDS if one.failures.get(word))
        return cls(failed, failed / attempts, milliseconds, words)
