"""What a request costs, whichever way it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.contract.provider_resource import Model
from llm_sidecar.contract.team_quota_resource import TeamQuotaSpec
from llm_sidecar.contract.windows import Per
from llm_sidecar.errors import ModelNotAllowed, QuotaStoreUnavailable, TeamQuotaExceeded
from llm_sidecar.failover.routes import Candidate
from llm_sidecar.formats.base import Call, ParsedRequest, Usage
from llm_sidecar.quota import Charge, Demand, LedgerEntry, LimitUnit, Quota, Reservation, refusal
from llm_sidecar.quota.settlement import SettleMode
from llm_sidecar.record import Attempt, RequestRecord
from llm_sidecar.reserving import DEFAULT_OUTPUT_TOKENS
from llm_sidecar.spending import Spending

PRICED: dict[str, Any] = {"pricing": {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "1"}}


class NoStore:
    """Nobody is asked."""

    available = True


class Ledger(Quota):
    """A quota that writes down what it is told."""

    def __init__(self, error: Exception | None = None, **spec: Any) -> None:
        policy = {"onStoreUnavailable": "Deny", **spec}
        super().__init__(cast("Any", NoStore()), team="ns/team", spec=TeamQuotaSpec.model_validate(policy))
        self.error = error
        self.reserved: Demand | None = None
        self.revised: list[str] = []
        self.settled: list[tuple[int, str]] = []
        self.cost_femto_usd: list[int] = []
        self.entries: list[LedgerEntry] = []
        self.topped_up: list[int] = []
        self.released = 0

    async def reserve(self, request_id: str, demand: Demand) -> Reservation:
        if self.error is not None:
            raise self.error
        self.reserved = demand
        counters = tuple((limit, "counter|0|1") for limit in self.limits_of(demand.model))
        return Reservation(
            request_id=request_id, demand=demand, mode=SettleMode.FIRST, remaining="daily=5", counters=counters
        )

    async def revise(self, reservation: Reservation, demand: Demand) -> None:
        self.revised.append(demand.model)
        reservation.demand = demand

    async def top_up(self, reservation: Reservation, output_tokens: int) -> None:
        self.topped_up.append(output_tokens)
        reservation.demand = reservation.demand.with_expected_output(output_tokens)

    def settle(self, reservation: Reservation, charge: Charge, entry: LedgerEntry) -> None:
        assert reservation.request_id == "id"
        self.settled.append((charge.tokens, entry.source))
        self.cost_femto_usd.append(charge.cost_femto_usd)
        self.entries.append(entry)

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
    spending, _plan = await Spending.begin(ledger, record, request, [candidate(**model)])
    return spending, record


def candidate(name: str = "m", **model: Any) -> Candidate:
    """A provider's model; of the provider itself nothing is asked here."""
    configured = cast("Any", SimpleNamespace(provider=SimpleNamespace(name="p")))
    return Candidate(configured, Model.model_validate({"name": name, **model}), name, API.OPENAI_CHAT)


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
    assert ledger.reserved is not None
    assert (ledger.reserved.input_tokens, ledger.reserved.maximum_output_tokens) == expected
    assert ledger.reserved.expected_output_tokens == expected[1]
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
    ("usage", "expected"),
    [
        (Usage(3), (8, "measured")),
        (Usage(3, cache_read_tokens=4, output_tokens=2), (14, "measured")),
        (None, (45, "estimated")),
        (Usage(output_tokens=2), (45, "estimated")),
    ],
    ids=["told", "all-told", "nothing", "input-untold"],
)
async def test_a_useless_answer_is_charged_beside_the_one_that_follows(
    usage: Usage | None, expected: tuple[int, str]
) -> None:
    ledger = Ledger()
    spending, record = await begin(ledger, parsed(RequestType.EMBEDDINGS), **PRICED)
    spending.answered_in_vain(usage, parsed(RequestType.EMBEDDINGS, estimate=40))
    spending.answered(Usage(5), answer_bytes=10)
    spending.end()

    assert ledger.settled == [expected]
    assert (record.charged_tokens, record.usage_source) == expected
    assert ledger.cost_femto_usd == [(record.cost_nano_usd or 0) * 10**6]
    assert ledger.entries[0].usage is not None
    assert ledger.entries[0].usage.total_tokens == expected[0]
    assert record.usage == Usage(5), "of the answer that the application has"


