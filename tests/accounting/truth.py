"""Providers that fail by a seed, and keep the whole truth: what each request really cost, attempt by attempt."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from llm_sidecar.simulate.ledger import Entry, Ledger
from tests.chaos.faults import HEALTHY, MIXED, PACE, Schedule
from tests.chaos.providers import Provider

TROUBLE_SHARE: Final = 0.2
PACES: Final = (
    "",
    PACE,
    "chunk_interval_ms=40",
    "latency_ms=60",
    "cached_tokens=7",
    "cached_tokens=3,thinking_tokens=9",
)
"""How healthy answers differ: their length in time, and the buckets that their tokens are told in."""
UNTOLD: Final = "usage=none"


class Weather(Schedule):
    """Some requests fail, some are told no usage, and all others differ in pace and in buckets."""

    def __init__(self, *, troubled: bool, seed: int) -> None:
        super().__init__(MIXED, share=TROUBLE_SHARE if troubled else 0.0, seed=seed)
        self._troubled = troubled

    def next_fault(self, *, is_stream: bool) -> tuple[str, str]:
        name, specification = super().next_fault(is_stream=is_stream)
        if name == HEALTHY:
            specification = self._draw.choice((*PACES, UNTOLD) if self._troubled else PACES)
        return name, specification


class TruthfulProvider(Provider):
    """Its ledger forgets nothing."""

    def __init__(self, port: int, *, troubled: bool, seed: int) -> None:
        super().__init__(port)
        self._ledger = Ledger(sys.maxsize)
        self.schedule = Weather(troubled=troubled, seed=seed)

    def entries(self) -> list[Entry]:
        return self._ledger.entries()


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """Femto-dollars for a token, as the manifests say in USD per million."""

    input: int
    cached: int
    output: int

    def pricing(self) -> Mapping[str, str]:
        """The `pricing` of a model."""
        told = {"inputUSD": self.input, "cachedInputUSD": self.cached, "outputUSD": self.output}
        return {f"{name}PerMillionTokens": f"{amount // 10**9}.{amount % 10**9:09d}" for name, amount in told.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What one attempt cost, by the provider's own account."""

    place: str
    """Name of the provider."""
    entry: Entry
    price: Price

    @property
    def told_tokens(self) -> int | None:
        """As the sidecar was told; None where it was not."""
        usage = self.entry.usage_told
        return None if usage is None else usage.input_tokens + usage.output_tokens

    @property
    def told_femto_usd(self) -> int:
        """Of what was told."""
        usage = self.entry.usage_told
        if usage is None:
            return 0
        cached = usage.cached_input_tokens
        return (
            (usage.input_tokens - cached) * self.price.input
            + cached * self.price.cached
            + usage.output_tokens * self.price.output
        )

    @property
    def true_tokens(self) -> int:
        """What was generated and read until the end, also where nobody was told."""
        usage = self.entry.usage_true
        return 0 if usage is None else usage.input_tokens + usage.output_tokens


def by_request(
    providers: Mapping[str, TruthfulProvider], prices: Mapping[str, Mapping[str, Price]]
) -> Mapping[str, Sequence[Cost]]:
    """All attempts of each request, in the order of their arrival; `prices` by place and API family."""
    costs: dict[str, list[Cost]] = defaultdict(list)
    for place, provider in providers.items():
        for entry in provider.entries():
            if entry.client_request_id is not None and entry.api is not None:
                price = prices[place][_family(entry)]
                costs[entry.client_request_id].append(Cost(place=f"{place}-{_family(entry)}", entry=entry, price=price))
    return costs


def _family(entry: Entry) -> str:
    path = entry.path
    if "v1beta" in path:
        return "google"
    return "anthropic" if path.endswith("/messages") else "openai"
