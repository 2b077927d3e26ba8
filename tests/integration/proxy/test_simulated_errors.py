"""Whatever a provider does wrong, the application gets one clear error of its API, or a good answer from elsewhere.

Each fault that the simulator knows, with each call of each API, goes through one real sidecar (see
`simulated_traffic`): what arrives, what is charged, and what the audit line says.
"""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from llm_sidecar.simulate.faults import STATUSES
from tests.integration.processes import DEFECTS
from tests.integration.proxy.api_errors import error_of, last_error, reason_of
from tests.integration.proxy.harness import Reply
from tests.integration.proxy.simulated_faults import (
    ARRAY,
    ASKED,
    BROKEN_BODIES,
    DIRECT,
    EARLY,
    ELSEWHERE,
    FAILED_OVER,
    FAILURES,
    GARBAGE,
    KEY_ERRORS,
    LATE,
    LATE_SILENCE,
    MALFORMED_EARLY,
    MALFORMED_LATE,
    ODD,
    OWN,
    PLAIN,
    SILENCE,
    SPARSE,
    STREAMS,
    UNREADABLE,
    WAITS,
)
from tests.integration.proxy.simulated_traffic import CALLS, KEY, PROMPT, WRONG_KEY, Told, Traffic, gather, samples

every_call = pytest.mark.parametrize("call", CALLS)
every_stream = pytest.mark.parametrize("call", STREAMS)


@pytest.fixture(scope="module")
def traffic(shared_store_url: str, tmp_path_factory: pytest.TempPathFactory) -> Traffic:
    """Everything, asked once for all tests of this file."""
    manifests = tmp_path_factory.mktemp("simulated") / "manifests.yaml"
    return gather(manifests, shared_store_url, asked=ASKED, direct=DIRECT)


def _is_relayed(traffic: Traffic, call: str, fault: str) -> Told:
    """The provider's own error has arrived word for word, and nothing was charged for it."""
    told, direct = traffic.told["obedient", call, fault], traffic.direct[call, fault].reply
    assert told.reply.status == direct.status == told.line["status"]
    assert _without_id(told.reply) == _without_id(direct)
    assert "x-llm-sidecar-refused-by" not in told.reply.headers
    assert told.charge == (None, 0)
    assert (told.line["usage"], told.line.get("error")) == (None, None)
    error_of(CALLS[call], told.reply)
    return told


def _without_id(reply: Reply) -> bytes:
    return re.sub(rb'"req_\w+"', b'"req"', reply.body)


def _is_refused(told: Told, call: str, reason: str, *, retry: bool) -> None:
    """The sidecar itself tells that nobody answered, and why, and nothing of the provider."""
    assert (told.reply.status, told.reply.code) == (503, "no_provider_available")
    assert reason_of(CALLS[call], error_of(CALLS[call], told.reply)) == "no_provider_available"
    assert told.reply.headers["x-should-retry"] == str(retry).lower()
    assert (told.reply.headers["retry-after"], told.reply.headers["retry-after-ms"]) == ("1", "1000")
    assert (told.line["status"], told.line["error"]) == (503, "no_provider_available")
    assert told.outcomes == [reason]
    for secret in (b"127.0.0.1", KEY.encode(), WRONG_KEY.encode(), PROMPT.encode(), b"credit", b"<html"):
        assert secret not in told.reply.body


def _may_have_cost(told: Told, call: str) -> None:
    """Nobody knows what the provider charges for: at least the input counts, and is called a guess."""
    source, tokens = told.charge
    assert source == "partial"
    assert (tokens > 0) == CALLS[call].spends


# --- errors by status


def test_every_status_of_the_simulator_is_expected_somewhere_here() -> None:
    named = {int(status) for fault in (*OWN, *KEY_ERRORS, *FAILURES) for status in re.findall(r"status=(\d+)", fault)}

    assert named == set(STATUSES)


@every_call
@pytest.mark.parametrize("fault", [*OWN, *UNREADABLE])
def test_an_error_of_the_applications_own_arrives_word_for_word(traffic: Traffic, call: str, fault: str) -> None:
    """A fault that the simulator cannot read is one, too."""
    told = _is_relayed(traffic, call, fault)

    assert told.outcomes == [OWN.get(fault, "invalid_request")]
    assert told.reply.status == (400 if fault in UNREADABLE else int(fault.removeprefix("status=")))


@every_call
@pytest.mark.parametrize("fault", FAILURES)
def test_a_failure_without_another_provider_is_told_in_the_providers_words(
    traffic: Traffic, call: str, fault: str
) -> None:
    told = _is_relayed(traffic, call, fault)

    assert told.outcomes == [FAILURES[fault]]
    assert told.line["attempts"][0]["status"] == told.reply.status


