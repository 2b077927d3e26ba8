"""The two resources that users write. The CRDs in `crds/` are generated from these models (see `crd.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field

from llm_sidecar.contract.allowed_namespaces import (
    AllowedNamespaces,
    NamespaceSelector,
    NamespacesFrom,
    SelectorOperator,
    SelectorRequirement,
)
from llm_sidecar.contract.fields import ResourceName, SecretKeyReference, SecretReference
from llm_sidecar.contract.limits import ExceededAction, Limit, OnExceeded, Reservation
from llm_sidecar.contract.provider_resource import (
    Authentication,
    Credentials,
    Egress,
    Header,
    HealthCheck,
    HealthCheckMode,
    LLMProviderSpec,
    Model,
    ProviderCache,
    StreamUsage,
    Timeouts,
    TTLByType,
)
from llm_sidecar.contract.rules import ContractModel, Rule
from llm_sidecar.contract.team_quota_resource import (
    Alerts,
    CachedGenerations,
    ModelAccess,
    OnAbandoned,
    OnStoreUnavailable,
    Optimization,
    PromptCaching,
    TeamCache,
    TeamQuotaSpec,
    UnpricedRequests,
)

__all__ = [
    "DEFAULT_NAMESPACE",
    "Alerts",
    "AllowedNamespaces",
    "Authentication",
    "CachedGenerations",
    "Credentials",
    "Egress",
    "ExceededAction",
    "Header",
    "HealthCheck",
    "HealthCheckMode",
    "LLMProvider",
    "LLMProviderSpec",
    "Limit",
    "Metadata",
    "Model",
    "ModelAccess",
    "NamespaceSelector",
    "NamespacesFrom",
    "OnAbandoned",
    "OnExceeded",
    "OnStoreUnavailable",
    "Optimization",
    "PromptCaching",
    "ProviderCache",
    "Reservation",
    "SecretKeyReference",
    "SecretReference",
    "SelectorOperator",
    "SelectorRequirement",
    "StreamUsage",
    "TTLByType",
    "TeamCache",
    "TeamQuota",
    "TeamQuotaSpec",
    "Timeouts",
    "UnpricedRequests",
]

DEFAULT_NAMESPACE: Final = "default"
"""Where an object of a local manifest lies that names no namespace, as with kubectl."""


class Metadata(ContractModel):
    """What we read of an object's metadata; Kubernetes itself owns the rest, so the rest passes."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(min_length=1, max_length=253, pattern="^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
    namespace: ResourceName = DEFAULT_NAMESPACE
    labels: Mapping[str, str] = {}
    annotations: Mapping[str, str] = {}


class Resource(ContractModel):
    """What both kinds have in common."""

    rules = (
        Rule(
            "size(self.metadata.name) <= 63 && !self.metadata.name.contains('.')",
            lambda resource: len(resource.metadata.name) <= 63 and "." not in resource.metadata.name,
            "a name has at most 63 characters and no dots, because it becomes a label",
            "choose a shorter name, with hyphens instead of dots",
            "metadata.name",
        ),
    )

    api_version: Literal["llm-sidecar.io/v1alpha1"] = "llm-sidecar.io/v1alpha1"
    metadata: Metadata

    @property
    def identity(self) -> str:
        """`NAMESPACE/NAME`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"


class LLMProvider(Resource):
    """A place that answers LLM requests: where it is, which key it wants, which models it has."""

    kind: Literal["LLMProvider"] = "LLMProvider"
    spec: LLMProviderSpec


class TeamQuota(Resource):
    """What one team may use: providers, models, how many requests and tokens, and for how much money."""

    kind: Literal["TeamQuota"] = "TeamQuota"
    spec: TeamQuotaSpec = TeamQuotaSpec()
