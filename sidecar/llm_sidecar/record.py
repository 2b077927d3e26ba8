"""What is remembered of one request until it is over: one object, from which metrics and the audit line are made."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from llm_sidecar.contract.names import API, RequestType
    from llm_sidecar.formats.base import Usage

UsageSource = Literal["measured", "estimated", "partial"]
CacheResult = Literal["hit", "miss", "bypass", "coalesced", "stale"]
Strategy = Literal["prompt_caching", "single_flight", "embedding_items"]
"""What saved something: a label of metrics."""

NOBODY = "none"
"""The provider of a request that reached none."""

OTHER = "other"
"""Stands for every name that is not configured: what a client types must not become a label."""


@dataclass(slots=True)
class Attempt:
    """One try at one provider."""

    provider: str
    outcome: str
    """`answered`, or a `FailureReason`."""
    status: int | None
    milliseconds: float
    detail: str = ""
    """For the error that names each attempt; no address, nothing of a body."""
    model: str = ""
    waited_milliseconds: float = 0
    """Before it was made."""


@dataclass(frozen=True, slots=True)
class Saving:
    """What a strategy spared one request."""

    strategy: Strategy
    tokens: int
    nano_usd: int = 0
    """0 where the model has no price; below zero where it cost more than it spared."""


@dataclass(slots=True)
class Skipped:
    """A provider that was not tried."""

    provider: str
    model: str
    reason: str


@dataclass(slots=True)
class RequestRecord:
    """One request. Times are seconds of the monotonic clock."""

    request_id: str
    team: str
    started: float = field(default_factory=time.perf_counter)
    api: API | None = None
    type: RequestType | None = None
    model: str = OTHER
    """The configured name that the asked one matched."""
    provider: str = NOBODY
    answered_by: tuple[str, str] | None = None
    """Provider and model, as told to the application."""
    stream: bool = False
    status: int = 0
    error_code: str = ""
    cache: CacheResult | None = None
    cache_key: str = ""
    """The digest under which the cache was asked; for purging this one answer."""
    cache_saved_nano_usd: int = 0
    """What a provider would have taken for the answer that the cache gave, where the model has a price."""
    attempts: list[Attempt] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    """What the language of the provider that answered could not say, and was left out as harmless."""
    first_content: float | None = None
    usage: Usage | None = None
    usage_source: UsageSource | None = None
    charged_tokens: int = 0
    cost_nano_usd: int | None = None
    """Of the answer, where the model has a price."""
    sdk_retry_count: int = 0
    client_gone: bool = False
    interrupted: bool = False
    """A stream that had begun ended without its terminal marker."""
    quota_remaining: str = ""
    shadow_refused: tuple[str, ...] = ()
    """Limits that only watch, and would have refused it."""
    unbounded: bool = False
    """A limit reserves its Maximum, which cannot be told: some input is no text in the body, or output has no cap."""
    downgraded_from: str = ""
    """The model in whose stead a cheaper one answered, since a limit is nearly used up."""
    refused_limit: str = ""
    """The limit of the team's quota that refused the request."""
    output_clamped_tokens: int = 0
    """The bound on output that the team's clamp put in the place of the request's own; 0 where it changed nothing."""
    prompt_cache_marks: int = 0
    """How many places of the prompt were marked for the provider's own cache."""
    savings: tuple[Saving, ...] = ()
