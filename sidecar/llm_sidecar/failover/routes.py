"""From a model's name to the providers that serve it, in the order in which they are tried. Pure.

Compiled once per configuration: a request costs one look-up, and nothing is sorted unless weights must be drawn.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Protocol

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.provider_resource import Model
from llm_sidecar.providers.base import Provider


@dataclass(frozen=True, slots=True)
class ConfiguredProvider:
    """One LLMProvider, ready to be called."""

    provider: Provider
    priority: int
    weight: int
    models: Sequence[Model]
    passthrough_paths: Sequence[str]
    asks_for_stream_usage: bool
    cache_ttl_seconds: Mapping[RequestType, int]

    @property
    def name(self) -> str:
        """The label under which metrics, headers and errors name it."""
        return self.provider.name


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that may answer, and the model that it would be asked for."""

    configured: ConfiguredProvider
    model: Model
    send_model: str | None
    """The name to send instead of the application's; None where they are the same."""

    @property
    def name(self) -> str:
        """The provider's label."""
        return self.configured.provider.name

    def answering_model(self, asked: str) -> str:
        """The model's name at the provider."""
        return self.send_model or asked


class Draw(Protocol):
    """Draws a number from 0 up to 1 (`random.random`)."""

    def __call__(self) -> float:
        """Draw."""
        ...


class Routes:
    """All ways from a model's name to providers, for one configuration."""

    def __init__(self, providers: Iterable[ConfiguredProvider], *, draw: Draw = random.random) -> None:
        self._providers = sorted(providers, key=lambda configured: configured.priority)
        self._draw = draw
        self._exact: dict[tuple[API, str], list[Candidate]] = defaultdict(list)
        self._patterns: dict[API, list[tuple[str, Candidate]]] = defaultdict(list)
        for configured in self._providers:
            for model in configured.models:
                self._add(configured, model)
        self._plans: dict[tuple[API, str], tuple[tuple[Candidate, ...], bool]] = {}

    def _add(self, configured: ConfiguredProvider, model: Model) -> None:
        for api in configured.provider.apis:
            if model.name.endswith("*"):
                self._patterns[api].append((model.name[:-1], Candidate(configured, model, None)))
                continue
            self._exact[api, model.name].append(Candidate(configured, model, None))
            for alias in model.aliases:
                self._exact[api, alias].append(Candidate(configured, model, model.name))

    def candidates(self, api: API, model: str) -> tuple[Candidate, ...]:
        """Who may answer, first choice first; empty where nobody serves the model in this API."""
        key = (api, model)
        plan = self._plans.get(key)
        if plan is None:
            found = self._find(api, model)
            drawn = any(a.configured.priority == b.configured.priority for a, b in pairwise(found))
            plan = (found, drawn)
            if len(self._plans) < 1024:  # names that a client types must not fill the memory
                self._plans[key] = plan
        found, drawn = plan
        return self._drawn(found) if drawn else found

    def _find(self, api: API, model: str) -> tuple[Candidate, ...]:
        """An exact name goes before an alias, both before a pattern, the longest pattern first; each provider once."""
        exact = self._exact.get((api, model), [])
        matching = [(prefix, one) for prefix, one in self._patterns.get(api, ()) if model.startswith(prefix)]
        by_pattern = [one for _, one in sorted(matching, key=lambda pair: -len(pair[0]))]
        found: dict[int, Candidate] = {}
        for candidate in (*(one for one in exact if one.send_model is None), *exact, *by_pattern):
            found.setdefault(id(candidate.configured), candidate)
        return tuple(sorted(found.values(), key=lambda one: one.configured.priority))

    def _drawn(self, found: tuple[Candidate, ...]) -> tuple[Candidate, ...]:
        """Among equals, a random order in which each one's chance to be first is its weight's share."""
        ordered: list[Candidate] = []
        for _, group in groupby(found, key=lambda one: one.configured.priority):
            equals = list(group)
            # Efraimidis and Spirakis: the largest u^(1/w) is first with probability w / Σw.
            equals.sort(key=lambda one: self._draw() ** (1.0 / one.configured.weight), reverse=True)
            ordered += equals
        return tuple(ordered)

    def model_names(self, apis: Iterable[API]) -> list[str]:
        """Names and aliases that an application may ask for in any of these APIs; patterns name no model."""
        wanted = set(apis)
        return sorted({name for api, name in self._exact if api in wanted})

    def serves_elsewhere(self, model: str) -> list[API]:
        """The APIs in which some provider serves the model, for the error of a request in another one."""
        return [api for api in API if self._find(api, model)]

    def passthrough(self, path: str, api_family: Iterable[API]) -> ConfiguredProvider | None:
        """The provider that lists this path, one of the family whose SDK is calling before any other."""
        listing = [one for one in self._providers if any(matches(path, entry) for entry in one.passthrough_paths)]
        family = set(api_family)
        return next((one for one in listing if family.intersection(one.provider.apis)), None) or next(
            iter(listing), None
        )


def matches(text: str, pattern: str) -> bool:
    """True where `pattern`, whose last `*` stands for any ending, fits."""
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
