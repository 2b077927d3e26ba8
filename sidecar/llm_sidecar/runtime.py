"""One configuration, compiled for use. A request keeps the one that it began with; a reload makes a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_sidecar.cache.policy import CachePolicy
from llm_sidecar.contract.config import ConfigRefused
from llm_sidecar.contract.keys import NO_TEAM
from llm_sidecar.contract.names import RequestType
from llm_sidecar.contract.provider_resource import StreamUsage
from llm_sidecar.contract.team_quota_resource import Optimization, Routing
from llm_sidecar.errors import ModelNotAllowed, UnknownModel
from llm_sidecar.failover.backoff import RetryPolicy
from llm_sidecar.failover.circuit import CircuitSettings
from llm_sidecar.failover.gate import unfit
from llm_sidecar.failover.routes import ConfiguredProvider, Routes, matches
from llm_sidecar.prices import Size
from llm_sidecar.providers.base import Authentication, ProviderSettings, SecretText, Timeouts
from llm_sidecar.providers.factory import LLMProviderFactory, UnknownProviderType
from llm_sidecar.upstream import Egress, InvalidEgress, PooledTransport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from llm_sidecar.contract.config import ConfigDocument, ProviderEntry, TeamEntry
    from llm_sidecar.contract.provider_resource import LLMProviderSpec
    from llm_sidecar.failover.routes import Candidate, Lot
    from llm_sidecar.formats.base import ParsedRequest
    from llm_sidecar.providers.base import Transport

SLOW_START_SECONDS: Final = 10.0
"""How long a recovered provider's traffic takes to be whole again, unless its circuit was to stay open for less."""


class UnusableConfig(ConfigRefused):
    """The document is well-formed, but something in it cannot work here."""


