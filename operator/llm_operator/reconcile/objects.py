"""Objects of the cluster as the controller needs them: what is read of each, once, when it comes in."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from pydantic import ValidationError

from llm_operator.inject.outcome import Team
from llm_operator.kube import Document
from llm_sidecar.contract.fields import LABEL_PATTERN
from llm_sidecar.contract.names import CONFIG_HASH_ANNOTATION, INJECTED_LABEL, TEAM_LABEL, TEAM_NAMESPACE_LABEL
from llm_sidecar.contract.resources import LLMProvider, Resource, TeamQuota
from llm_sidecar.contract.violations import violations_of

_NAME: Final = re.compile(LABEL_PATTERN)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Namespace and name. Namespaces themselves have no namespace."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


@dataclass(frozen=True, slots=True, order=True)
class Claim:
    """Pods of a namespace belong to a team. One claim, one published Secret."""

    namespace: str
    team: Team

    @property
    def team_key(self) -> Key:
        """Of the TeamQuota."""
        return Key(self.team.namespace, self.team.name)

    def __str__(self) -> str:
        return f"{self.team} in {self.namespace}"


_Resource = TypeVar("_Resource", bound=Resource)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedResource(Generic[_Resource]):
    """An LLMProvider or a TeamQuota. `resource` is None where it breaks a rule; `problems` tells which, and the fix."""

    key: Key
    uid: str
    generation: int
    document: Document = field(repr=False)
    resource: _Resource | None
    problems: tuple[str, ...] = ()

    @property
    def status(self) -> Mapping[str, Any]:
        """What was last written about it."""
        status = self.document.get("status")
        return status if isinstance(status, dict) else {}

    @property
    def allowed_namespaces(self) -> Mapping[str, Any]:
        """As written: it must be obeyed even where the rest of the resource cannot be read."""
        spec = self.document.get("spec")
        allowed = spec.get("allowedNamespaces") if isinstance(spec, dict) else None
        return allowed if isinstance(allowed, dict) else {}


ObservedProvider = ObservedResource[LLMProvider]
ObservedTeam = ObservedResource[TeamQuota]


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedNamespace:
    """A namespace."""

    name: str
    uid: str
    labels: Mapping[str, str]
    is_terminating: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedSecret:
    """A Secret with our label. `repr` shows no value."""

    key: Key
    values: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedPod:
    """An injected pod that has not finished."""

    key: Key
    uid: str
    claim: Claim
    config_hash: str | None


def key_of(document: Document) -> Key:
    """Whose document it is."""
    metadata = document["metadata"]
    return Key(metadata.get("namespace") or "", metadata["name"])


def observed_provider(document: Document) -> ObservedProvider:
    """Read an LLMProvider."""
    resource, problems = _read(document, LLMProvider)
    return ObservedResource(**_common(document), resource=resource, problems=problems)


def references(provider: ObservedProvider) -> frozenset[str]:
    """Names of the Secrets that a provider refers to."""
    if provider.resource is None:
        return frozenset()
    spec = provider.resource.spec
    found = (
        spec.credentials.secret_key_ref if spec.credentials is not None else None,
        spec.egress.ca_bundle_secret_ref,
        spec.egress.client_certificate_secret_ref,
    )
    return frozenset(one.name for one in found if one is not None)


def observed_team(document: Document) -> ObservedTeam:
    """Read a TeamQuota."""
    resource, problems = _read(document, TeamQuota)
    return ObservedResource(**_common(document), resource=resource, problems=problems)


def _common(document: Document) -> dict[str, Any]:
    metadata = document["metadata"]
    return {
        "key": key_of(document),
        "uid": metadata.get("uid", ""),
        "generation": metadata.get("generation", 0),
        "document": document,
    }


def _read(document: Document, model: type[_Resource]) -> tuple[_Resource | None, tuple[str, ...]]:
    written = {name: value for name, value in document.items() if name != "status"}
    written["metadata"] = {name: document["metadata"].get(name) for name in ("name", "namespace")}
    try:
        return model.model_validate(written, by_alias=True, by_name=False), ()
    except ValidationError as error:
        found = violations_of(error, model)
        return None, tuple(f"{one.path}: {one.message}. Fix: {one.fix}" for one in found)


def observed_namespace(document: Document) -> ObservedNamespace:
    """Read a namespace."""
    metadata = document["metadata"]
    return ObservedNamespace(
        name=metadata["name"],
        uid=metadata.get("uid", ""),
        labels=metadata.get("labels") or {},
        is_terminating=metadata.get("deletionTimestamp") is not None,
    )


def observed_secret(document: Document) -> ObservedSecret:
    """Read a Secret; a value that is not base64 counts as missing."""
    values: dict[str, bytes] = {}
    for name, text in (document.get("data") or {}).items():
        try:
            values[name] = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            continue
    return ObservedSecret(key=key_of(document), values=values)


def observed_pod(document: Document) -> ObservedPod | None:
    """Read a pod; None for one that has finished or that is not of ours."""
    metadata = document["metadata"]
    labels, phase = metadata.get("labels") or {}, (document.get("status") or {}).get("phase")
    team = Team(labels.get(TEAM_NAMESPACE_LABEL, ""), labels.get(TEAM_LABEL, ""))
    if labels.get(INJECTED_LABEL) != "true" or phase in {"Succeeded", "Failed"}:
        return None
    # Anyone who may create pods can write labels: these two become the name of a Secret.
    if not _NAME.match(team.namespace) or not _NAME.match(team.name):
        return None
    return ObservedPod(
        key=key_of(document),
        uid=metadata.get("uid", ""),
        claim=Claim(metadata["namespace"], team),
        config_hash=(metadata.get("annotations") or {}).get(CONFIG_HASH_ANNOTATION),
    )