@pytest.mark.parametrize("ends", ["nobody_answered", "refused_by_provider"])
async def test_a_useless_answer_is_charged_though_none_follows(ends: str) -> None:
    ledger = Ledger()
    spending, record = await begin(ledger, parsed(RequestType.EMBEDDINGS), **PRICED)
    spending.answered_in_vain(Usage(3), parsed(RequestType.EMBEDDINGS))
    getattr(spending, ends)()
    spending.end()

    assert (ledger.settled, ledger.released) == ([(3, "measured")], 0)
    assert (record.charged_tokens, record.usage_source, record.cost_nano_usd) == (3, "measured", 3000)


async def test_a_useless_answer_costs_what_its_own_model_takes() -> None:
    ledger = Ledger()
    spending, record = await begin(ledger, parsed(RequestType.EMBEDDINGS), **PRICED)
    spending.answered_in_vain(Usage(3), parsed(RequestType.EMBEDDINGS))
    await spending.moves_to(candidate("without-a-price"))
    spending.answered(Usage(5), answer_bytes=10)
    spending.end()

    assert (ledger.cost_femto_usd, record.cost_nano_usd) == ([3 * 10**9], 3000)
    assert ledger.settled == [(8, "measured")]


async def test_what_the_rest_of_a_batch_took_teaches_nothing_of_the_whole() -> None:
    """Else the estimate of the next batch, which is new as a whole, would be too low."""
    ledger, batch = Ledger(), parsed(RequestType.EMBEDDINGS, estimate=1000)
    for _ in range(60):
        spending, _ = await begin(ledger, batch)
        spending.answered_rest(Usage(90), parsed(RequestType.EMBEDDINGS, estimate=100))
        spending.end()
    await begin(ledger, batch)

    assert ledger.reserved is not None
    assert ledger.reserved.input_tokens == 900


async def test_a_rest_of_which_nothing_is_told_is_charged_by_its_own_estimate() -> None:
    ledger = Ledger()
    spending, _ = await begin(ledger, parsed(RequestType.EMBEDDINGS, estimate=1000))
    spending.answered_rest(None, parsed(RequestType.EMBEDDINGS, estimate=100))
    spending.end()

    assert ledger.settled == [(100, "estimated")]


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


async def test_a_share_that_is_spent_is_told_as_a_store_that_is_away() -> None:
    with pytest.raises(QuotaStoreUnavailable, match=r"this sidecar's share is spent .*LocalShare"):
        await begin(Ledger(refusal.QuotaStoreUnavailable("timeout", lacking="this sidecar's share is spent")), parsed())


PRICING = {"inputUSDPerMillionTokens": "1", "outputUSDPerMillionTokens": "10", "cachedInputUSDPerMillionTokens": "0.1"}
DEARER = {"inputUSDPerMillionTokens": "2", "outputUSDPerMillionTokens": "20"}
BUDGET = {"name": "budget", "per": "Month", "costUSD": "5"}


async def test_what_was_used_is_charged_at_the_price_of_who_answered() -> None:
    ledger = Ledger(limits=[BUDGET])
    spending, record = await begin(ledger, parsed(cap=50), pricing=PRICING)
    assert await spending.moves_to(candidate("dear", pricing=DEARER)) is None
    spending.answered(Usage(7, 1, 2, 3), answer_bytes=0)
    spending.end()

    assert ledger.revised == ["dear"]
    assert ledger.cost_femto_usd == [(7 + 1 + 2) * 2 * 10**9 + 3 * 20 * 10**9]
    assert record.cost_nano_usd == 80_000
    assert (ledger.entries[0].model, ledger.entries[0].asked_model) == ("dear", "m")


async def test_where_nothing_that_is_held_changes_another_candidate_costs_no_round_trip() -> None:
    ledger = Ledger(limits=[{"name": "daily", "per": "Day", "tokens": 1000}])
    spending, _ = await begin(ledger, parsed(cap=50))

    assert await spending.moves_to(candidate("other")) is None
    assert ledger.revised == []


async def test_a_model_without_a_price_is_refused_under_a_cost_limit() -> None:
    with pytest.raises(ModelNotAllowed, match="has no price"):
        await begin(Ledger(limits=[BUDGET]), parsed())


