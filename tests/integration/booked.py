"""What all teams together have used and hold, as the store tells it."""

from __future__ import annotations

from collections import Counter

import redis

from llm_sidecar.contract.quota_counters import read_counters


def booked(store_url: str) -> dict[str, int]:
    """Amounts by `limit|used` and `limit|held`, summed over windows; zeros left out."""
    totals: Counter[str] = Counter()
    with redis.Redis.from_url(store_url) as client:
        for key in client.keys("*:quota:counters"):
            for figures in read_counters(client.hgetall(key)):
                totals[f"{figures.limit}|used"] += figures.used
                totals[f"{figures.limit}|held"] += figures.held
    return {name: amount for name, amount in totals.items() if amount}
