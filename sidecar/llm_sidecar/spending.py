"""What one request spends: reserved before it leaves, settled when it is over, whichever way it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from llm_sidecar.contract.names import RequestType
from llm_sidecar.errors import QuotaStoreUnavailable, TeamQuotaExceeded
from llm_sidecar.formats.told_error import FailureKind
from llm_sidecar.quota import refusal as quota_refusal

if TYPE_CHECKING:
    from llm_sidecar.contract.provider_resource import Model
    from llm_sidecar.formats.base import ParsedRequest, StreamObserver, Usage
    from llm_sidecar.quota.reservation import Quota, Reservation
    from llm_sidecar.record import Attempt, RequestRecord, UsageSource

DEFAULT_OUTPUT_TOKENS: Final = 4096
"""Reserved for a request without a cap, of a model without `maxOutputTokens`: more than most answers have."""
BYTES_PER_TOKEN: Final = 4
"""Of generated text, in the mean over languages and code; used only where a provider told nothing."""
BRIEF_WAIT_MILLISECONDS: Final = 10_000
"""Up to here, an SDK's own retry after `retry-after` is worth its while."""


class Spending:
    """Follows one request's tokens. `end` settles; it is called exactly once, and never fails."""

    def __init__(
        self, quota: Quota | None, reservation: Reservation | None, record: RequestRecord, parsed: ParsedRequest
    ) -> None:
        self._quota = quota
        self._reservation = reservation
        self._record = record
        self._parsed = parsed
        self._observer: StreamObserver | None = None
        self._tokens: int | None = None
        self._source: UsageSource = "partial"
        self._nothing_spent = False
        self._tells_usage = True

    @classmethod
    async def begin(cls, quota: Quota | None, record: RequestRecord, parsed: ParsedRequest, model: Model) -> Spending:
        """Reserve. Raises `TeamQuotaExceeded` or `QuotaStoreUnavailable`."""
        reservation: Reservation | None = None
        if quota is not None:
            input_tokens, output_tokens = _expected(parsed, model)
            reservation = await reserve(quota, record, input_tokens=input_tokens, output_tokens=output_tokens)
        return cls(quota, reservation, record, parsed)

    def answered(self, usage: Usage | None, *, answer_bytes: int) -> None:
        """A whole answer is there."""
        self._record.usage = usage
        if self._parsed.call.type is RequestType.TOKEN_COUNT:
            self._tokens, self._source = 0, "measured"  # counting spends nothing, so nothing is told
            return
        generates = self._parsed.call.type is RequestType.GENERATION
        told_input = usage.told_input_tokens if usage is not None else None
        told_output = usage.output_tokens if usage is not None else None
        if usage is not None and told_input is not None and (told_output is not None or not generates):
            self._tokens, self._source = usage.total_tokens, "measured"
            return
        # What was not told is no zero: some servers send a usage without numbers.
        input_tokens = self._parsed.input_tokens_estimate if told_input is None else told_input
        generated = answer_bytes // BYTES_PER_TOKEN if generates else 0
        self._tokens = input_tokens + (generated if told_output is None else told_output)
        self._source = "estimated"

    def streaming(self, observer: StreamObserver) -> None:
        """A stream has begun; what it tells until the end counts."""
        self._observer = observer

    def nobody_answered(self) -> None:
        """Every attempt failed: what may have cost something is charged, otherwise not even the request is."""
        if not any(_may_have_cost(attempt) for attempt in self._record.attempts):
            self._nothing_spent = True

    def refused_by_provider(self) -> None:
        """A provider took the request and found it wrong: it counts as a request, and no token was spent."""
        self._tokens, self._source, self._tells_usage = 0, "measured", False

    @property
    def spent_tokens(self) -> int:
        """All tokens of the answer, as far as they are known now."""
        if self._observer is not None and self._observer.usage is not None:
            return self._observer.usage.total_tokens
        return self._tokens if self._tokens is not None else self._parsed.input_tokens_estimate

    def end(self) -> None:
        """Settle with the best that is known."""
        record = self._record
        if self._nothing_spent:
            if self._quota is not None and self._reservation is not None:
                self._quota.release(self._reservation)
            return
        if self._observer is not None:
            self._take_from_stream(self._observer)
        elif self._tokens is None:  # interrupted while waiting for a plain answer
            spends = self._parsed.call.type is not RequestType.TOKEN_COUNT
            self._tokens = self._parsed.input_tokens_estimate if spends else 0
        tokens = self._tokens or 0
        if self._tells_usage:
            record.usage_source, record.charged_tokens = self._source, tokens
        if self._quota is not None and self._reservation is not None:
            self._quota.settle(self._reservation, total_tokens=tokens, source=self._source)

    def _take_from_stream(self, observer: StreamObserver) -> None:
        usage = observer.usage
        self._record.usage = usage
        streamed = observer.content_bytes // BYTES_PER_TOKEN
        told_input = usage.told_input_tokens if usage is not None else None
        told_output = usage.output_tokens if usage is not None else None
        if observer.ended and usage is not None and told_input is not None and told_output is not None:
            self._tokens, self._source = usage.total_tokens, "measured"
            return
        self._source = "estimated" if observer.ended else "partial"
        input_tokens = self._parsed.input_tokens_estimate if told_input is None else told_input
        # Cut off, a stream has told no more than a part of its output: what came over it counts, too.
        output_tokens = told_output if observer.ended and told_output is not None else max(told_output or 0, streamed)
        self._tokens = input_tokens + output_tokens