@every_call
@pytest.mark.parametrize("fault", WAITS)
def test_the_hint_when_to_come_again_arrives_as_the_provider_gave_it(traffic: Traffic, call: str, fault: str) -> None:
    reply, family = traffic.told["obedient", call, fault].reply, CALLS[call].family
    hints = reply.headers.get("retry-after"), reply.headers.get("retry-after-ms")
    seconds = str(-int(-WAITS[fault] // 1))
    if family == "openai":
        assert hints == (seconds, str(round(WAITS[fault] * 1000)))
    elif family == "anthropic":
        assert hints == (seconds, None)
    else:
        assert hints == (None, None)
        assert (f'"retryDelay":"{WAITS[fault]:g}s"'.encode() in reply.body) == ("429" in fault)


@every_call
@pytest.mark.parametrize("fault", [*KEY_ERRORS, ""])
def test_a_refused_key_is_not_the_applications_and_says_nothing_of_it(traffic: Traffic, call: str, fault: str) -> None:
    """Without a fault, it is a provider whose key in its Secret is wrong."""
    told = traffic.told["obedient" if fault else "locked", call, fault]

    _is_refused(told, call, KEY_ERRORS.get(fault, "authentication"), retry=False)
    assert told.charge == (None, 0)


@every_call
@pytest.mark.parametrize("fault", ELSEWHERE)
def test_a_redirect_is_never_followed(traffic: Traffic, call: str, fault: str) -> None:
    told = traffic.told["obedient", call, fault]

    _is_refused(told, call, "redirected", retry=False)
    assert told.charge == (None, 0)
    assert "location" not in told.reply.headers


@every_call
def test_a_provider_that_always_fails_by_its_address_is_told_like_one_that_fails_once(
    traffic: Traffic, call: str
) -> None:
    told = traffic.told["doomed", call, ""]

    assert told.reply.status == 529
    assert _without_id(told.reply) == _without_id(traffic.direct[call, "status=529"].reply)
    assert told.charge == (None, 0)


# --- answers that are none


@every_call
@pytest.mark.parametrize("fault", GARBAGE)
def test_garbage_with_a_good_status_never_reaches_the_application(traffic: Traffic, call: str, fault: str) -> None:
    told = traffic.told["obedient", call, fault]
    # An array of JSON is what was asked for by its content type; that it is none shows only at its end.
    reason = "interrupted" if (call, fault) == (ARRAY, "garbage=json") else "garbled_answer"

    _is_refused(told, call, reason, retry=True)
    _may_have_cost(told, call)


@pytest.mark.parametrize("call", PLAIN)
@pytest.mark.parametrize("fault", BROKEN_BODIES)
def test_half_of_a_plain_answer_never_reaches_the_application(traffic: Traffic, call: str, fault: str) -> None:
    told = traffic.told["obedient", call, fault]

    _is_refused(told, call, BROKEN_BODIES[fault], retry=True)
    _may_have_cost(told, call)


@every_stream
@pytest.mark.parametrize("fault", EARLY)
def test_a_stream_that_breaks_before_its_content_is_a_plain_error(traffic: Traffic, call: str, fault: str) -> None:
    told = traffic.told["obedient", call, fault]

    _is_refused(told, call, EARLY[fault], retry=True)
    _may_have_cost(told, call)
    assert told.line["stream"] is True


@every_stream
def test_an_error_before_the_content_is_the_plain_error_that_it_should_have_been(traffic: Traffic, call: str) -> None:
    told = traffic.told["obedient", call, "error_after=0"]
    status, reason = {"openai": (500, "server"), "anthropic": (529, "overloaded"), "gemini": (503, "overloaded")}[
        CALLS[call].family
    ]

    assert (told.reply.status, told.outcomes) == (status, [reason])
    assert told.reply.headers["content-type"].startswith("application/json")
    assert error_of(CALLS[call], told.reply)["message"]
    assert told.charge == (None, 0)


@every_stream
@pytest.mark.parametrize("fault", [*LATE, LATE_SILENCE])
def test_a_stream_that_breaks_in_its_content_ends_with_its_apis_error(traffic: Traffic, call: str, fault: str) -> None:
    told = traffic.told["hasty" if fault == LATE_SILENCE else "obedient", call, fault]
    error = last_error(CALLS[call], told.reply)

    assert told.reply.status == 200
    assert told.outcomes == ["answered"]
    assert told.line["interrupted"] is True
    if fault.startswith("error_after"):  # the provider has told it already
        assert b"stream_interrupted" not in told.reply.body
    else:
        assert reason_of(CALLS[call], error) == "stream_interrupted"
    source, tokens = told.charge
    assert source == "partial"
    # What came over is counted by its size, four bytes a token: a word that is cut in two may be lost.
    assert tokens + 1 >= (traffic.direct[call, fault].tokens if fault in LATE else 1)


@every_stream
def test_a_malformed_frame_before_the_content_is_a_plain_error(traffic: Traffic, call: str) -> None:
    told = traffic.told["obedient", call, MALFORMED_EARLY]

    _is_refused(told, call, "garbled_answer", retry=True)
    _may_have_cost(told, call)


@every_stream
def test_a_malformed_frame_in_the_content_ends_the_stream_with_its_apis_error(traffic: Traffic, call: str) -> None:
    told = traffic.told["obedient", call, MALFORMED_LATE]

    assert told.reply.status == 200
    assert b'{"broken"' not in told.reply.body
    assert reason_of(CALLS[call], last_error(CALLS[call], told.reply)) == "stream_interrupted"
    assert told.line["interrupted"] is True
    assert told.charge[0] == "partial"


@every_call
@pytest.mark.parametrize("fault", SILENCE)
def test_silence_ends_with_the_providers_timeout(traffic: Traffic, call: str, fault: str) -> None:
    told = traffic.told["hasty", call, fault]

    _is_refused(told, call, "timeout", retry=True)
    assert b"timeouts." in told.reply.body
    _may_have_cost(told, call)


# --- another provider


@pytest.mark.parametrize(("call", "fault"), FAILED_OVER)
def test_another_provider_answers_and_it_alone_is_charged(traffic: Traffic, call: str, fault: str) -> None:
    alone, told = traffic.told["obedient", call, fault], traffic.told["twice", call, fault]
    family = {"openai": "openai", "anthropic": "anthropic", "gemini": "google"}[CALLS[call].family]

    assert told.reply.status == 200
    assert told.outcomes == [*alone.outcomes, "answered"]
    assert [attempt["provider"] for attempt in told.line["attempts"]] == [f"obedient-{family}", f"well-{family}"]
    assert told.reply.headers["x-llm-sidecar-attempts"] == "2"
    assert told.reply.headers["x-llm-sidecar-provider"] == f"well-{family}"
    source, tokens = told.charge
    assert source == "measured"
    assert (tokens > 0) == CALLS[call].spends


def test_failovers_are_counted_by_their_reason(traffic: Traffic) -> None:
    expected = Counter(
        (first["provider"], second["provider"], first["outcome"])
        for told in traffic.told.values()
        for first, second in zip(told.line["attempts"], told.line["attempts"][1:], strict=False)
    )

    assert samples(traffic.exposition, "llm_failovers_total", "from", "to", "reason") == expected


@pytest.mark.parametrize("fault", SPARSE)
def test_a_provider_that_fails_now_and_then_answers_in_between(traffic: Traffic, fault: str) -> None:
    dice = random.Random(3)
    failing = 7 if "times" in fault else sum(dice.random() * 100 < 40 for _ in CALLS)
    statuses = Counter(traffic.told["obedient", call, fault].reply.status for call in CALLS)

    assert statuses == {503: failing, 200: len(CALLS) - failing}


# --- what is whole, however odd


@every_call
@pytest.mark.parametrize("fault", ODD)
def test_a_whole_answer_is_charged_to_the_providers_own_number(traffic: Traffic, call: str, fault: str) -> None:
    told = traffic.told["obedient", call, fault]

    assert told.reply.status == 200
    assert told.charge == ("measured", traffic.direct[call, fault].tokens)
    assert len(told.reply.body) == pytest.approx(len(traffic.direct[call, fault].reply.body), abs=64)


@pytest.mark.parametrize("call", [name for name, call in CALLS.items() if call.spends])
def test_an_answer_without_usage_is_charged_by_its_size(traffic: Traffic, call: str) -> None:
    told = traffic.told["obedient", call, "usage=none"]

    assert told.reply.status == 200
    assert told.charge[0] == "estimated"
    assert told.charge[1] > 0


# --- the whole of it


def test_what_is_booked_is_what_the_log_says(traffic: Traffic) -> None:
    """A call that nobody took is no call; the application's own errors are."""
    counted = [
        told
        for told in traffic.told.values()
        if told.line["usage_source"] or told.outcomes[-1] in {"answered", *OWN.values()}
    ]

    assert traffic.booked == {
        "calls|used": len(counted),
        "tokens|used": sum(told.line["charged_tokens"] for told in counted),
    }


def test_every_request_is_in_the_metrics_with_the_status_that_was_told(traffic: Traffic) -> None:
    expected = Counter((told.line["provider"], str(told.reply.status)) for told in traffic.told.values())

    assert samples(traffic.exposition, "llm_requests_total", "provider", "status") == expected


def test_the_log_tells_of_no_defect_no_key_and_no_prompt(traffic: Traffic) -> None:
    for line in traffic.log:
        assert not any(word in line for word in (*DEFECTS, KEY, WRONG_KEY, PROMPT)), line
