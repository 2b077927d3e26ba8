"""What the sidecar itself says that it saved and spent, from its metrics."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Mapping
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

SPENT_USD: Final = "spent USD"
SPENT_TOKENS: Final = "spent tokens"
_SAVED: Final = re.compile(r"llm_(cache|optimization)_saved_(tokens|usd)_total")
_UNITS: Final = {"tokens": "tokens", "usd": "USD"}
_SPENT: Final = {"llm_cost_usd_total": SPENT_USD, "llm_tokens_total": SPENT_TOKENS}
_PARTS: Final = frozenset({"reasoning"})
"""Kinds of tokens that are counted in another kind as well."""


def ledger(exposition: str) -> dict[str, float]:
    """Sums of what was saved, by strategy and unit (`response cache, tokens`), and of what was spent."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(exposition):
        for sample in family.samples:
            name = _SPENT.get(sample.name)
            if found := _SAVED.fullmatch(sample.name):
                what = sample.labels.get("strategy", "response_cache").replace("_", " ")
                name = f"{what}, {_UNITS[found[2]]}"
            if name is not None and sample.labels.get("kind") not in _PARTS:
                sums[name] = sums.get(name, 0.0) + sample.value
    return sums


def added(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What came between two looks; nothing where nothing came."""
    grown = {name: value - before.get(name, 0.0) for name, value in after.items()}
    return {name: value for name, value in grown.items() if value}


def read_ledger(admin_port: int) -> dict[str, float]:
    """Ask a sidecar."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{admin_port}/metrics", timeout=10) as answer:
        return ledger(answer.read().decode())
