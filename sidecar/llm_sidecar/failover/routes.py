"""From a model's name to the providers that serve it, in the order in which they are tried. Pure.

Compiled once per configuration: a request costs one look-up, and nothing is sorted unless weights must be drawn.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import chain, groupby
from typing import Final, Protocol

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.provider_resource import Model
from llm_sidecar.failover.backoff import RetryPolicy
from llm_sidecar.failover.circuit import CircuitSettings
from llm_sidecar.prices import Size, comparable_cost
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
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    circuit: CircuitSettings = field(default_factory=CircuitSettings)
    identity: str = ""
    """`NAMESPACE/NAME`, under which all proxies share what the provider grants."""
    requests_per_minute: int = 0
    """What it grants; 0: not limited here."""
    tokens_per_minute: int = 0

    @property
    def name(self) -> str:
        """The label under which metrics, headers and errors name it."""
        return self.provider.name


GENERATING: Final = frozenset({API.OPENAI_CHAT, API.OPENAI_RESPONSES, API.ANTHROPIC_MESSAGES, API.GEMINI})
"""Between these, requests to generate are translated."""
EMBEDDING: Final = frozenset({API.OPENAI_EMBEDDINGS, API.GEMINI})
"""Between these, requests to embed are."""
_TRANSLATED: Final = {RequestType.GENERATION: GENERATING, RequestType.EMBEDDINGS: EMBEDDING}

KNOWN_PLANS: Final = 1024
"""Names that a client types must not fill the memory."""


def spoken(apis: Sequence[API], asked: API, request_type: RequestType) -> API | None:
    """The API to speak with a provider of these `apis`: the one asked in, or else its first that can be translated to.

    None where there is none. A token count is only true of the request as it came: it is never translated.
    """
    if asked in apis:
        return asked
    group = _TRANSLATED.get(request_type, frozenset())
    return next((api for api in apis if api in group), None) if asked in group else None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A provider that may answer, and the model that it would be asked for."""

    configured: ConfiguredProvider
    model: Model
    send_model: str | None
    """The name to send instead of the application's; None where they are the same."""
    api: API
    """The language to speak with it; the request's own wherever the provider knows that."""
    stands_in: bool = False
    """By `failoverFor`: only once all that serve the model itself have failed."""

    steps_down: bool = False
    """By `downgradeFor`: asked first where a team's limit is nearly used up, and otherwise never."""

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


Lot = Callable[[], bytes | None]
"""What decides among equals in the place of chance: who draws the same lot gets the same order. None: chance does."""


@dataclass(frozen=True, slots=True)
class _Way:
    """A model of a provider, by one of the names that lead to it."""

    configured: ConfiguredProvider
    model: Model
    by_alias: bool


Group = tuple[Candidate, ...]
"""Equals, among which weight or price decides."""


