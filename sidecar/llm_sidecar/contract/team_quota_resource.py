"""`TeamQuota`: what a team may use, and how much of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field

from llm_sidecar.contract.allowed_namespaces import AllowedNamespaces
from llm_sidecar.contract.fields import ModelPattern, TTLSeconds
from llm_sidecar.contract.limits import Limit
from llm_sidecar.contract.rules import ContractModel, Rule, UniqueBy, matching


class OnStoreUnavailable(StrEnum):
    """What to do with requests while the store that counts them is away."""

    LOCAL_SHARE = "LocalShare"
    ALLOW = "Allow"
    DENY = "Deny"


class OnAbandoned(StrEnum):
    """What becomes of a reservation whose sidecar is gone."""

    CHARGE = "Charge"
    RELEASE = "Release"


class UnpricedRequests(StrEnum):
    """What to do, under a cost limit, with a request to a model without a price."""

    REFUSE = "Refuse"
    ALLOW = "Allow"


class PromptCaching(StrEnum):
    """Whether prompts are prepared for the providers' own caches."""

    OFF = "Off"
    AUTO = "Auto"


class Routing(StrEnum):
    """How providers of equal priority share a team's requests."""

    WEIGHTED = "Weighted"
    CHEAPEST = "Cheapest"


class CachedGenerations(StrEnum):
    """Which generated answers may be kept and served again."""

    NONE = "None"
    DETERMINISTIC = "Deterministic"
    ALL = "All"


def is_time_zone(name: str) -> bool:
    """True for a name of the IANA database."""
    try:
        ZoneInfo(name)
    # A folder of the database ("America") is an OSError or a ValueError, depending on where the database lies.
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


class ModelAccess(ContractModel):
    """Which models the team may ask for. `deny` wins."""

    allow: Annotated[tuple[ModelPattern, ...], Field(max_length=128), UniqueBy()] = Field(
        default=(),
        description="The only models allowed, by name or alias; * at the end stands for any ending. Empty: all.",
    )
    deny: Annotated[tuple[ModelPattern, ...], Field(max_length=128), UniqueBy()] = Field(
        default=(), description="Models refused, even where allow names them; * at the end stands for any ending."
    )


class TeamCache(ContractModel):
    """What of the team's answers may be cached."""

    generations: CachedGenerations = Field(
        default=CachedGenerations.DETERMINISTIC,
        description="Which generated answers are cached: None, Deterministic (the request says temperature 0), All.",
    )
    max_ttl_seconds: TTLSeconds = Field(
        default=86400,
        alias="maxTTLSeconds",
        description="Upper bound, in seconds, on how long a provider says to keep answers. 0 = nothing is cached.",
    )


class Alerts(ContractModel):
    """When people are told how far a limit is used."""

    thresholds_percent: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=1, le=100)], ...], Field(max_length=8), UniqueBy()
    ] = Field(
        default=(50, 80, 95, 100),
        description="Used, in per cent of a limit, at which an Event is written, once in each window.",
    )


class Optimization(ContractModel):
    """Ways to spend fewer tokens. Off unless they are asked for."""

    max_output_tokens: Annotated[int, Field(strict=True, ge=1, le=100_000_000)] | None = Field(
        default=None,
        description="The most output tokens that a request may ask for; one that asks for more, or names no bound, "
        "is sent with this one.",
    )
    prompt_caching: PromptCaching = Field(
        default=PromptCaching.OFF,
        description="Auto: long prefixes that stay the same are marked for the provider's own cache.",
    )


_ProviderReference = Annotated[
    str,
    Field(min_length=1, max_length=127),
    matching(
        "(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?/)?[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?",
        message="is not the name of an LLMProvider",
        fix="write NAME for one of this namespace or a shared one, or NAMESPACE/NAME",
    ),
]


class TeamQuotaSpec(ContractModel):
    """What a team may use, and how much of it."""

    allowed_namespaces: AllowedNamespaces = Field(
        default=AllowedNamespaces(), description="Namespaces whose pods may belong to this team."
    )
    providers: Annotated[tuple[_ProviderReference, ...], Field(max_length=64), UniqueBy()] = Field(
        default=(), description="The only providers to use, as NAME or NAMESPACE/NAME. Empty: all that are open to it."
    )
    models: ModelAccess = Field(default=ModelAccess(), description="Which models the team may ask for.")
    routing: Routing = Field(
        default=Routing.WEIGHTED,
        description="Among providers of equal priority. Weighted: by spec.weight. Cheapest: by what the request would "
        "cost at most, those without a price last.",
    )
    limits: Annotated[tuple[Limit, ...], Field(max_length=32), UniqueBy("name")] = Field(
        default=(), description="Limits, all of which hold. None: unlimited."
    )
    time_zone: Annotated[
        str,
        Field(min_length=1, max_length=64, pattern="^[A-Za-z0-9_+/-]+$"),
        Rule(
            # cel-go looks the zone up and fails the rule where there is none; "Local" would be the API server's own.
            "self != 'Local' && timestamp('2026-01-01T00:00:00Z').getFullYear(self) > 0",
            is_time_zone,
            "is not a time zone of the IANA database",
            "write it like UTC or Europe/Berlin",
        ),
    ] = Field(default="UTC", description="IANA time zone of the limits' calendar windows, such as Europe/Berlin.")
    unpriced_requests: UnpricedRequests = Field(
        default=UnpricedRequests.REFUSE,
        description="Under a costUSD limit, requests to models without pricing. Refuse: refused. Allow: they pass, "
        "and cost nothing there.",
    )
    alerts: Alerts = Field(default=Alerts(), description="When people are told how far a limit is used.")
    on_store_unavailable: OnStoreUnavailable = Field(
        default=OnStoreUnavailable.LOCAL_SHARE,
        description="Requests while the store that counts them is away. LocalShare: each sidecar spends the part of "
        "the limits that it was granted before. Allow: they pass unchecked, and are counted afterwards. Deny: refused.",
    )
    on_abandoned: OnAbandoned = Field(
        default=OnAbandoned.CHARGE,
        description="Requests whose sidecar was killed. Charge: the request and its estimated input count. Release: "
        "nothing counts.",
    )
    optimization: Optimization = Field(default=Optimization(), description="Ways to spend fewer tokens.")
    cache: TeamCache = Field(default=TeamCache(), description="What of the team's answers may be cached.")
