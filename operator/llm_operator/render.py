"""From what was heard to the bytes that a claim's pods get. Pure: equal inputs give equal bytes.

Holds exactly what this team may use in this namespace, and nothing more: whoever can read the Secret has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache

from pydantic import SecretStr, ValidationError

from llm_operator.inject.claims import may_claim
from llm_operator.reconcile.credentials import Credentials, resolve
from llm_operator.reconcile.objects import Claim, Key, ObservedProvider, ObservedTeam
from llm_operator.reconcile.selection import Rules, providers_for
from llm_operator.reconcile.store import Store
from llm_operator.settings import Settings
from llm_sidecar.contract.allowed_namespaces import AllowedNamespaces
from llm_sidecar.contract.config import (
    MAX_DOCUMENT_BYTES,
    ConfigDocument,
    ProviderEntry,
    StoreEntry,
    TeamEntry,
    config_hash,
    render_config,
)
from llm_sidecar.contract.names import DEFAULT_TEAM
from llm_sidecar.contract.resources import HealthCheck, LLMProviderSpec
from llm_sidecar.contract.violations import violations_of
from llm_sidecar.providers.factory import LLMProviderFactory


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What a claim's Secret should hold."""

    raw: bytes = field(repr=False)
    hash: str
    providers: frozenset[Key]
    """Those whose keys are inside."""
    is_allowed: bool
    """False: the claim is refused or revoked, and the document holds no provider and no store."""


@dataclass(frozen=True, slots=True)
class NotRendered:
    """What was published before must stay: the reason, for the team's condition."""

    message: str


def render(claim: Claim, *, store: Store, settings: Settings) -> Rendering | NotRendered:
    """The document of one claim."""
    team = store.teams.get(claim.team_key)
    namespace = store.namespace(claim.namespace)
    labels = namespace.labels if namespace is not None else {}
    if not is_allowed(claim, team, namespace_labels=labels, require_quota=settings.require_quota):
        return _without_keys(claim)
    if team is not None and team.resource is None:
        # To publish without limits that cannot be read would lift them.
        return NotRendered("the spec cannot be read, so what was published before stays")
    rules = Rules(shared_namespaces=settings.provider_namespaces, namespace_labels=labels)
    used = set[str]()
    entries: dict[Key, ProviderEntry] = {}
    for provider in _by_precedence(providers_for(claim, team, store.providers, rules), settings):
        entry = _entry(provider, store, settings, used)
        if entry is not None:
            entries[provider.key] = entry
            used.add(entry.label)
    return _document(claim, team, entries, settings)


def is_allowed(
    claim: Claim, team: ObservedTeam | None, *, namespace_labels: Mapping[str, str], require_quota: bool
) -> bool:
    """The check that the webhook made at admission, made again."""
    if team is not None:
        return may_claim(team.document, namespace=claim.namespace, namespace_labels=namespace_labels)
    # Without a TeamQuota a pod belongs to the team `default` of its own namespace, which nothing limits.
    return not require_quota and (claim.team.namespace, claim.team.name) == (claim.namespace, DEFAULT_TEAM)


def _without_keys(claim: Claim) -> Rendering:
    team = TeamEntry(namespace=claim.team.namespace, name=claim.team.name, allowed=False)
    raw = render_config(ConfigDocument(team=team))
    return Rendering(raw=raw, hash=config_hash(raw), providers=frozenset(), is_allowed=False)


def _by_precedence(providers: list[ObservedProvider], settings: Settings) -> list[ObservedProvider]:
    shared = settings.provider_namespaces

    def position(provider: ObservedProvider) -> tuple[int, Key]:
        namespace = provider.key.namespace
        return shared.index(namespace) if namespace in shared else len(shared), provider.key

    return sorted(providers, key=position)


def _entry(provider: ObservedProvider, store: Store, settings: Settings, used: set[str]) -> ProviderEntry | None:
    credentials = resolve(provider, store)
    if provider.resource is None or not isinstance(credentials, Credentials):
        return None
    if provider.resource.spec.type not in known_types():
        return None
    return ProviderEntry(
        namespace=provider.key.namespace,
        name=provider.key.name,
        # Of two shared providers with one name, the second is known by its namespace as well.
        shared=provider.key.namespace in settings.provider_namespaces and provider.key.name not in used,
        spec=_as_published(provider.resource.spec),
        credential=credentials.credential,
        ca_bundle=credentials.ca_bundle,
        client_certificate=credentials.client_certificate,
    )


@cache
def known_types() -> frozenset[str]:
    """Provider types that are installed here. Looked up once: that reads the metadata of every package."""
    return frozenset(LLMProviderFactory.types())


def _as_published(spec: LLMProviderSpec) -> LLMProviderSpec:
    # Who else may use it is nobody's business in this pod, and how it is probed is the controller's: no new document.
    return spec.model_copy(update={"allowed_namespaces": AllowedNamespaces(), "health_check": HealthCheck()})


def _document(
    claim: Claim, team: ObservedTeam | None, entries: Mapping[Key, ProviderEntry], settings: Settings
) -> Rendering | NotRendered:
    spec = team.resource.spec if team is not None and team.resource is not None else None
    url = settings.redis_url
    try:
        document = ConfigDocument(
            team=None
            if spec is None
            else TeamEntry(
                namespace=claim.team.namespace,
                name=claim.team.name,
                spec=spec.model_copy(update={"allowed_namespaces": AllowedNamespaces()}),
            ),
            providers=tuple(entries[key] for key in sorted(entries)),
            store=StoreEntry(url=SecretStr(url.get_secret_value()), ca_bundle=settings.redis_ca_bundle)
            if url is not None
            else StoreEntry(),
        )
    except ValidationError as error:
        found = violations_of(error, ConfigDocument)
        return NotRendered("; ".join(f"{one.path}: {one.message}. Fix: {one.fix}" for one in found))
    raw = render_config(document)
    if len(raw) > MAX_DOCUMENT_BYTES:
        message = f"its configuration has {len(raw)} bytes, more than a Secret holds. Fix: name fewer providers"
        return NotRendered(message)
    return Rendering(raw=raw, hash=config_hash(raw), providers=frozenset(entries), is_allowed=True)