class Routes:
    """All ways from a model's name to providers, for one configuration."""

    def __init__(
        self, providers: Iterable[ConfiguredProvider], *, draw: Draw = random.random, cheapest_first: bool = False
    ) -> None:
        self._providers = sorted(providers, key=lambda configured: configured.priority)
        self._draw = draw
        self._cheapest_first = cheapest_first
        self._exact: dict[str, list[_Way]] = defaultdict(list)
        self._patterns: list[tuple[str, _Way]] = []
        self._stand_ins: dict[str, list[_Way]] = defaultdict(list)
        self._downgrades: dict[str, list[_Way]] = defaultdict(list)
        for configured in self._providers:
            for model in configured.models:
                self._add(configured, model)
        self._plans: dict[tuple[API, RequestType, str], tuple[Group, ...]] = {}

    def _add(self, configured: ConfiguredProvider, model: Model) -> None:
        if model.name.endswith("*"):
            self._patterns.append((model.name[:-1], _Way(configured, model, by_alias=False)))
            return
        self._exact[model.name].append(_Way(configured, model, by_alias=False))
        for alias in model.aliases:
            self._exact[alias].append(_Way(configured, model, by_alias=True))
        for name in model.failover_for:
            self._stand_ins[name].append(_Way(configured, model, by_alias=True))
        for name in model.downgrade_for:
            self._downgrades[name].append(_Way(configured, model, by_alias=True))

    def candidates(
        self,
        api: API,
        model: str,
        *,
        request_type: RequestType = RequestType.GENERATION,
        request: Size | None = None,
        lot: Lot | None = None,
    ) -> tuple[Candidate, ...]:
        """Who may answer, first choice first; empty where nobody serves the model in a language that fits.

        `request` is what prices are compared for; without it, weights decide. A request whose answer may be there
        brings its `lot`: asked of another one of equals each time, it would be paid for once at each.
        """
        key = (api, request_type, model)
        groups = self._plans.get(key)
        if groups is None:
            groups = self._find(api, request_type, model)
            if len(self._plans) < KNOWN_PLANS:
                self._plans[key] = groups
        if len(groups) == 1 and len(groups[0]) == 1:
            return groups[0]
        return tuple(chain.from_iterable(self._ordered(group, request, lot) for group in groups))

    def cheaper(
        self, than: Candidate, api: API, request_type: RequestType, request: Size, asked: str
    ) -> list[Candidate]:
        """Who may answer in a model's stead for less (`downgradeFor`), cheapest first; nobody where it has no price."""
        names = {asked, than.model.name, *than.model.aliases}
        ways = [way for name in sorted(names) for way in self._downgrades.get(name, ())]
        fitting = _fitting(ways, api, request_type, stands_in=True)
        found = [replace(one, steps_down=True) for one in _first_of_each(fitting, _model_of)]
        bound = comparable_cost(than.model, request)
        costs = [(comparable_cost(one.model, request), position) for position, one in enumerate(found)]
        return [found[position] for cost, position in sorted(costs) if cost < bound]

    def _find(self, api: API, request_type: RequestType, model: str) -> tuple[Group, ...]:
        """Those that serve it and then those that stand in, each by priority; a provider stands in each part once.

        Of equal priority, those that know the request's own language come first: what need not be translated passes as
        it came. Where the price decides, language does not.
        """
        serving = _first_of_each(_fitting(self._serving(model), api, request_type, stands_in=False), _provider_of)
        names = {model, *(one.model.name for one in serving)}
        ways = [way for name in sorted(names) for way in self._stand_ins.get(name, ())]
        taken = set(map(_model_of, serving))
        fitting = _fitting(ways, api, request_type, stands_in=True)
        standing_in = [one for one in _first_of_each(fitting, _provider_of) if _model_of(one) not in taken]

        def rank(one: Candidate) -> tuple[bool, int, bool]:
            return one.stands_in, one.configured.priority, one.api is not api and not self._cheapest_first

        found = sorted((*serving, *standing_in), key=rank)
        return tuple(tuple(group) for _, group in groupby(found, key=rank))

    def _serving(self, model: str) -> list[_Way]:
        """An exact name goes before an alias, both before a pattern, the longest pattern first."""
        exact = self._exact.get(model, [])
        matching = [(prefix, way) for prefix, way in self._patterns if model.startswith(prefix)]
        by_pattern = [way for _, way in sorted(matching, key=lambda pair: -len(pair[0]))]
        return [*(way for way in exact if not way.by_alias), *(way for way in exact if way.by_alias), *by_pattern]

    def _ordered(self, group: Group, request: Size | None, lot: Lot | None) -> Sequence[Candidate]:
        if len(group) == 1:
            return group
        equals = self._drawn(group, lot() if lot is not None else None)
        if self._cheapest_first and request is not None:
            equals.sort(key=lambda one: comparable_cost(one.model, request))
        return equals

    def _drawn(self, equals: Group, lot: bytes | None) -> list[Candidate]:
        """An order in which each one's chance to be first is its weight's share.

        Efraimidis and Spirakis: the largest u^(1/w) is first with probability w / Σw. A lot makes each u from itself
        and the provider: over many lots that is as good as chance, and whoever leaves or comes moves no others.
        """

        def key(one: Candidate) -> float:
            drawn = self._draw() if lot is None else _fraction(lot, one.configured.identity or one.name)
            return math.pow(drawn, 1.0 / one.configured.weight)

        return sorted(equals, key=key, reverse=True)

    @property
    def providers(self) -> Sequence[ConfiguredProvider]:
        """All of them, by priority."""
        return self._providers

    def foreign_languages(self) -> frozenset[API]:
        """The languages between which calls are likely to be translated: all, unless every provider shares one."""
        spoken_by = [GENERATING.intersection(one.provider.apis) for one in self._providers]
        spoken_by = [apis for apis in spoken_by if apis]
        shared = frozenset.intersection(*spoken_by) if spoken_by else frozenset[API]()
        return frozenset[API]() if shared or not spoken_by else frozenset.union(*spoken_by)

    def model_names(self, apis: Iterable[API]) -> list[str]:
        """Names and aliases that an application may ask for in any of these APIs; patterns name no model."""
        wanted = tuple(apis)
        return sorted(
            name
            for name, ways in self._exact.items()
            if any(
                spoken(way.configured.provider.apis, api, request_type) is not None
                for way in ways
                for api in wanted
                for request_type in _TRANSLATED
            )
        )

    def serves_elsewhere(self, model: str) -> list[API]:
        """The APIs in which some provider serves the model, for the error of a request in another one."""
        spoken_by = {api for way in self._serving(model) for api in way.configured.provider.apis}
        return [api for api in API if api in spoken_by]

    def passthrough(self, path: str, api_family: Iterable[API]) -> ConfiguredProvider | None:
        """The provider that lists this path, one of the family whose SDK is calling before any other."""
        listing = [one for one in self._providers if any(matches(path, entry) for entry in one.passthrough_paths)]
        family = set(api_family)
        return next((one for one in listing if family.intersection(one.provider.apis)), None) or next(
            iter(listing), None
        )


def _fitting(ways: Iterable[_Way], api: API, request_type: RequestType, *, stands_in: bool) -> Iterator[Candidate]:
    """Those whose provider speaks a language that fits."""
    for way in ways:
        language = spoken(way.configured.provider.apis, api, request_type)
        if language is not None:
            send_model = way.model.name if way.by_alias else None
            yield Candidate(way.configured, way.model, send_model, language, stands_in)


def _provider_of(candidate: Candidate) -> Hashable:
    return id(candidate.configured)


def _model_of(candidate: Candidate) -> Hashable:
    return id(candidate.configured), candidate.model.name


def _first_of_each(candidates: Iterable[Candidate], kind: Callable[[Candidate], Hashable]) -> tuple[Candidate, ...]:
    found: dict[Hashable, Candidate] = {}
    for candidate in candidates:
        found.setdefault(kind(candidate), candidate)
    return tuple(found.values())


def _fraction(lot: bytes, name: str) -> float:
    """A number from 0 up to 1 that is always the same for these two."""
    return int.from_bytes(blake2b(lot + name.encode(), digest_size=6).digest()) / 2**48


def matches(text: str, pattern: str) -> bool:
    """True where `pattern`, whose last `*` stands for any ending, fits."""
    return text.startswith(pattern[:-1]) if pattern.endswith("*") else text == pattern
