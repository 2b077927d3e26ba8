"""What is done about each kind of failure, and what may be told about it."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from llm_sidecar.contract.names import API
from llm_sidecar.failover.circuit import EVIDENCE
from llm_sidecar.failover.failures import (
    DECISIONS,
    Decision,
    Failure,
    of_answer,
    of_stream_error,
    of_transport,
)
from llm_sidecar.formats.base import StreamError
from llm_sidecar.formats.told_error import FailureKind as Kind
from llm_sidecar.formats.told_error import ToldError
from llm_sidecar.providers.base import FailureReason, Provider, ProviderSettings, TransportError
from llm_sidecar.providers.openai import OpenAIProvider

NOWHERE: Any = None


def provider(kind: type[Provider] = OpenAIProvider) -> Provider:
    return kind(ProviderSettings("one"), NOWHERE)


def answered(status: int, body: bytes, *, at: Provider | None = None) -> Failure:
    return of_answer(at or provider(), API.OPENAI_CHAT, status=status, headers=[], body=body, now_seconds=0)


def error(message: str, code: str | None = None) -> bytes:
    return orjson.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}})


def test_every_kind_has_a_decision_and_says_something_about_health() -> None:
    assert set(DECISIONS) == set(EVIDENCE) == set(Kind)


def test_the_labels_of_before_still_mean_what_they_meant() -> None:
    """Dashboards and other people's providers know these words."""
    old = "connection timeout disconnected garbled_answer redirected rate_limited overloaded server authentication"
    assert {FailureReason(name) for name in [*old.split(), "interrupted"]} < set(Kind)


@pytest.mark.parametrize(
    ("kind", "hint", "others_left", "decision"),
    [
        (Kind.RATE_LIMITED, 1.0, True, Decision.RETRY_HERE),
        (Kind.RATE_LIMITED, 2.0, True, Decision.GO_ELSEWHERE),
        (Kind.RATE_LIMITED, 2.0, False, Decision.RETRY_HERE),
        (Kind.RATE_LIMITED, None, True, Decision.GO_ELSEWHERE),
        (Kind.RATE_LIMITED, None, False, Decision.RETRY_HERE),
        (Kind.OVERLOADED, None, True, Decision.GO_ELSEWHERE),
        (Kind.OVERLOADED, 2.0, True, Decision.GO_ELSEWHERE),
        (Kind.OVERLOADED, None, False, Decision.RETRY_HERE),
        (Kind.SERVER, None, True, Decision.RETRY_HERE),
        (Kind.CONNECTION, None, True, Decision.RETRY_HERE),
        (Kind.QUOTA_EXHAUSTED, 1.0, False, Decision.GO_ELSEWHERE),
        (Kind.AUTHENTICATION, None, False, Decision.GO_ELSEWHERE),
        (Kind.TOO_LONG, None, True, Decision.GIVE_UP),
        (Kind.INVALID_REQUEST, None, True, Decision.GIVE_UP),
        (Kind.CONTENT_POLICY, None, True, Decision.GIVE_UP),
    ],
)
def test_what_is_done_about_a_failure(kind: Kind, hint: float | None, others_left: bool, decision: Decision) -> None:
    failure = Failure(kind, "d", retry_after_seconds=hint)
    assert failure.decision(others_left=others_left, retry_on_timeout=False) is decision


@pytest.mark.parametrize(
    ("retry_on_timeout", "decision"), [(False, Decision.GO_ELSEWHERE), (True, Decision.RETRY_HERE)]
)
def test_a_time_out_is_tried_again_here_only_where_that_was_asked_for(
    retry_on_timeout: bool, decision: Decision
) -> None:
    failure = Failure(Kind.TIMEOUT, "d")
    assert failure.decision(others_left=False, retry_on_timeout=retry_on_timeout) is decision


def test_a_model_that_a_provider_lacks_is_asked_for_elsewhere_and_a_bare_404_is_not() -> None:
    lacking, bare = answered(404, error("no such model", "model_not_found")), answered(404, b'{"error": {}}')
    assert lacking.kind is bare.kind is Kind.NOT_FOUND
    assert lacking.decision(others_left=True, retry_on_timeout=False) is Decision.GO_ELSEWHERE
    assert bare.decision(others_left=True, retry_on_timeout=False) is Decision.GIVE_UP


def test_more_than_a_providers_tokens_per_minute_may_fit_elsewhere() -> None:
    failure = answered(429, error("Request too large for m on tokens per min (TPM)", "rate_limit_exceeded"))
    assert failure.kind is Kind.TOO_LONG
    assert failure.decision(others_left=True, retry_on_timeout=False) is Decision.GO_ELSEWHERE


def test_an_error_of_the_application_is_told_in_the_providers_words() -> None:
    failure = answered(400, error("Invalid value for 'temperature'.", "invalid_value"))
    assert (failure.kind, failure.message) == (Kind.INVALID_REQUEST, "Invalid value for 'temperature'.")
    assert failure.detail == "it answered with status 400 (invalid_value)"


def test_words_about_our_bill_are_shown_to_nobody() -> None:
    assert answered(402, error("Your credit balance is too low.", "billing_hard_limit_reached")).message is None


@pytest.mark.parametrize("status", [401, 403])
def test_words_about_our_key_are_shown_to_nobody(status: int) -> None:
    failure = answered(status, error("Incorrect API key provided: sk-abc***xyz.", "invalid_api_key"))
    assert failure.message is None
    assert (
        failure.detail == f"it answered with status {status} (invalid_api_key): it refused our key, account or region"
    )


def test_words_about_our_project_are_shown_to_nobody_though_the_model_is_what_is_missing() -> None:
    failure = answered(403, error("Project `proj_1` does not have access to model `m`.", "model_not_found"))
    assert (failure.kind, failure.message) == (Kind.NOT_FOUND, None)


def test_what_is_logged_holds_nothing_of_the_message_even_if_it_stands_in_the_code() -> None:
    failure = answered(400, error("the prompt was: secret plans", "secret plans of ours"))
    assert "secret" not in failure.detail + failure.code


def test_a_page_of_html_is_not_quoted() -> None:
    failure = answered(502, b"<html>secret-host.internal</html>")
    assert (failure.kind, failure.message) == (Kind.SERVER, None)
    assert failure.detail == "it answered with status 502 and no error that its API knows"


def test_a_redirect_says_what_to_look_at() -> None:
    assert "check baseURL" in answered(302, b"").detail


def test_a_provider_may_say_otherwise_what_its_errors_mean() -> None:
    class Acme(OpenAIProvider):
        def failure_kind(self, error: ToldError) -> Kind:
            return Kind.RATE_LIMITED if error.status == 402 else super().failure_kind(error)

    assert answered(402, error("m"), at=provider(Acme)).kind is Kind.RATE_LIMITED
    assert answered(404, error("m"), at=provider(Acme)).kind is Kind.NOT_FOUND


def test_an_error_within_a_stream_is_a_failure_like_any_other() -> None:
    failure = of_stream_error(provider(), API.ANTHROPIC_MESSAGES, StreamError(529, "overloaded_error", "Overloaded"))
    assert (failure.kind, failure.status, failure.message) == (Kind.OVERLOADED, 529, "Overloaded")
    assert failure.detail == "its stream told an error with status 529 (overloaded_error)"


def test_a_broken_connection_is_told_without_a_status() -> None:
    failure = of_transport(TransportError("disconnected", "the connection broke"))
    assert failure == Failure(Kind.DISCONNECTED, "the connection broke")
