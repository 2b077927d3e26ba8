"""Manifests without a cluster: the same resources, from files, checked by the same rules, resolved to one config.

Used by `llm-sidecar check` and `llm-sidecar run`. What the API server or the operator would say about a resource
is said here with file and line. Values of Secrets never appear in a problem.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Generic, TypeVar

from pydantic import SecretStr, ValidationError

from llm_sidecar.contract.config import (
    ConfigDocument,
    ConfigRefused,
    InvalidConfig,
    ProviderEntry,
    StoreEntry,
    TeamEntry,
    parse_config,
    render_config,
)
from llm_sidecar.contract.names import API_GROUP, DEFAULT_TEAM, GROUP_VERSION
from llm_sidecar.contract.resources import DEFAULT_NAMESPACE, LLMProvider, Resource, TeamQuota
from llm_sidecar.contract.violations import nearest, violations_of
from llm_sidecar.manifest_files import Document, Problem, Severity, Source, read_documents
from llm_sidecar.manifest_secrets import Resolver, Secret, read_secret

_KINDS: Final[Mapping[str, type[Resource]]] = {"LLMProvider": LLMProvider, "TeamQuota": TeamQuota}

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Located(Generic[_Value]):
    """A resource and where it was read."""

    value: _Value
    source: Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifests:
    """Everything that was read. `problems` says what is wrong with it, by file and line."""

    providers: tuple[Located[LLMProvider], ...]
    team_quotas: tuple[Located[TeamQuota], ...]
    secrets: Mapping[str, Secret]
    """By `NAMESPACE/NAME`."""
    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that keep it from working."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)


class ManifestsRefused(ConfigRefused):
    """No config can be made of these manifests. Each line says where, what and what to do."""


def load(
    paths: Sequence[Path],
    *,
    known_types: Collection[str],
    environment: Mapping[str, str] | None = None,
) -> Manifests:
    """Read files and folders, and check all that can be checked without a cluster. Raises `Unreadable`.

    `known_types` are the registered provider types.
    """
    loading = _Loading(known_types=known_types)
    for document in read_documents(paths, loading.problems):
        loading.add(document)
    loading.check_references(os.environ if environment is None else environment)
    return loading.result()


@dataclass(slots=True, kw_only=True)
class _Loading:
    """The manifests while they are being read."""

    known_types: Collection[str]
    problems: list[Problem] = field(default_factory=list)
    providers: list[Located[LLMProvider]] = field(default_factory=list)
    team_quotas: list[Located[TeamQuota]] = field(default_factory=list)
    secrets: dict[str, Secret] = field(default_factory=dict)
    seen: dict[tuple[str, str], Source] = field(default_factory=dict)

    def add(self, document: Document) -> None:
        content, source = document.content, document.source
        kind, version = content.get("kind"), content.get("apiVersion")
        if kind == "Secret" and version == "v1":
            self._add_secret(document)
        elif not isinstance(kind, str) or not isinstance(version, str):
            missing = "kind" if not isinstance(kind, str) else "apiVersion"
            self.problems.append(source.problem((missing,), "required value", f"add it, such as {_EXAMPLES[missing]}"))
        elif version.split("/")[0] == API_GROUP:
            self._add_resource(document)
        else:
            meant = nearest(kind, list(_KINDS))
            fix = f"for a resource of ours write apiVersion: {GROUP_VERSION}" if meant == kind else ""
            message = f"{kind} of {version} is not a kind that llm-sidecar reads, so it is left out"
            self.problems.append(source.problem(("kind",), message, fix, Severity.NOTE))

    def _add_resource(self, document: Document) -> None:
        content, source = document.content, document.source
        kind = str(content.get("kind"))
        model = _KINDS.get(kind)
        if model is None:
            meant = nearest(kind, list(_KINDS))
            fix = f"did you mean {meant}?" if meant else f"write one of {', '.join(_KINDS)}"
            self.problems.append(source.problem(("kind",), "unknown kind", fix))
            return
        # The operator writes the status, so a manifest taken from a cluster has one.
        written = {name: value for name, value in content.items() if name != "status"}
        try:
            resource = model.model_validate(written, by_alias=True, by_name=False)
        except ValidationError as error:
            for found in violations_of(error, model):
                self.problems.append(source.problem(found.location, found.message, found.fix))
            self._is_new(kind, content.get("metadata"), source)
            return
        if not self._is_new(kind, content.get("metadata"), source):
            return
        if isinstance(resource, LLMProvider):
            self._add_provider(Located(value=resource, source=source))
        elif isinstance(resource, TeamQuota):
            self.team_quotas.append(Located(value=resource, source=source))

    def _is_new(self, kind: str, metadata: Any, source: Source) -> bool:
        if not isinstance(metadata, dict):
            return False
        identity = f"{metadata.get('namespace', DEFAULT_NAMESPACE)}/{metadata.get('name')}"
        first = self.seen.setdefault((kind, identity), source)
        if first is not source:
            message = f"{kind} {identity} is already at {first.file}:{first.line()}"
            self.problems.append(source.problem(("metadata", "name"), message, "rename or remove one of them"))
        return first is source

    def _add_provider(self, provider: Located[LLMProvider]) -> None:
        spec, source = provider.value.spec, provider.source
        if spec.type not in self.known_types:
            known = sorted(self.known_types)
            meant = nearest(spec.type, known)
            fix = (
                f"did you mean {meant}?"
                if meant
                else f"write one of {', '.join(known)}, or install the package with it"
            )
            self.problems.append(source.problem(("spec", "type"), "no provider of this type is registered", fix))
        if not spec.models and not spec.passthrough_paths:
            message = "the provider has no model, so no request can reach it"
            fix = 'list its models; - name: "*" takes every name'
            self.problems.append(source.problem(("spec", "models"), message, fix))
        self.providers.append(provider)

    def _add_secret(self, document: Document) -> None:
        secret = read_secret(document, self.problems)
        if secret is not None and self._is_new("Secret", document.content["metadata"], document.source):
            self.secrets[f"{secret.namespace}/{secret.name}"] = secret

    def check_references(self, environment: Mapping[str, str]) -> None:
        """What can be said only when all documents are known."""
        for provider in self.providers:
            resolver = Resolver(
                secrets=self.secrets, environment=environment, provider=provider.value, source=provider.source
            )
            resolver.resolve()
            self.problems += resolver.problems
        known = {provider.value.identity for provider in self.providers}
        declared = {identity for kind, identity in self.seen if kind == "LLMProvider"}
        for quota in self.team_quotas:
            for position, reference in enumerate(quota.value.spec.providers):
                if not _providers_meant(reference, quota.value, known | declared):
                    location = ("spec", "providers", position)
                    meant = nearest(reference, sorted(known) + sorted(name.split("/")[1] for name in known))
                    fix = f"did you mean {meant}?" if meant else "add its manifest, or create it in the cluster"
                    message = "no LLMProvider of this name is among these files"
                    self.problems.append(quota.source.problem(location, message, fix, Severity.WARNING))

    def result(self) -> Manifests:
        """All of it, problems ordered by file and line."""
        problems = sorted(dict.fromkeys(self.problems), key=lambda problem: (problem.file, problem.line))
        return Manifests(
            providers=tuple(self.providers),
            team_quotas=tuple(self.team_quotas),
            secrets=self.secrets,
            problems=tuple(problems),
        )


_EXAMPLES: Final = {"kind": "kind: LLMProvider", "apiVersion": f"apiVersion: {GROUP_VERSION}"}


def _providers_meant(reference: str, quota: TeamQuota, known: Collection[str]) -> list[str]:
    """The identities that one entry of `spec.providers` stands for; all namespaces count as shared here."""
    if "/" in reference:
        return [reference] if reference in known else []
    own = f"{quota.metadata.namespace}/{reference}"
    return [own] if own in known else sorted(name for name in known if name.split("/")[1] == reference)


def assemble(
    manifests: Manifests,
    *,
    team: str | None = None,
    store_url: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> ConfigDocument:
    """One team's config, as the operator would publish it. All namespaces count as shared.

    `team` is NAME or NAMESPACE/NAME. Raises `ManifestsRefused`.
    """
    if manifests.errors:
        raise ManifestsRefused(*manifests.errors)
    quota = choose_team(manifests, team)
    entries, problems = [], []
    for provider in manifests.providers:
        if quota is not None and not _serves(provider.value, quota, manifests):
            continue
        resolver = Resolver(
            secrets=manifests.secrets,
            environment=os.environ if environment is None else environment,
            provider=provider.value,
            source=provider.source,
        )
        entry = resolver.resolve()
        problems += resolver.problems
        if entry is not None:
            entries.append(entry)
    if problems:  # whatever `check` thinks of it: without a key that is asked for, nothing can be served
        raise ManifestsRefused(*(replace(problem, severity=Severity.ERROR) for problem in problems))
    if not entries:
        raise ManifestsRefused("no LLMProvider is left to use. Fix: name files that hold one, or widen spec.providers")
    return _checked(entries, quota, store_url)


def _checked(entries: list[ProviderEntry], quota: TeamQuota | None, store_url: str | None) -> ConfigDocument:
    try:
        document = ConfigDocument(
            team=TeamEntry(namespace=quota.metadata.namespace, name=quota.metadata.name, spec=quota.spec)
            if quota is not None
            else None,
            providers=tuple(entries),
            store=StoreEntry(url=SecretStr(store_url) if store_url is not None else None),
        )
    except ValidationError as error:
        found = violations_of(error, ConfigDocument)
        raise ManifestsRefused(*(f"{item.path}: {item.message}. Fix: {item.fix}" for item in found)) from None
    try:
        # The pod reads the document from bytes; what does not survive that would work here and nowhere else.
        return parse_config(render_config(document))
    except InvalidConfig as invalid:
        raise ManifestsRefused(*invalid.problems) from None


def choose_team(manifests: Manifests, team: str | None) -> TeamQuota | None:
    """The quota to run under; None where there is none at all. Raises `ManifestsRefused` with the choices."""
    quotas = [quota.value for quota in manifests.team_quotas]
    if team is None:
        candidates = quotas if len(quotas) == 1 else [quota for quota in quotas if quota.metadata.name == DEFAULT_TEAM]
        if not quotas:
            return None
    else:
        candidates = [quota for quota in quotas if team in (quota.identity, quota.metadata.name)]
    if len(candidates) == 1:
        return candidates[0]
    choices = ", ".join(quota.identity for quota in quotas) or "none"
    asked = "which team to run as is not clear" if team is None else f"no single TeamQuota is called {team}"
    raise ManifestsRefused(f"{asked}; there are: {choices}. Fix: say --team NAMESPACE/NAME")


def _serves(provider: LLMProvider, quota: TeamQuota, manifests: Manifests) -> bool:
    if not quota.spec.providers:
        return True
    known = {other.value.identity for other in manifests.providers}
    return any(provider.identity in _providers_meant(reference, quota, known) for reference in quota.spec.providers)
