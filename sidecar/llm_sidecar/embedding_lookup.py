"""A batch of texts to embed, of which a provider is asked only for what nobody asked before.

What is asked for is a request of our own, so it is written anew. The answer is put together in the application's order,
with the usage of what was asked for: that is what was paid.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import orjson
from aiohttp import web

from llm_sidecar.cache.embedding_batch import Batch, Vectors, read_batch, read_vectors, rest_of_hits, write_answer
from llm_sidecar.cache.embedding_items import FoundItems, ItemCache, NewItem
from llm_sidecar.cache.key import cache_digest, request_digest
from llm_sidecar.cache.memory import unheard
from llm_sidecar.failover.attempt import MAX_PLAIN_ANSWER_BYTES
from llm_sidecar.formats.base import Usage
from llm_sidecar.prices import prices
from llm_sidecar.record import RequestRecord, Saving
from llm_sidecar.replies import answer_headers

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    from llm_sidecar.cache.directives import Directives
    from llm_sidecar.exchange import Exchange
    from llm_sidecar.failover.attempt import PlainAnswer
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import ParsedRequest
    from llm_sidecar.providers.base import Headers

JSON: Final = ("Content-Type", "application/json")


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingLookup:
    """One batch, and which of its vectors are there."""

    cache: ItemCache
    candidate: Candidate
    """Whose vectors these are. Those of another model do not fit to them."""
    batch: Batch
    digests: Sequence[str]
    found: FoundItems
    asked_model: str
    """As the application calls it."""
    missing: Sequence[int]
    """Positions of the items to ask for: each that is not there, once."""
    ttl_seconds: int
    asked_at: float

    @property
    def is_complete(self) -> bool:
        """All are there."""
        return not self.missing

    @property
    def is_partial(self) -> bool:
        """Some are, or some stand twice: a provider is asked for less than the application did."""
        return len(self.missing) < len(self.batch.items)

    def rest(self, request: ParsedRequest) -> ParsedRequest:
        """The request for what is missing."""
        document = self.batch.document(self.missing)
        body = orjson.dumps(document)
        estimate = -(-request.input_tokens_estimate * len(body) // len(request.body))
        return replace(request, body=body, document=document, input_tokens_estimate=estimate)

    def vectors(self, answer: bytes) -> Vectors | None:
        """The vectors of an answer to what is missing; None where it is not understood."""
        try:
            document = orjson.loads(answer)
        except orjson.JSONDecodeError:
            return None
        return read_vectors(self.batch.api, document, count=len(self.missing))

    def answer(self, asked: Vectors | None = None) -> bytes:
        """The whole answer, of what was there and of what was asked for."""
        found = {digest: item.vector for digest, item in self.found.items.items()}
        if asked is not None:
            for position, vector in zip(self.missing, asked.vectors, strict=True):
                found[self.digests[position]] = orjson.dumps(vector)
            rest = asked.rest
        else:
            rest = rest_of_hits(self.batch.api, next(iter(self.found.items.values())).model)
        return write_answer(self.batch.api, [found[digest] for digest in self.digests], rest)

    @property
    def shared_under(self) -> tuple[Hashable, ...]:
        """Equal for those who ask for the same, and lack the same, with no purge in between."""
        found = self.found
        purges = unheard(self.asked_at) if found.epochs is None else found.epochs
        return ("items", self.batch.is_list, *self.digests, *self.missing, purges, found.not_before)

    def reply(self, record: RequestRecord) -> web.Response:
        """The answer, where all is there: it cost nothing."""
        candidate = self.candidate
        self.note_saving(record)
        record.cache, record.status = "hit", 200
        record.usage = Usage(input_tokens=sum(saving.tokens for saving in record.savings), output_tokens=0)
        record.cache_saved_nano_usd = sum(saving.nano_usd for saving in record.savings)
        record.provider, record.model = candidate.name, candidate.model.name
        record.answered_by = (candidate.name, candidate.answering_model(self.asked_model))
        return web.Response(status=200, body=self.answer(), headers=answer_headers(self._headers([JSON]), record))

    def together(self, answer: PlainAnswer, asked: Vectors) -> PlainAnswer:
        """A provider's answer to what was missing, with what was there."""
        return replace(answer, body=self.answer(asked), headers=self._headers(answer.headers))

    def _headers(self, headers: Headers) -> Headers:
        """With the age of the oldest vector that was there."""
        if not self.found.items:
            return headers
        age_seconds = self.asked_at - min(item.asked_at for item in self.found.items.values())
        others = [(name, value) for name, value in headers if name.lower() != "age"]
        return [*others, ("Age", str(max(0, int(age_seconds))))]  # other pods' clocks may be ahead

    def note_saving(self, record: RequestRecord) -> None:
        """What was not asked for. Only where there is the whole answer: else it may yet be asked for, or was no use."""
        told = [self.found.items.get(digest) for digest in self.digests]
        tokens = sum(item.tokens for item in told if item is not None)
        if tokens:
            pricing = self.candidate.model.pricing
            nano_usd = 0 if pricing is None else prices(pricing).cost_nano_usd(Usage(input_tokens=tokens))
            record.savings += (Saving("embedding_items", tokens, nano_usd),)

    async def keep(self, asked: Vectors, usage: Usage | None) -> bool:
        """Store what is new."""
        epochs = self.found.epochs
        if epochs is None:
            return False
        sizes = [len(orjson.dumps(self.batch.items[position])) for position in self.missing]
        tokens = usage.told_input_tokens or 0 if usage is not None else 0
        told_model = asked.rest.get("model")
        model = told_model if isinstance(told_model, str) else self.candidate.model.name
        items = {
            self.digests[position]: NewItem(vector, model, round(tokens * size / sum(sizes)))
            for position, vector, size in zip(self.missing, asked.vectors, sizes, strict=True)
        }
        return await self.cache.keep(items, epochs=epochs, asked_at=self.asked_at, ttl_seconds=self.ttl_seconds)


