"""What a request costs, whichever way it ends."""

from __future__ import annotations

from typing import Any

import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.provider_resource import Model
from llm_sidecar.contract.windows import Per
from llm_sidecar.errors import QuotaStoreUnavailable, TeamQuotaExceeded
from llm_sidecar.formats.base import Call, ParsedRequest, Usage
from llm_sidecar.quota import refusal
from llm_sidecar.quota.limits import LimitUnit
from llm_sidecar.quota.reservation import Reservation
from llm_sidecar.record import Attempt, RequestRecord
from llm_sidecar.spending import DEFAULT_OUTPUT_TOKENS, Spending


class Ledger:
    """A quota that writes down what it is told."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.reserved: tuple[int, int] | None = None
        self.settled: list[tuple[int, str]] = []
        self.released = 0

    async def reserve(self, *, request_id: str, input_tokens: int, output_tokens: int) -> Reservation:
        if self.error is not None:
            raise self.error
        self.reserved = (input_tokens, output_tokens)
        return Reservation(request_id=request_id, backed=True, counters=(), remaining="daily=5")

    def settle(self, reservation: Reservation, *, total_tokens: int, source: str) -> None:
        assert reservation.request_id == "id"
        self.settled.append((total_tokens, source))

    def release(self, reservation: Reservation) -> None:
        assert reservation.request_id == "id"
        self.released += 1


class Stream:
    """What an observer knows in the end."""

    def __init__(self, *, ended: bool, usage: Usage | None, content_bytes: int) -> None:
        self.ended, self.usage, self.content_bytes = ended, usage, content_bytes
        self.committed, self.error = True, None


def parsed(kind: RequestType = RequestType.GENERATION, *, cap: int | None = None, estimate: int = 100) -> ParsedRequest:
    return ParsedRequest(
        call=Call(api=API.OPENAI_CHAT, type=kind, path="/"),
        body=b"{}",
        document={},
        model="m",
        stream=False,
        max_output_tokens=cap,
        input_tokens_estimate=estimate,
        stateful=False,
        deterministic=False,
    )


async def begin(ledger: Any, request: ParsedRequest, **model: Any) -> tuple[Spending, RequestRecord]:
    record = RequestRecord("id", "ns/team")
    return await Spending.begin(ledger, record, request, Model.model_validate({"name": "m", **model})), record


@pytest.mark.parametrize(
    ("request_", "model", "expected"),
    [
        (parsed(cap=50), {}, (100, 50)),
        (parsed(cap=50), {"maxOutputTokens": 10}, (100, 50)),
        (parsed(), {"maxOutputTokens": 10}, (100, 10)),
        (parsed(), {}, (100, DEFAULT_OUTPUT_TOKENS)),
        (parsed(RequestType.EMBEDDINGS, cap=0), {}, (100, 0)),
        (parsed(RequestType.TOKEN_COUNT, cap=0), {}, (0, 0)),
    ],
    ids=["cap", "cap-over-model", "model", "nothing-told", "embeddings", "token-count"],
)
async def test_what_is_reserved(request_: ParsedRequest, model: dict[str, Any], expected: tuple[int, int]) -> None:
    ledger = Ledger()
    _, record = await begin(ledger, request_, **model)
    assert ledger.reserved == expected
    assert record.quota_remaining == "daily=5"


async def test_measured_usage_is_charged_to_the_number() -> None:
    ledger = Ledger()
    spending, record = await begin(ledger, parsed())
    spending.answered(Usage(7, 1, 2, 3), answer_bytes=1000)
    spending.end()
    assert ledger.settled == [(13, "measured")]
    assert (record.charged_tokens, record.usage_source) == (13, "measured")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (RequestType.GENERATION, (350, "estimated")),
        (RequestType.EMBEDDINGS, (100, "estimated")),
        (RequestType.TOKEN_COUNT, (0, "measured")),
    ],
)
async def test_an_answer_that_tells_no_usage_is_estimated(kind: RequestType, expected: tuple[int, str]) -> None:
    ledger = Ledger()
    spending, _ = await begin(ledger, parsed(kind))
    spending.answered(None, answer_bytes=1000)
    spending.end()
    assert ledger.settled == [expected]


@pytest.mark.parametrize(
    ("kind", "usage", "expected"),
    [
        (RequestType.GENERATION, Usage(), (350, "estimated")),
        (RequestType.GENERATION, Usage(7), (257, "estimated")),
        (RequestType.GENERATION, Usage(None, None, None, 3), (103, "estimated")),
        (RequestType.EMBEDDINGS, Usage(7), (7, "measured")),
        (RequestType.EMBEDDINGS, Usage(), (100, "estimated")),
        (RequestType.GENERATION, Usage(0, None, None, 0), (0, "measured")),
    ],
    ids=["no-number", "input-only", "output-only", "embeddings", "embeddings-no-number", "zero-is-told"],
)
async def test_what_a_usage_leaves_out_is_estimated(kind: RequestType, usage: Usage, expected: tuple[int, str]) -> None:
    """Some servers send a usage without numbers: that is no zero, and no way around a limit."""
    ledger = Ledger()
    spending, _ = await begin(ledger, parsed(kind))
    spending.answered(usage, answer_bytes=1000)
    spending.end()
    assert ledger.settled == [expected]


@pytest.mark.parametrize(
    ("outcome", "status"), [("connection", None), ("authentication", None), ("rate_limited", 429), ("server", 500)]
)
async def test_what_no_provider_took_is_given_back(outcome: str, status: int | None) -> None:
    ledger = Ledger()
    spending, record = await begin(ledger, parsed())
    record.attempts.append(Attempt("p", outcome, status, 1.0))
    spending.nobody_answered()
    spending.end()
    assert (ledger.settled, ledger.released) == ([], 1)
    assert (record.charged_tokens, record.usage_source) == (0, None)


@pytest.mark.parametrize("outcome", ["timeout", "disconnected", "garbled_answer", "interrupted"])
async def test_what_a_provider_may_have_worked_on_is_charged_its_input(outcome: str) -> None:
    ledger = Ledger()
    spending, record = await begin(ledger, parsed())
    record.attempts += [Attempt("p", outcome, None, 1.0), Attempt("q", "connection", None, 1.0)]
    spending.nobody_answered()
    spending.end()
    assert (ledger.settled, ledger.released) == ([(100, "partial")], 0)


async def test_a_refusal_of_the_provider_costs_no_token() -> None:
    ledger = Ledger()
    spending, _ = await begin(ledger, parsed())
    spending.refused_by_provider()
    spending.end()
    assert ledger.settled == [(0, "measured")]


@pytest.mark.parametrize(("kind", "tokens"), [(RequestType.GENERATION, 100), (RequestType.TOKEN_COUNT, 0)])
async def test_a_request_that_is_abandoned_while_waiting_is_charged_its_input(kind: RequestType, tokens: int) -> None:
    ledger = Ledger()
    spending, _ = await begin(ledger, parsed(kind))
    spending.end()
    assert ledger.settled == [(tokens, "partial")]


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (Stream(ended=True, usage=Usage(7, None, None, 3), content_bytes=4000), (10, "measured")),
        (Stream(ended=True, usage=None, content_bytes=40), (110, "estimated")),
        (Stream(ended=True, usage=Usage(7), content_bytes=40), (17, "estimated")),
        (Stream(ended=False, usage=None, content_bytes=40), (110, "partial")),
        (Stream(ended=False, usage=Usage(7, None, None, 1), content_bytes=40), (17, "partial")),
        (Stream(ended=False, usage=Usage(7, None, None, 50), content_bytes=40), (57, "partial")),
        (Stream(ended=False, usage=Usage(), content_bytes=0), (100, "partial")),
    ],
    ids=["measured", "nothing-told", "input-told", "cut-untold", "cut-early-figure", "cut-late-figure", "cut-at-once"],
)
async def test_a_stream_is_charged_by_the_best_that_is_known(stream: Any, expected: tuple[int, str]) -> None:
    ledger = Ledger()
    spending, record = await begin(ledger, parsed())
    spending.streaming(stream)
    spending.end()
    assert ledger.settled == [expected]
    assert record.usage is stream.usage


async def test_without_a_quota_usage_is_still_recorded() -> None:
    spending, record = await begin(None, parsed())
    spending.answered(Usage(7, None, None, 3), answer_bytes=0)
    spending.end()
    assert record.charged_tokens == 10


def refused(*, never_fits: bool, retry_after_ms: int) -> refusal.QuotaExceeded:
    return refusal.QuotaExceeded(
        refusal.QuotaRefusal(
            limit_name="daily",
            unit=LimitUnit.TOKENS,
            per=Per.DAY,
            limit=1000,
            used=900,
            reserved=50,
            requested=2000 if never_fits else 100,
            resets_at_ms=1,
            retry_after_ms=retry_after_ms,
            never_fits=never_fits,
        )
    )


@pytest.mark.parametrize(
    ("never_fits", "retry_after_ms", "should_retry", "told_ms"),
    [
        (False, 5000, True, 5000),
        (False, 10_000, True, 10_000),
        (False, 10_001, False, 10_001),
        (True, 5000, False, None),
    ],
)
async def test_a_refusal_tells_figures_and_whether_waiting_helps(
    never_fits: bool, retry_after_ms: int, should_retry: bool, told_ms: int | None
) -> None:
    with pytest.raises(TeamQuotaExceeded) as raised:
        await begin(Ledger(refused(never_fits=never_fits, retry_after_ms=retry_after_ms)), parsed())
    error = raised.value
    assert (error.should_retry, error.retry_after_milliseconds) == (should_retry, told_ms)
    assert "900 tokens used and 50 reserved of 1000 per day" in error.message
    assert ("never fit" in error.message) is never_fits
    assert error.details["limit"] == "daily"


async def test_a_store_that_is_away_is_told_with_the_policy() -> None:
    with pytest.raises(QuotaStoreUnavailable, match="onStoreUnavailable is Deny"):
        await begin(Ledger(refusal.QuotaStoreUnavailable("timeout")), parsed())