def _may_have_cost(attempt: Attempt) -> bool:
    """A provider that answered with an error, or was never reached, charges nothing. Of any other nobody knows."""
    return attempt.status is None and attempt.outcome not in {
        FailureKind.CONNECTION,
        FailureKind.AUTHENTICATION,
        FailureKind.REDIRECTED,
    }


async def reserve(quota: Quota, record: RequestRecord, *, input_tokens: int, output_tokens: int) -> Reservation:
    """Reserve room for one request. Raises the errors that the application sees."""
    try:
        reservation = await quota.reserve(
            request_id=record.request_id, input_tokens=input_tokens, output_tokens=output_tokens
        )
    except quota_refusal.QuotaExceeded as exceeded:
        raise _quota_error(record, exceeded.refusal) from exceeded
    except quota_refusal.QuotaStoreUnavailable as unavailable:
        raise QuotaStoreUnavailable(
            f"the quota of team {record.team} cannot be counted, since its store is away ({unavailable.reason}), and "
            "the team's spec.onStoreUnavailable is Deny",
            retry_after_milliseconds=1000,
        ) from unavailable
    record.quota_remaining = reservation.remaining or ""
    return reservation


def _expected(parsed: ParsedRequest, model: Model) -> tuple[int, int]:
    """What a request may use, in tokens: input by its size, output by its cap, or else by the model's."""
    match parsed.call.type:
        case RequestType.GENERATION:
            cap = parsed.max_output_tokens
            if cap is None:
                cap = model.max_output_tokens or DEFAULT_OUTPUT_TOKENS
            return parsed.input_tokens_estimate, cap
        case RequestType.EMBEDDINGS:
            return parsed.input_tokens_estimate, 0
        case _:
            return 0, 0


def _quota_error(record: RequestRecord, refusal: quota_refusal.QuotaRefusal) -> TeamQuotaExceeded:
    record.refused_limit = refusal.limit_name
    room = max(0, refusal.limit - refusal.used - refusal.reserved)
    record.quota_remaining = f"{refusal.limit_name}={room}"
    figures = (
        f"limit {refusal.limit_name!r} of team {record.team}: {refusal.used} {refusal.unit} used and "
        f"{refusal.reserved} reserved of {refusal.limit} per {refusal.per.lower()}; this request needs "
        f"{refusal.requested}"
    )
    if refusal.never_fits:
        message = f"{figures}, which can never fit: ask for fewer output tokens or send less input"
    else:
        message = f"{figures}. Room comes back in {-(-refusal.retry_after_ms // 1000)} s at the latest"
    error = TeamQuotaExceeded(
        message,
        details={
            "limit": refusal.limit_name,
            "unit": str(refusal.unit),
            "per": str(refusal.per),
            "maximum": refusal.limit,
            "used": refusal.used,
            "reserved": refusal.reserved,
            "requested": refusal.requested,
            "resets_at_ms": refusal.resets_at_ms,
        },
        retry_after_milliseconds=None if refusal.never_fits else refusal.retry_after_ms,
    )
    error.should_retry = not refusal.never_fits and refusal.retry_after_ms <= BRIEF_WAIT_MILLISECONDS
    return error
