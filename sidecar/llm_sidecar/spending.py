"""What one request spends: reserved before it leaves, settled when it is over, whichever way it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.names import RequestType
from llm_sidecar.errors import ModelNotAllowed, QuotaStoreUnavailable
from llm_sidecar.formats.base import Usage
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.prices import FEMTO_PER_NANO, Prices, prices
from llm_sidecar.quota import refusal as quota_refusal
from llm_sidecar.quota.demand import Charge, Demand
from llm_sidecar.quota.ledger import LedgerEntry
from llm_sidecar.quota_error import told_to_application
from llm_sidecar.reserving import demand_of, learn_input, no_room, reserve_another

if TYPE_CHECKING:
    from llm_sidecar.failover.routes import Candidate
    from llm_sidecar.formats.base import ParsedRequest, StreamObserver
    from llm_sidecar.quota import Quota, Reservation
    from llm_sidecar.record import Attempt, RequestRecord, UsageSource

BYTES_PER_TOKEN: Final = 4
"""Of generated text, in the mean over languages and code; used only where a provider told nothing."""
TOP_UP_AT: Final = 0.75
"""Once an answer is so far through what was expected of it, twice as much is expected."""
MAX_NAME_CHARACTERS: Final = 128
"""Of a model, as the contract has it: a pattern may match whatever a client types."""
Cheaper = Callable[[], Sequence["Candidate"]]
"""Looks up who may answer in the first candidate's stead near a limit, cheapest first."""


@dataclass(frozen=True, slots=True)
class _InVain:
    """What an answer took that is of no use, at the prices of who gave it."""

    usage: Usage
    source: UsageSource
    cost_femto_usd: int