@dataclass(frozen=True, slots=True)
class ModelAccess:
    """Which models a team may ask for, by the names that it asks with. `deny` wins over `allow`."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def allows(self, model: str) -> bool:
        """True where the team may use it."""
        if self.denies(model):
            return False
        return not self.allow or any(matches(model, pattern) for pattern in self.allow)

    def denies(self, model: str) -> bool:
        """True where the team must not use it, not even as one that stands in."""
        return bool(self.deny) and any(matches(model, pattern) for pattern in self.deny)


@dataclass(frozen=True, slots=True)
class Runtime:
    """What requests are served with."""

    config_hash: str
    team: str
    team_is_allowed: bool
    """False: whoever owns the team does not admit these pods."""
    routes: Routes
    access: ModelAccess
    cache: CachePolicy
    egresses: frozenset[Egress]
    optimization: Optimization

    def candidates(self, request: ParsedRequest, *, lot: Lot | None = None) -> tuple[Candidate, ...]:
        """Who may answer, first choice first; `lot`: see `Routes.candidates`.

        Raises `ModelNotAllowed` or `UnknownModel`.
        """
        model, api = request.model, request.call.api
        if not self.access.allows(model):
            raise ModelNotAllowed(
                f"team {self.team} may not use the model {model[:100]!r}: see spec.models of its TeamQuota"
            )
        candidates: tuple[Candidate, ...] = ()
        if model.isprintable() and model.isascii():
            candidates = self.routes.candidates(
                api,
                model,
                request_type=request.call.type,
                request=Size(request.input_tokens_estimate, request.max_output_tokens),
                lot=lot,
            )
        if self.access.deny:  # who asks for another model must not get a forbidden one in its place
            candidates = tuple(one for one in candidates if not (one.stands_in and self.access.denies(one.model.name)))
        if not candidates:
            elsewhere = self.routes.serves_elsewhere(model)
            hint = f"; it is served in {', '.join(elsewhere)}" if elsewhere else ""
            raise UnknownModel(
                f"no provider serves the model {model[:100]!r} in {api}{hint}. GET the model list for those that are"
            )
        return candidates

    def cheaper(self, request: ParsedRequest, than: Candidate) -> tuple[Candidate, ...]:
        """Who may answer in its stead for less, cheapest first: see `downgradeFor`."""
        size = Size(request.input_tokens_estimate, request.max_output_tokens)
        found = self.routes.cheaper(than, request.call.api, request.call.type, size, request.model)
        found = [one for one in found if not self.access.denies(one.model.name)]
        reasons = unfit(found, request)
        return tuple(one for position, one in enumerate(found) if position not in reasons)


class Transports:
    """Connection pools by egress, kept over reloads so that a new key does not cost every connection."""

    def __init__(self) -> None:
        self._pools: dict[Egress, PooledTransport] = {}

    def get(self, egress: Egress) -> PooledTransport:
        """The pool for an egress. Raises `InvalidEgress`."""
        pool = self._pools.get(egress)
        if pool is None:
            pool = self._pools[egress] = PooledTransport(egress)
        return pool

    def keep_only(self, egresses: Iterable[Egress]) -> list[PooledTransport]:
        """Forget the pools that no configuration uses any more, and return them: they are to be retired."""
        wanted = set(egresses)
        return [self._pools.pop(egress) for egress in list(self._pools) if egress not in wanted]

    async def close(self) -> None:
        """Close all connections."""
        for pool in self.keep_only(()):
            await pool.close()


def compile_runtime(document: ConfigDocument, config_hash: str, transports: Transports) -> Runtime:
    """Make everything ready that a request needs. Raises `UnusableConfig`."""
    problems: list[str] = []
    providers: list[ConfiguredProvider] = []
    egresses: set[Egress] = set()
    for entry in document.providers:
        try:
            egress = _egress(entry)
            transport = transports.get(egress)
            configured = _provider(entry, transport)
            if configured.provider.base_url.startswith("https:"):
                transport.trust()  # takes a while: at the start, not in the first request
            providers.append(configured)
            egresses.add(egress)
        except InvalidEgress as error:
            problems.append(f"LLMProvider {entry.namespace}/{entry.name}: spec.{error}")
        except UnknownProviderType as error:  # also where its class is known and of no use
            problems.append(f"LLMProvider {entry.namespace}/{entry.name}: spec.type: {error}")
    team = document.team
    if team is not None and team.spec.limits and document.store.url is None:
        problems.append(
            f"TeamQuota {team.label}: spec.limits cannot be counted without a store. Fix: set store.url to a Redis"
        )
    if problems:
        raise UnusableConfig(*problems)
    return Runtime(
        config_hash=config_hash,
        team=team.label if team else NO_TEAM,
        team_is_allowed=team is None or team.allowed,
        routes=Routes(providers, cheapest_first=team is not None and team.spec.routing is Routing.CHEAPEST),
        access=_access(team),
        cache=_cache(team),
        egresses=frozenset(egresses),
        optimization=team.spec.optimization if team else Optimization(),
    )


def _access(team: TeamEntry | None) -> ModelAccess:
    return ModelAccess(team.spec.models.allow, team.spec.models.deny) if team else ModelAccess()


def _cache(team: TeamEntry | None) -> CachePolicy:
    return CachePolicy(team.spec.cache.generations, team.spec.cache.max_ttl_seconds) if team else CachePolicy()


def _egress(entry: ProviderEntry) -> Egress:
    certificate = entry.client_certificate
    return Egress(
        proxy_url=entry.spec.egress.proxy_url,
        ca_bundle=entry.ca_bundle,
        certificate=certificate.certificate if certificate else None,
        private_key=SecretText(certificate.private_key.get_secret_value()) if certificate else None,
    )


def _provider(entry: ProviderEntry, transport: Transport) -> ConfiguredProvider:
    spec = entry.spec
    ttl = spec.cache.ttl_seconds
    return ConfiguredProvider(
        provider=LLMProviderFactory.create(spec.type, _settings(entry), transport),
        priority=spec.priority,
        weight=spec.weight,
        models=spec.models,
        passthrough_paths=spec.passthrough_paths,
        asks_for_stream_usage=spec.stream_usage is StreamUsage.REQUEST,
        cache_ttl_seconds={
            RequestType.GENERATION: ttl.generation,
            RequestType.EMBEDDINGS: ttl.embeddings,
            RequestType.TOKEN_COUNT: ttl.token_count,
        },
        identity=entry.identity,
        requests_per_minute=spec.rate_limits.requests_per_minute or 0,
        tokens_per_minute=spec.rate_limits.tokens_per_minute or 0,
        retry=RetryPolicy(
            max_attempts=spec.retry.max_attempts,
            initial_backoff_seconds=spec.retry.initial_backoff_milliseconds / 1000,
            max_backoff_seconds=spec.retry.max_backoff_seconds,
            on_timeout=spec.retry.on_timeout,
        ),
        circuit=CircuitSettings(
            failure_threshold=spec.circuit_breaker.failure_threshold,
            open_seconds=spec.circuit_breaker.open_seconds,
            slow_start_seconds=min(SLOW_START_SECONDS, spec.circuit_breaker.open_seconds),
        ),
    )


def _settings(entry: ProviderEntry) -> ProviderSettings:
    spec = entry.spec
    authentication = spec.authentication
    return ProviderSettings(
        name=entry.label,
        base_url=spec.base_url,
        key=SecretText(entry.credential.get_secret_value()) if entry.credential else None,
        authentication=Authentication(authentication.header, authentication.scheme) if authentication else None,
        headers=tuple((header.name, header.value) for header in spec.headers),
        apis=spec.apis or (),
        timeouts=_timeouts(spec),
    )


def _timeouts(spec: LLMProviderSpec) -> Timeouts:
    return Timeouts(
        connect=spec.timeouts.connect_seconds,
        response=spec.timeouts.response_seconds,
        first_token=spec.timeouts.first_token_seconds,
        idle=spec.timeouts.idle_seconds,
        stream=spec.timeouts.stream_seconds,
    )
