"""The teams of the check, their limits, and the manifests that all sidecars share."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tests.accounting.truth import Price

NAMESPACE: Final = "default"
STRICT, SHARED, OPEN = "strict", "shared", "open"
TEAMS: Final = (STRICT, SHARED, OPEN)
KINDS: Final[Mapping[str, str]] = {"openai": "OpenAI", "anthropic": "Anthropic", "google": "Google"}
PRICES: Final[Mapping[str, Mapping[str, Price]]] = {
    "main": {
        "openai": Price(input=123_456_789, cached=12_345_678, output=987_654_321),
        "anthropic": Price(input=250_000_001, cached=25_000_001, output=1_250_000_003),
        "google": Price(input=7, cached=1, output=13),  # fractions of a nano-dollar: thousands of tokens make one
    },
    "spare": {
        "openai": Price(input=80_000_009, cached=8_000_001, output=400_000_007),
        "anthropic": Price(input=111_111_111, cached=11_111_111, output=555_555_555),
        "google": Price(input=3, cached=3, output=5),
    },
}
"""By place and kind; no price is a round number, so that a rounded sum would show."""
HASTY_SECONDS: Final = 1


def limits(team: str, *, seconds: float) -> list[dict[str, Any]]:
    """The limits of a team: some are reached soon and often, some just before the end of the course."""
    if team == STRICT:
        return [
            {"name": "burst", "per": "Minute", "requests": 60},
            {"name": "hourly", "per": "Hour", "tokens": 24_000, "reservation": "Maximum"},
            {"name": "budget", "per": "Month", "costUSD": f"{0.0022 * seconds:.9f}", "reservation": "Maximum"},
            {"name": "parallel", "concurrentRequests": 6},
        ]
    if team == SHARED:
        return [
            {"name": "burst", "per": "Minute", "requests": 80},
            {"name": "daily", "per": "Day", "tokens": int(1000 * (seconds + 3))},
            {"name": "budget", "per": "Month", "costUSD": f"{0.003 * seconds:.9f}"},
            {"name": "parallel", "concurrentRequests": 7},
        ]
    return [
        {"name": "calls", "per": "Week", "requests": 10**6},
        {"name": "daily", "per": "Day", "tokens": 10**9},
        {"name": "hourly", "per": "Hour", "tokens": 10**8},
        {"name": "budget", "per": "Month", "costUSD": "9000000"},
    ]


_POLICIES: Final = {STRICT: "Deny", SHARED: "LocalShare", OPEN: "Allow"}


def manifests(*, seconds: float, main_port: int, spare_port: int) -> str:
    """Everything that the sidecars read."""
    documents: list[dict[str, Any]] = [
        _document(
            "TeamQuota",
            team,
            {
                "limits": limits(team, seconds=seconds),
                "onStoreUnavailable": _POLICIES[team],
                "cache": {"generations": "None"},
            },
        )
        for team in TEAMS
    ]
    for family, kind in KINDS.items():
        model = f"model-{family}"
        documents.append(_provider("main", family, kind, main_port, {"name": model}))
        spare = {"name": f"spare-{family}", "failoverFor": [model]}
        documents.append(_provider("spare", family, kind, spare_port, spare))
    return "\n---\n".join(map(json.dumps, documents))


def _provider(place: str, family: str, kind: str, port: int, model: dict[str, Any]) -> dict[str, Any]:
    spec = {
        "type": kind,
        "baseURL": f"http://127.0.0.1:{port}" + ("/v1" if kind == "OpenAI" else ""),
        "models": [{**model, "maxOutputTokens": 1000, "pricing": PRICES[place][family].pricing()}],
        "priority": 0 if place == "main" else 10,
        "timeouts": {f"{name}Seconds": HASTY_SECONDS for name in ("response", "firstToken", "idle")},
        "retry": {"maxAttempts": 2, "initialBackoffMilliseconds": 20, "maxBackoffSeconds": 1},
        "circuitBreaker": {"failureThreshold": 20, "openSeconds": 1},
    }
    return _document("LLMProvider", f"{place}-{family}", spec)


def _document(kind: str, name: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": NAMESPACE}
    return {"apiVersion": "llm-sidecar.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
