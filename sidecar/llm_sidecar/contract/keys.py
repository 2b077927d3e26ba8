"""Redis key shapes. Every key of one team carries the hash tag `{NAMESPACE/NAME}`, so that one script may touch all
of a team's keys on a Cluster. The `v1` is the shape's version: a reader ignores what it does not know.
"""

from __future__ import annotations

from typing import Final

PREFIX: Final = "llm-sidecar:v1"


def quota_counters(team: str) -> str:
    """Hash of a team's counters. `team` is `NAMESPACE/NAME`."""
    return f"{PREFIX}:{{{team}}}:quota:counters"


def quota_counter(limit: str, unit: str, per: str, start_ms: int, end_ms: int) -> str:
    """One limit in one window, in the hash of counters: its fields are this and `|used` or `|held`."""
    return f"{limit}|{unit}|{per}|{start_ms}|{end_ms}"


def quota_leases(team: str) -> str:
    """Sorted set of open reservations: member is the id, score the lease's end in milliseconds of Redis's clock."""
    return f"{PREFIX}:{{{team}}}:quota:leases"


def quota_reservations(team: str) -> str:
    """Hash of open reservations: field is the id, value what was reserved in which windows."""
    return f"{PREFIX}:{{{team}}}:quota:reservations"


def cache_entry(team: str, digest: str) -> str:
    """One cached answer; `digest` is the request's."""
    return f"{PREFIX}:{{{team}}}:cache:{digest}"