async def test_a_model_without_a_price_passes_where_the_team_says_so() -> None:
    ledger = Ledger(limits=[BUDGET], unpricedRequests="Allow")
    spending, record = await begin(ledger, parsed())
    spending.answered(Usage(7, 1, 2, 3), answer_bytes=0)
    spending.end()
    assert (ledger.settled, ledger.cost_femto_usd, record.cost_nano_usd) == ([(13, "measured")], [0], None)


async def test_a_candidate_without_a_price_is_passed_over_where_another_has_one() -> None:
    record = RequestRecord("id", "ns/team")
    priced = candidate("priced", pricing=PRICING)
    _, plan = await Spending.begin(Ledger(limits=[BUDGET]), record, parsed(), [candidate("free"), priced])
    assert list(plan) == [priced]


async def test_settled_calls_teach_the_estimate_of_the_next() -> None:
    ledger = Ledger()
    for _ in range(60):
        spending, _record = await begin(ledger, parsed(cap=4000))
        spending.answered(Usage(150, None, None, 20), answer_bytes=0)
        spending.end()
    await begin(ledger, parsed(cap=4000))

    assert ledger.reserved is not None
    assert ledger.reserved.input_tokens == 150
    assert ledger.reserved.expected_output_tokens < 30
    assert ledger.reserved.maximum_output_tokens == 4000


async def test_a_stream_that_is_longer_than_expected_holds_more_and_more() -> None:
    ledger = Ledger(limits=[{"name": "daily", "per": "Day", "tokens": 100_000}])
    for _ in range(60):
        ledger.learning.of("m").output.learn(100)
    spending, _ = await begin(ledger, parsed(cap=1000))
    stream = Stream(ended=False, usage=None, content_bytes=0)
    spending.streaming(cast("Any", stream))
    for size in (40, 400, 800, 1600, 3200, 3999):
        stream.content_bytes = size
        spending.progress()
        await asyncio.sleep(0)
    assert ledger.topped_up[0] >= 200
    assert ledger.topped_up == sorted(ledger.topped_up)
    assert ledger.topped_up[-1] >= 1000


async def test_near_a_limit_the_cheaper_model_is_asked_first() -> None:
    class Near(Ledger):
        def wants_cheaper(self, model: str) -> bool:
            return True

    ledger, cheap, dear = Near(), candidate("cheap"), candidate()
    _, plan = await Spending.begin(ledger, RequestRecord("id", "t"), parsed(), [dear], lambda: [cheap])
    assert list(plan) == [cheap, dear]
    assert ledger.reserved is not None
    assert ledger.reserved.model == "cheap"


async def test_a_request_that_only_a_cheaper_model_fits_goes_there() -> None:
    class Full(Ledger):
        async def reserve(self, request_id: str, demand: Demand) -> Reservation:
            if demand.model == "m":
                refused_ = refused(never_fits=False, retry_after_ms=1)
                raise refusal.QuotaExceeded(replace(refused_.refusal, can_downgrade=True))
            return await super().reserve(request_id, demand)

    cheap, dear = candidate("cheap"), candidate()
    _, plan = await Spending.begin(Full(), RequestRecord("id", "t"), parsed(), [dear], lambda: [cheap])
    assert list(plan) == [cheap, dear]
    with pytest.raises(TeamQuotaExceeded):
        await Spending.begin(Full(), RequestRecord("id", "t"), parsed(), [dear])


@pytest.mark.parametrize(
    ("cap", "answers", "model", "expected"),
    [
        (None, 1, {"maxOutputTokens": 128_000}, (DEFAULT_OUTPUT_TOKENS, 128_000, True)),
        (None, 1, {"maxOutputTokens": 10}, (10, 10, True)),
        (50_000, 1, {"maxOutputTokens": 128_000}, (50_000, 50_000, True)),
        (None, 1, {}, (DEFAULT_OUTPUT_TOKENS, DEFAULT_OUTPUT_TOKENS, False)),
        (None, 3, {"maxOutputTokens": 10}, (30, 30, True)),
        (None, 3, {}, (3 * DEFAULT_OUTPUT_TOKENS, 3 * DEFAULT_OUTPUT_TOKENS, False)),
    ],
    ids=["model", "small-model", "request", "nobody", "model-three-answers", "nobody-three-answers"],
)
async def test_what_is_expected_of_a_model_that_nothing_is_known_of(
    cap: int | None, answers: int, model: dict[str, Any], expected: tuple[int, int, bool]
) -> None:
    ledger = Ledger()
    await begin(ledger, replace(parsed(cap=cap), document={"n": answers}), **model)
    told = ledger.reserved
    assert told is not None
    assert (told.expected_output_tokens, told.maximum_output_tokens, told.output_is_bounded) == expected