async def look_up(
    exchange: Exchange, request: ParsedRequest, candidate: Candidate, directives: Directives
) -> EmbeddingLookup | None:
    """Which vectors are there; None where a request is not cached item by item, but as a whole or not at all."""
    serving = exchange.serving
    if directives.no_store or serving.items is None or not serving.runtime.cache.allows(request):
        return None
    ttl_seconds = serving.runtime.cache.ttl_seconds(request.call.type, candidate.configured.cache_ttl_seconds)
    batch = read_batch(request) if ttl_seconds > 0 else None
    if batch is None:
        return None
    common = request_digest(replace(request, document=batch.common), exchange.headers, exchange.query)
    if common is None:
        return None
    configured, model = candidate.configured, candidate.answering_model(request.model)
    place = configured.provider.identity
    digests = [cache_digest(item, place=place, api=candidate.api, model=model) for item in batch.digests(common)]
    asked_at = time.time()
    distinct = {digest: position for position, digest in reversed(list(enumerate(digests)))}
    served_for_seconds = directives.served_for_seconds(ttl_seconds)
    found = await serving.items.find(
        list(distinct) if served_for_seconds else (),
        provider=configured.identity,
        model=model,
        asked_since=asked_at - served_for_seconds,
    )
    missing = sorted(position for digest, position in distinct.items() if digest not in found.items)
    lookup = EmbeddingLookup(
        cache=serving.items,
        candidate=candidate,
        batch=batch,
        digests=digests,
        found=found,
        asked_model=request.model,
        missing=missing,
        ttl_seconds=ttl_seconds,
        asked_at=asked_at,
    )
    return lookup if _fits(lookup) else None


def _fits(lookup: EmbeddingLookup) -> bool:
    """True where the answer, put together, is no larger than what is held of a provider's."""
    sizes = [len(item.vector) for item in lookup.found.items.values()]
    return max(sizes, default=0) * len(lookup.digests) <= MAX_PLAIN_ANSWER_BYTES