class Spending:
    """Follows what one request takes. `end` settles; it is called exactly once, and never fails."""

    def __init__(self, quota: Quota | None, record: RequestRecord, parsed: ParsedRequest) -> None:
        self._quota = quota
        self._record = record
        self._parsed = parsed
        self._asked = parsed
        """What the answer is to."""
        self._reservation: Reservation | None = None
        self._candidate: Candidate | None = None
        self._observer: StreamObserver | None = None
        self._usage: Usage | None = None
        """What is charged: as told, and estimated where nothing was."""
        self._source: UsageSource = "partial"
        self._in_vain: _InVain | None = None
        self._nothing_spent = False
        self._tells_usage = True
        self._topping_up: asyncio.Task[None] | None = None

    @classmethod
    async def begin(
        cls,
        quota: Quota | None,
        record: RequestRecord,
        parsed: ParsedRequest,
        candidates: Sequence[Candidate],
        cheaper: Cheaper = tuple,
    ) -> tuple[Spending, Sequence[Candidate]]:
        """Reserve, and tell whom to ask: near a limit that says so, a cheaper model first.

        Raises `TeamQuotaExceeded`, `QuotaStoreUnavailable` or `ModelNotAllowed`.
        """
        spending = cls(quota, record, parsed)
        if quota is None:
            spending._candidate = candidates[0]
            return spending, candidates
        if quota.wants_prices:
            candidates = _priced(quota, record, parsed, candidates)
        try:
            return spending, await spending._reserve(quota, candidates, cheaper)
        except quota_refusal.QuotaExceeded as exceeded:
            raise told_to_application(record, exceeded.refusal) from exceeded
        except quota_refusal.QuotaStoreUnavailable as unavailable:
            raise _store_away(record, unavailable) from unavailable
        except BaseException:  # the application may hang up here, too, and then nobody calls `end`
            if spending._reservation is not None:
                quota.release(spending._reservation)
            raise

    async def _reserve(self, quota: Quota, candidates: Sequence[Candidate], cheaper: Cheaper) -> Sequence[Candidate]:
        record, first = self._record, candidates[0]
        asked = first.answering_model(self._parsed.model)
        instead: Sequence[Candidate] = cheaper() if quota.wants_cheaper(asked) else ()
        plan: Sequence[Candidate] = (*instead, *candidates)
        try:
            reservation = await quota.reserve(record.request_id, demand_of(quota, self._parsed, plan[0]))
        except quota_refusal.QuotaExceeded as exceeded:
            refused = plan[0]
            if not instead and exceeded.refusal.can_downgrade:
                instead = cheaper()
                plan = (*instead, *candidates)
            reservation, plan = await reserve_another(
                quota, record, self._parsed, plan, asked=first, refused=refused, exceeded=exceeded
            )
        self._reservation, self._candidate = reservation, plan[0]
        self._note(reservation)
        # Only now it was heard how far the limit is used. What is spared is worth another look at the store.
        instead = () if instead or not quota.wants_cheaper(asked) else cheaper()
        for position, one in enumerate(instead):
            if await self.moves_to(one) is None:
                return (*instead[position:], *plan)
        return plan

    async def moves_to(self, candidate: Candidate) -> str | None:
        """Another one is asked now: reserve what it may take instead. Returns why it must not be asked, or None."""
        quota, reservation, before = self._quota, self._reservation, self._candidate
        if quota is None or reservation is None or candidate is before:
            self._candidate = candidate
            return None
        model = candidate.answering_model(self._parsed.model)
        if quota.refuses_unpriced(model, has_price=candidate.model.pricing is not None):
            return f"{model} has no price, and the team limits costUSD"
        demand = demand_of(quota, self._parsed, candidate)
        if quota.needs_revision(reservation, demand):
            try:
                await quota.revise(reservation, demand)
            except quota_refusal.QuotaExceeded as exceeded:
                return no_room(exceeded.refusal)
        else:
            reservation.demand = demand
        self._candidate = candidate
        self._note(reservation)
        return None

    def answered(self, usage: Usage | None, *, answer_bytes: int) -> None:
        """A whole answer is there."""
        self._record.usage = usage
        if self._parsed.call.type is RequestType.TOKEN_COUNT:
            self._charge(Usage(), "measured")  # counting spends nothing, so nothing is told
            return
        generates = self._parsed.call.type is RequestType.GENERATION
        told_output = usage.output_tokens if usage is not None else None
        if usage is not None and usage.told_input_tokens is not None and (told_output is not None or not generates):
            self._charge(usage, "measured")
            return
        # What was not told is no zero: some servers send a usage without numbers.
        generated = answer_bytes // BYTES_PER_TOKEN if generates else 0
        self._charge(self._completed(usage, generated if told_output is None else told_output), "estimated")

    def answered_in_vain(self, usage: Usage | None, asked: ParsedRequest) -> None:
        """A whole answer to `asked` is of no use, and another is asked for: it is paid beside that one."""
        told = self._prices
        is_told = usage is not None and usage.told_input_tokens is not None
        spent = usage if usage is not None and is_told else Usage(asked.input_tokens_estimate)
        cost_femto_usd = 0 if told is None else told.cost_femto_usd(spent)
        self._in_vain = _InVain(spent, "measured" if is_told else "estimated", cost_femto_usd)
        self._record.cost_nano_usd = None if told is None else told.cost_nano_usd(spent)

    def answered_rest(self, usage: Usage | None, asked: ParsedRequest) -> None:
        """Only `asked` was asked for, the rest being there: what it took tells nothing of the whole."""
        self._asked = asked
        self.answered(usage, answer_bytes=0)

    def streaming(self, observer: StreamObserver) -> None:
        """A stream has begun; what it tells until the end counts."""
        self._observer = observer

    def stream_ended(self) -> None:
        """Nothing more comes: what it told, and what came over it, is what it took."""
        if self._observer is not None:
            self._take_from_stream(self._observer)

    def progress(self) -> None:
        """A stream goes on. Where it is longer than was expected, hold more, without waiting for it."""
        quota, reservation, observer = self._quota, self._reservation, self._observer
        if quota is None or reservation is None or observer is None or not reservation.counters:
            return
        demand = reservation.demand
        expected = demand.expected_output_tokens
        streamed = observer.content_bytes // BYTES_PER_TOKEN
        is_topping_up = self._topping_up is not None and not self._topping_up.done()
        may_be_longer = expected < demand.maximum_output_tokens or not demand.output_is_bounded
        if may_be_longer and streamed > expected * TOP_UP_AT and not is_topping_up:
            self._topping_up = asyncio.get_running_loop().create_task(
                quota.top_up(reservation, 2 * max(streamed, expected))
            )

    def nobody_answered(self) -> None:
        """Every attempt failed: what may have cost something is charged, otherwise not even the request is."""
        if not any(_may_have_cost(attempt) for attempt in self._record.attempts):
            self._nothing_spent = True

    def refused_by_provider(self) -> None:
        """A provider took the request and found it wrong: it counts as a request, and no token was spent."""
        self._usage, self._source, self._tells_usage = Usage(), "measured", False

    @property
    def spent_tokens(self) -> int:
        """All tokens of the answer, as far as they are known now."""
        if self._observer is not None and self._observer.usage is not None:
            return self._observer.usage.total_tokens
        return self._usage.total_tokens if self._usage is not None else self._parsed.input_tokens_estimate

    def end(self) -> None:
        """Settle with the best that is known."""
        record, quota, reservation = self._record, self._quota, self._reservation
        in_vain = self._in_vain
        if self._nothing_spent and in_vain is None:
            if quota is not None and reservation is not None:
                quota.release(reservation)
            return
        if self._nothing_spent:
            self._usage, self._source, self._tells_usage = Usage(), "measured", False
        if self._usage is None and self._observer is not None:
            self._take_from_stream(self._observer)
        elif self._usage is None:  # interrupted while waiting for a plain answer
            spends = self._parsed.call.type is not RequestType.TOKEN_COUNT
            self._charge(Usage(input_tokens=self._parsed.input_tokens_estimate if spends else 0), "partial")
        usage, source = self._usage or Usage(), self._source
        told = self._prices
        cost_femto_usd = 0 if told is None else told.cost_femto_usd(usage)
        if quota is not None and reservation is not None:
            self._learn(quota, usage)
        if in_vain is not None:
            usage = _together(usage, in_vain.usage)
            source = in_vain.source if source == "measured" else source
            cost_femto_usd += in_vain.cost_femto_usd
        if self._tells_usage or in_vain is not None:
            record.usage_source, record.charged_tokens = source, usage.total_tokens
        if quota is None or reservation is None:
            return
        quota.settle(
            reservation,
            Charge(tokens=usage.total_tokens, cost_femto_usd=cost_femto_usd),
            LedgerEntry(
                source=source,
                api=self._parsed.call.api,
                provider=record.provider,
                model=reservation.demand.model,
                asked_model=self._parsed.model[:MAX_NAME_CHARACTERS],
                usage=usage,
                cost_femto_usd=cost_femto_usd,
                status=record.status,
            ),
        )

    # --- what it comes to

    @property
    def _prices(self) -> Prices | None:
        pricing = None if self._candidate is None else self._candidate.model.pricing
        return None if pricing is None else prices(pricing)

    def _charge(self, usage: Usage, source: UsageSource) -> None:
        self._usage, self._source = usage, source
        told = self._prices
        in_vain_femto_usd = 0 if self._in_vain is None else self._in_vain.cost_femto_usd
        if told is None and not in_vain_femto_usd:
            self._record.cost_nano_usd = None
            return
        cost_femto_usd = in_vain_femto_usd if told is None else in_vain_femto_usd + told.cost_femto_usd(usage)
        self._record.cost_nano_usd = -(-cost_femto_usd // FEMTO_PER_NANO)

    def _completed(self, usage: Usage | None, output_tokens: int) -> Usage:
        """What was told, with an estimate for the input where that was not."""
        if usage is None or usage.told_input_tokens is None:
            return Usage(input_tokens=self._asked.input_tokens_estimate, output_tokens=output_tokens)
        return Usage(
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_tokens=usage.cache_write_tokens,
            output_tokens=output_tokens,
            reasoning_tokens=usage.reasoning_tokens,
        )

    def _take_from_stream(self, observer: StreamObserver) -> None:
        usage = observer.usage
        self._record.usage = usage
        told_output = usage.output_tokens if usage is not None else None
        if observer.ended and usage is not None and usage.told_input_tokens is not None and told_output is not None:
            self._charge(usage, "measured")
            return
        streamed = observer.content_bytes // BYTES_PER_TOKEN
        # Cut off, a stream has told no more than a part of its output: what came over it counts, too.
        output_tokens = told_output if observer.ended and told_output is not None else max(told_output or 0, streamed)
        self._charge(self._completed(usage, output_tokens), "estimated" if observer.ended else "partial")

    def _learn(self, quota: Quota, usage: Usage) -> None:
        if self._source != "measured" or not self._tells_usage or self._reservation is None:
            return
        if self._parsed.call.type is RequestType.TOKEN_COUNT:
            return
        learned = quota.learning.of(self._reservation.demand.model)
        told_input = usage.told_input_tokens
        if told_input is not None:
            learn_input(learned, self._asked, told_input)
        if usage.output_tokens is not None and self._parsed.call.type is RequestType.GENERATION:
            learned.output.learn(usage.output_tokens)

    def _note(self, reservation: Reservation) -> None:
        record = self._record
        record.quota_remaining = reservation.remaining or ""
        record.shadow_refused = reservation.shadow_refused
        record.unbounded = not reservation.demand.is_bounded and any(
            limit.reserves_maximum for limit, _ in reservation.counters
        )


def _priced(
    quota: Quota, record: RequestRecord, parsed: ParsedRequest, candidates: Sequence[Candidate]
) -> Sequence[Candidate]:
    """Those that may be asked under the team's cost limits."""

    def refused(one: Candidate) -> bool:
        model = one.answering_model(parsed.model)
        return quota.refuses_unpriced(model, has_price=one.model.pricing is not None)

    allowed = [one for one in candidates if not refused(one)]
    if not allowed:
        first = candidates[0]
        raise ModelNotAllowed(
            f"the model {first.model.name!r} of {first.name} has no price, and team {record.team} limits costUSD: set "
            "spec.models[].pricing of its LLMProvider, or the team's spec.unpricedRequests to Allow"
        )
    return candidates if len(allowed) == len(candidates) else allowed


def _together(one: Usage, other: Usage) -> Usage:
    """What both took; what neither told stays untold."""

    def both(first: int | None, second: int | None) -> int | None:
        return None if first is None and second is None else (first or 0) + (second or 0)

    return Usage(
        input_tokens=both(one.input_tokens, other.input_tokens),
        cache_read_tokens=both(one.cache_read_tokens, other.cache_read_tokens),
        cache_write_tokens=both(one.cache_write_tokens, other.cache_write_tokens),
        output_tokens=both(one.output_tokens, other.output_tokens),
        reasoning_tokens=both(one.reasoning_tokens, other.reasoning_tokens),
    )


def _may_have_cost(attempt: Attempt) -> bool:
    """A provider that answered with an error, or was never reached, charges nothing. Of any other nobody knows."""
    return attempt.status is None and attempt.outcome not in {
        FailureKind.CONNECTION,
        FailureKind.AUTHENTICATION,
        FailureKind.REDIRECTED,
    }


async def reserve_call(quota: Quota, record: RequestRecord, *, model: str) -> Reservation:
    """Reserve a call of which nothing is known but that it is one. Raises the errors that the application sees."""
    demand = Demand(model=model, input_tokens=0, expected_output_tokens=0, maximum_output_tokens=0)
    try:
        reservation = await quota.reserve(record.request_id, demand)
    except quota_refusal.QuotaExceeded as exceeded:
        raise told_to_application(record, exceeded.refusal) from exceeded
    except quota_refusal.QuotaStoreUnavailable as unavailable:
        raise _store_away(record, unavailable) from unavailable
    record.quota_remaining = reservation.remaining or ""
    return reservation


def _store_away(record: RequestRecord, unavailable: quota_refusal.QuotaStoreUnavailable) -> QuotaStoreUnavailable:
    policy = "the team's spec.onStoreUnavailable is Deny"
    if unavailable.lacking:
        policy = f"{unavailable.lacking} (the team's spec.onStoreUnavailable is LocalShare)"
    return QuotaStoreUnavailable(
        f"the quota of team {record.team} cannot be counted, since its store is away ({unavailable.reason}), and "
        f"{policy}",
        retry_after_milliseconds=1000,
    )
