"""Redis key shapes. Every key of one team carries the hash tag `{NAMESPACE/NAME}`, so that one script may touch all
of a team's keys on a Cluster; those of one provider carry its own `{NAMESPACE/NAME}`. The `v1` is the shape's version:
a reader ignores what it does not know.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "llm-sidecar:v1"


NO_TEAM: Final = "none"
"""The team of pods without a TeamQuota, in keys and metrics. No TeamQuota's name is like that: it has a slash."""


def quota_counters(team: str) -> str:
    """Hash of a team's counters. `team` is `NAMESPACE/NAME`."""
    return f"{PREFIX}:{{{team}}}:quota:counters"


def quota_counter(limit: str, unit: str, per: str, start_ms: int, end_ms: int) -> str:
    """One limit in one window, in the hash of counters: its fields are this and `|used`, `|held` and so on."""
    return f"{limit}|{unit}|{per}|{start_ms}|{end_ms}"


def quota_leases(team: str) -> str:
    """Sorted set of open reservations: member is the id, score the lease's end in milliseconds of Redis's clock."""
    return f"{PREFIX}:{{{team}}}:quota:leases"


def quota_reservations(team: str) -> str:
    """Hash of open reservations: field is the id, value what was reserved in which windows."""
    return f"{PREFIX}:{{{team}}}:quota:reservations"


def quota_ledger(team: str) -> str:
    """Stream of what was charged, one entry for each settlement."""
    return f"{PREFIX}:{{{team}}}:quota:ledger"


def quota_alerts(team: str) -> str:
    """Stream of thresholds that were crossed, one entry for each, window and threshold."""
    return f"{PREFIX}:{{{team}}}:quota:alerts"


def quota_shares(team: str) -> str:
    """Hash of what sidecars may spend while Redis is away: field is the sidecar, value millionths of each limit."""
    return f"{PREFIX}:{{{team}}}:quota:shares"


def quota_share_leases(team: str) -> str:
    """Sorted set of those sidecars: score is the grant's end in milliseconds of Redis's clock."""
    return f"{PREFIX}:{{{team}}}:quota:share-leases"


def cache_entry(team: str, digest: str) -> str:
    """One cached answer; `digest` is the request's."""
    return f"{PREFIX}:{{{team}}}:cache:{digest}"


CACHE_NOT_BEFORE: Final = "not_before"
"""Field of `cache_epochs`: Unix seconds. What was asked for earlier is not served; it only ever grows."""
CACHE_EPOCH_OF_TEAM: Final = "team"
"""Field of `cache_epochs`: as those of the functions below, a number that purges count up (`HINCRBY … 1`)."""


def cache_epochs(team: str) -> str:
    """Hash of what purges have counted for a team. An entry names the numbers that it was asked for under, and is
    served only while they are the same: a purge is one `HINCRBY`, and reaches answers that are still under way.
    """
    return f"{PREFIX}:{{{team}}}:cache-epochs"


def cache_epoch_of_provider(provider: str) -> str:
    """Field of `cache_epochs`: all answers of a provider (`NAMESPACE/NAME`)."""
    return f"provider/{provider}"


def cache_epoch_of_model(provider: str, model: str) -> str:
    """Field of `cache_epochs`: all answers of one model of a provider, by the name that the provider knows."""
    return f"model/{provider}/{model}"


def cache_epoch_of_key(digest: str) -> str:
    """Field of `cache_epochs`: one answer."""
    return f"key/{digest}"


def cache_purged_keys(team: str) -> str:
    """Sorted set of the fields of `cache_epochs` that are about one answer: score is its purge, in microseconds.

    It is what bounds their number.
    """
    return f"{PREFIX}:{{{team}}}:cache-purged-keys"


def cache_purged_for(kind: str, name: str) -> str:
    """Field of `cache_epochs`: the last value of a resource's purge annotation that was carried out for this team."""
    return f"purged-for/{kind}/{name}"


def provider_reports(provider: str, window: int) -> str:
    """Hash of what proxies saw of a provider (`NAMESPACE/NAME`) in one window: field is the proxy, value its report."""
    return f"{PREFIX}:{{{provider}}}:provider:reports:{window}"


def provider_openings(provider: str, window: int) -> str:
    """Set of a provider's models for which somebody's circuit breaker opened in this window."""
    return f"{PREFIX}:{{{provider}}}:provider:openings:{window}"


def provider_rate(provider: str) -> str:
    """Hash of what is left of a provider's `rateLimits` (`NAMESPACE/NAME`): see `provider_take.lua`."""
    return f"{PREFIX}:{{{provider}}}:provider:rate"
