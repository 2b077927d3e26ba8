"""One request under way, and what a configuration brings for it. Shared by the stages that answer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from llm_sidecar.formats.recognise import Family

if TYPE_CHECKING:
    from aiohttp import web

    from llm_sidecar.budget import Held
    from llm_sidecar.cache.answers import AnswerCache
    from llm_sidecar.cache.embedding_items import ItemCache
    from llm_sidecar.providers.base import Headers
    from llm_sidecar.quota.provider_rate import ProviderRates
    from llm_sidecar.quota.team_quota import Quota
    from llm_sidecar.record import RequestRecord
    from llm_sidecar.runtime import Runtime


class StoreUse:
    """Kept by whatever may still ask a store: each configuration's `Serving`, and so each request that has one.

    It carries nothing. That it is gone tells that nobody has the store any more, at no cost for a request.
    """

    __slots__ = ("__weakref__",)


@dataclass(frozen=True, slots=True)
class Serving:
    """What requests are served with. A reload makes a new one; a request keeps the one that it began with."""

    runtime: Runtime
    quota: Quota | None
    cache: AnswerCache | None
    items: ItemCache | None = None
    """Vectors, each by itself."""
    rates: ProviderRates | None = None
    """None without a store."""
    store_use: StoreUse | None = None
    """Keeps the store open for as long as a request has this."""


@dataclass(slots=True)
class Exchange:
    """One request, and what has been learned of it."""

    request: web.BaseRequest
    serving: Serving
    record: RequestRecord
    held: Held
    family: Family = Family.OPENAI
    errors_in_array: bool = False
    """As Google tells them where the stream would have been a JSON array."""
    query: str = ""
    """Without the key that old SDKs put there."""
    headers: Headers = field(default_factory=list)
    """As they may go to a provider."""
    keeps_answer: bool = False
    """The cache may have the answer: a stream is then kept while it is relayed."""