async def test_what_was_learned_is_expected_though_it_is_more_than_our_own_guess() -> None:
    ledger = Ledger()
    for _ in range(60):
        ledger.learning.of("m").output.learn(20_000)
    await begin(ledger, parsed())
    assert ledger.reserved is not None
    assert ledger.reserved.expected_output_tokens >= 20_000


async def test_an_answer_that_nobody_caps_is_held_on_and_on_while_it_streams() -> None:
    ledger = Ledger(limits=[{"name": "daily", "per": "Day", "tokens": 100_000, "reservation": "Maximum"}])
    spending, record = await begin(ledger, parsed())
    stream = Stream(ended=False, usage=None, content_bytes=0)
    spending.streaming(cast("Any", stream))
    for tokens in (3000, 4000, 7000, 20_000):
        stream.content_bytes = 4 * tokens
        spending.progress()
        await asyncio.sleep(0)
    assert ledger.topped_up == [8192, 16_384, 40_000]
    assert record.unbounded


class Rooms(Ledger):
    """A quota in which some models have no room."""

    def __init__(self, *full: str) -> None:
        limits = [{"name": model, "per": "Day", "costUSD": "1", "models": [model]} for model in (*full, "rest")]
        super().__init__(limits=limits)
        self.full = full
        self.asked: list[str] = []

    async def reserve(self, request_id: str, demand: Demand) -> Reservation:
        self.asked.append(demand.model)
        if demand.model in self.full:
            told = refused(never_fits=False, retry_after_ms=1).refusal
            raise refusal.QuotaExceeded(replace(told, limit_name=demand.model, requested=1))
        return await super().reserve(request_id, demand)


async def test_the_first_candidate_with_room_costs_one_reservation_only() -> None:
    ledger = Rooms()
    candidates = [candidate("a", pricing=PRICING), candidate("b", pricing=PRICING)]
    _, plan = await Spending.begin(ledger, RequestRecord("id", "t"), parsed(cap=5), candidates)
    assert (ledger.asked, plan) == (["a"], tuple(candidates))


async def test_each_candidate_is_tried_until_one_has_room_and_the_plan_begins_there() -> None:
    ledger, record = Rooms("a", "b"), RequestRecord("id", "t")
    candidates = [candidate(name, pricing=PRICING) for name in ("a", "b", "c", "d")]
    _, plan = await Spending.begin(ledger, record, parsed(cap=5), candidates)
    assert ledger.asked == ["a", "b", "c"]
    assert [one.model.name for one in plan] == ["c", "d"]
    assert [one.model for one in record.skipped] == ["a", "b"]


async def test_a_candidate_that_needs_as_much_of_the_same_limit_is_not_tried() -> None:
    ledger, record = Rooms("a"), RequestRecord("id", "t")
    candidates = [candidate("a", pricing=PRICING), candidate("a", pricing=DEARER), candidate("b", pricing=PRICING)]
    _, plan = await Spending.begin(ledger, record, parsed(cap=5), candidates)
    assert ledger.asked == ["a", "b"]
    assert list(plan) == candidates[2:]


async def test_what_lives_at_one_provider_is_reserved_at_no_other() -> None:
    ledger = Rooms("a")
    request = replace(parsed(cap=5), stateful=True)
    candidates = [candidate("a", pricing=PRICING), candidate("b", pricing=PRICING)]
    with pytest.raises(TeamQuotaExceeded):
        await Spending.begin(ledger, RequestRecord("id", "t"), request, candidates)
    assert ledger.asked == ["a"]


async def test_what_was_reserved_is_given_back_when_the_beginning_is_interrupted() -> None:
    class Interrupted(Ledger):
        def needs_revision(self, reservation: Reservation, demand: Demand) -> bool:
            return True

        def wants_cheaper(self, model: str) -> bool:
            return self.reserved is not None

        async def revise(self, reservation: Reservation, demand: Demand) -> None:
            raise asyncio.CancelledError

    ledger = Interrupted()
    with pytest.raises(asyncio.CancelledError):
        await Spending.begin(ledger, RequestRecord("id", "t"), parsed(), [candidate()], lambda: [candidate("cheap")])
    assert ledger.released == 1
