"""What each documented, simulated or recorded error of the providers is taken for. The tables are written by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_sidecar.contract.names import API
from llm_sidecar.formats.base import StreamError
from llm_sidecar.formats.error_answers import read_error, read_stream_error
from llm_sidecar.formats.told_error import FailureKind as Kind
from llm_sidecar.formats.told_error import ToldError
from llm_sidecar.simulate import errors as simulated
from llm_sidecar.simulate.errors import ErrorAnswer, Family
from llm_sidecar.simulate.faults import STATUSES, Faults

CHAT, CLAUDE, GEMINI = API.OPENAI_CHAT, API.ANTHROPIC_MESSAGES, API.GEMINI
NOW: Final = 1_790_000_000.0
APIS: Final = {Family.OPENAI: CHAT, Family.ANTHROPIC: CLAUDE, Family.GEMINI: GEMINI}


@dataclass(frozen=True, slots=True)
class Case:
    """An error answer, and what a careful reader takes it for."""

    api: API
    status: int
    error: Any
    kind: Kind
    retry_after_seconds: float | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def body(self) -> bytes:
        if isinstance(self.error, bytes):
            return self.error
        outer = {"type": "error", "error": self.error} if self.api is CLAUDE else {"error": self.error}
        return orjson.dumps(outer)


def openai(message: str = "m", *, code: str | int | None = None, kind: str = "invalid_request_error") -> dict[str, Any]:
    return {"message": message, "type": kind, "param": None, "code": code}


def claude(kind: str, message: str = "m", *, code: str | None = None) -> dict[str, Any]:
    error: dict[str, Any] = {"type": kind, "message": message}
    return error | {"details": {"error_code": code}} if code else error


def google(name: str, message: str = "m", *details: dict[str, Any], code: int = 400) -> dict[str, Any]:
    error: dict[str, Any] = {"code": code, "message": message, "status": name}
    return error | {"details": list(details)} if details else error


def detail(name: str, **fields: Any) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/google.rpc.{name}", **fields}


def quota(quota_id: str, value: str = "10") -> dict[str, Any]:
    return detail("QuotaFailure", violations=[{"quotaMetric": "m", "quotaId": quota_id, "quotaValue": value}])


PER_MINUTE: Final = quota("GenerateRequestsPerMinutePerProjectPerModel-FreeTier")
PER_DAY: Final = quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier")
WINDOW: Final = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
OPENAI_LIMIT: Final = (
    "Rate limit reached for gpt-5 in organization org-1 on tokens per min. Please try again in 1.242s."
)

DOCUMENTED: Final = {
    # --- OpenAI
    "openai: a wrong value": Case(CHAT, 400, openai(code="invalid_value"), Kind.INVALID_REQUEST),
    "openai: nothing but a status": Case(CHAT, 400, openai(), Kind.INVALID_REQUEST),
    "openai: context window": Case(CHAT, 400, openai(WINDOW, code="context_length_exceeded"), Kind.TOO_LONG),
    "openai: context window without a code": Case(CHAT, 400, openai(WINDOW), Kind.TOO_LONG),
    "openai: an input to embed": Case(
        API.OPENAI_EMBEDDINGS, 400, openai("Invalid 'input[0]': maximum input length is 8192 tokens."), Kind.TOO_LONG
    ),
    "openai: a text that is too long": Case(CHAT, 400, openai(code="string_above_max_length"), Kind.TOO_LONG),
    "openai: content filter": Case(CHAT, 400, openai(code="content_filter"), Kind.CONTENT_POLICY),
    "openai: content policy": Case(CHAT, 400, openai(code="content_policy_violation"), Kind.CONTENT_POLICY),
    "openai: a flagged prompt": Case(API.OPENAI_RESPONSES, 400, openai(code="invalid_prompt"), Kind.CONTENT_POLICY),
    "azure: responsible AI": Case(
        CHAT,
        400,
        {**openai(code=None, kind=""), "innererror": {"code": "ResponsibleAIPolicyViolation"}},
        Kind.CONTENT_POLICY,
    ),
    "openrouter: moderation": Case(
        CHAT,
        403,
        {"code": 403, "message": "m", "metadata": {"reasons": ["x"], "flagged_input": "…"}},
        Kind.CONTENT_POLICY,
    ),
    "openai: an answer of another place": Case(
        API.OPENAI_RESPONSES, 400, openai(code="previous_response_not_found"), Kind.INVALID_REQUEST
    ),
    "openai: wrong key": Case(CHAT, 401, openai(code="invalid_api_key"), Kind.AUTHENTICATION),
    "openai: no key": Case(CHAT, 401, openai(), Kind.AUTHENTICATION),
    "openai: deactivated": Case(CHAT, 401, openai(code="account_deactivated"), Kind.AUTHENTICATION),
    "openai: region": Case(
        CHAT, 403, openai(code="unsupported_country_region_territory", kind="request_forbidden"), Kind.AUTHENTICATION
    ),
    "openai: a project without the model": Case(CHAT, 403, openai(code="model_not_found"), Kind.NOT_FOUND),
    "openai: no such model": Case(CHAT, 404, openai(code="model_not_found"), Kind.NOT_FOUND),
    "openai: no such path": Case(CHAT, 404, openai("Invalid URL (POST /v1/x)"), Kind.NOT_FOUND),
    "azure: no such deployment": Case(CHAT, 404, {"code": "DeploymentNotFound", "message": "m"}, Kind.NOT_FOUND),
    "openai: conflict": Case(CHAT, 409, openai(code="conversation_locked"), Kind.INVALID_REQUEST),
    "openai: unprocessable": Case(CHAT, 422, openai(), Kind.INVALID_REQUEST),
    "openai: credit": Case(CHAT, 402, openai(code="billing_hard_limit_reached"), Kind.QUOTA_EXHAUSTED),
    "openrouter: credit": Case(CHAT, 402, {"code": 402, "message": "m"}, Kind.QUOTA_EXHAUSTED),
    "openai: quota": Case(
        CHAT, 429, openai(code="insufficient_quota", kind="insufficient_quota"), Kind.QUOTA_EXHAUSTED
    ),
    "openai: quota by type alone": Case(CHAT, 429, openai(kind="insufficient_quota"), Kind.QUOTA_EXHAUSTED),
    "openai: quota by code alone": Case(
        CHAT, 429, openai(code="credit_balance_exhausted", kind="insufficient_quota"), Kind.QUOTA_EXHAUSTED
    ),
    "openai: rate limit": Case(
        CHAT, 429, openai(OPENAI_LIMIT, code="rate_limit_exceeded", kind="tokens"), Kind.RATE_LIMITED, 1.242
    ),
    "openai: rate limit with headers": Case(
        CHAT,
        429,
        openai(OPENAI_LIMIT, code="rate_limit_exceeded", kind="tokens"),
        Kind.RATE_LIMITED,
        0.25,
        {"Retry-After": "1", "Retry-After-Ms": "250"},
    ),
    "openai: rate limit with resets": Case(
        CHAT,
        429,
        openai(code="rate_limit_exceeded", kind="requests"),
        Kind.RATE_LIMITED,
        0.02,
        {
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": "20ms",
            "x-ratelimit-remaining-tokens": "100",
            "x-ratelimit-reset-tokens": "6m0s",
        },
    ),
    "azure: headers that mean nothing": Case(
        API.OPENAI_RESPONSES,
        429,
        openai(code="too_many_requests", kind="too_many_requests"),
        Kind.RATE_LIMITED,
        None,
        {"x-ratelimit-remaining-requests": "-1", "x-ratelimit-reset-requests": "0"},
    ),
    "openai: more than a minute's tokens": Case(
        CHAT,
        429,
        openai(
            "Request too large for gpt-4o in organization org-1 on tokens per min (TPM): Limit 1, Requested 2.",
            code="rate_limit_exceeded",
            kind="tokens",
        ),
        Kind.TOO_LONG,
    ),
    "openai: slow down": Case(CHAT, 503, openai(code="slow_down", kind="server_error"), Kind.RATE_LIMITED),
    "openai: no room in the flexible tier": Case(CHAT, 429, openai(code="resource_unavailable"), Kind.OVERLOADED),
    "groq: no room in the flexible tier": Case(CHAT, 498, openai(), Kind.OVERLOADED),
    "openai: server": Case(CHAT, 500, openai(kind="server_error"), Kind.SERVER),
    "openai: server that speaks of context": Case(CHAT, 500, openai(WINDOW, kind="server_error"), Kind.SERVER),
    "openai: overloaded": Case(CHAT, 503, openai(kind="server_error"), Kind.OVERLOADED),
    "cloudflare: too slow": Case(CHAT, 524, b"error code: 524", Kind.TIMEOUT),
    "llama.cpp: context": Case(CHAT, 400, openai(kind="exceed_context_size_error", code=400), Kind.TOO_LONG),
    "vllm: context": Case(
        CHAT,
        400,
        orjson.dumps({"object": "error", "message": WINDOW, "type": "BadRequestError", "code": 400}),
        Kind.TOO_LONG,
    ),
    "a bare string": Case(CHAT, 404, "model 'x' not found", Kind.NOT_FOUND),
    "google's server for openai's api": Case(
        CHAT,
        429,
        orjson.dumps([{"error": google("RESOURCE_EXHAUSTED", "m", PER_DAY, code=429)}]),
        Kind.QUOTA_EXHAUSTED,
    ),
    # --- Anthropic
    "anthropic: a wrong value": Case(CLAUDE, 400, claude("invalid_request_error"), Kind.INVALID_REQUEST),
    "anthropic: prompt": Case(
        CLAUDE, 400, claude("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), Kind.TOO_LONG
    ),
    "anthropic: prompt and output": Case(
        CLAUDE,
        400,
        claude("invalid_request_error", "input length and `max_tokens` exceed context limit: 9 + 8 > 10, decrease…"),
        Kind.TOO_LONG,
    ),
    "anthropic: request": Case(
        CLAUDE, 413, claude("request_too_large", "Request exceeds the maximum size"), Kind.TOO_LONG
    ),
    "anthropic: request, told by the edge": Case(CLAUDE, 413, b"<html>413</html>", Kind.TOO_LONG),
    "anthropic: compressed request": Case(
        CLAUDE, 413, claude("invalid_request_error", code="request_body_too_large_after_decoding"), Kind.TOO_LONG
    ),
    "anthropic: filtered": Case(
        CLAUDE,
        400,
        claude("invalid_request_error", "Output blocked by content filtering policy"),
        Kind.CONTENT_POLICY,
    ),
    "anthropic: credit as a 400": Case(
        CLAUDE,
        400,
        claude("invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        Kind.QUOTA_EXHAUSTED,
    ),
    "anthropic: spend limit as a 400": Case(
        CLAUDE,
        400,
        claude("invalid_request_error", "You have reached your specified API usage limits. You will regain access…"),
        Kind.QUOTA_EXHAUSTED,
    ),
    "anthropic: billing": Case(CLAUDE, 402, claude("billing_error"), Kind.QUOTA_EXHAUSTED),
    "anthropic: spend limit": Case(
        CLAUDE, 429, claude("rate_limit_error", code="enforced_spend_limit_reached"), Kind.QUOTA_EXHAUSTED
    ),
    "anthropic: contract": Case(
        CLAUDE, 429, claude("rate_limit_error", code="contract_spend_limit_reached"), Kind.QUOTA_EXHAUSTED
    ),
    "anthropic: on hold": Case(
        CLAUDE, 400, claude("invalid_request_error", code="organization_on_hold"), Kind.AUTHENTICATION
    ),
    "anthropic: disabled": Case(
        CLAUDE, 400, claude("invalid_request_error", "This organization has been disabled."), Kind.AUTHENTICATION
    ),
    "anthropic: wrong key": Case(CLAUDE, 401, claude("authentication_error"), Kind.AUTHENTICATION),
    "anthropic: permission": Case(CLAUDE, 403, claude("permission_error"), Kind.AUTHENTICATION),
    "anthropic: no such model": Case(CLAUDE, 404, claude("not_found_error", "model: x"), Kind.NOT_FOUND),
    "anthropic: conflict": Case(CLAUDE, 409, claude("conflict_error"), Kind.INVALID_REQUEST),
    "anthropic: rate limit": Case(
        CLAUDE, 429, claude("rate_limit_error"), Kind.RATE_LIMITED, 17.0, {"retry-after": "17"}
    ),
    "anthropic: rate limit with resets": Case(
        CLAUDE,
        429,
        claude("rate_limit_error"),
        Kind.RATE_LIMITED,
        30.0,
        {
            "date": "Mon, 21 Sep 2026 14:13:20 GMT",
            "anthropic-ratelimit-requests-remaining": "3",
            "anthropic-ratelimit-requests-reset": "2026-09-21T14:20:20Z",
            "anthropic-ratelimit-input-tokens-remaining": "0",
            "anthropic-ratelimit-input-tokens-reset": "2026-09-21T14:13:50Z",
        },
    ),
    "anthropic: ramp": Case(
        CLAUDE,
        429,
        claude("rate_limit_error", code="ramp_limit_exceeded"),
        Kind.RATE_LIMITED,
        5.0,
        {"retry-after": "5"},
    ),
    "anthropic: server": Case(CLAUDE, 500, claude("api_error"), Kind.SERVER),
    "anthropic: timeout": Case(CLAUDE, 504, claude("timeout_error"), Kind.TIMEOUT),
    "anthropic: overloaded": Case(CLAUDE, 529, claude("overloaded_error"), Kind.OVERLOADED),
    # --- Gemini
    "gemini: a wrong value": Case(GEMINI, 400, google("INVALID_ARGUMENT"), Kind.INVALID_REQUEST),
    "gemini: context": Case(
        GEMINI,
        400,
        google("INVALID_ARGUMENT", "The input token count (9) exceeds the maximum number of tokens allowed (8)."),
        Kind.TOO_LONG,
    ),
    "gemini: payload": Case(
        GEMINI,
        400,
        google("INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes."),
        Kind.TOO_LONG,
    ),
    "gemini: wrong key": Case(
        GEMINI,
        400,
        google("INVALID_ARGUMENT", "API key not valid.", detail("ErrorInfo", reason="API_KEY_INVALID")),
        Kind.AUTHENTICATION,
    ),
    "gemini: expired key, by its words": Case(
        GEMINI, 400, google("INVALID_ARGUMENT", "API key expired. Please renew the API key."), Kind.AUTHENTICATION
    ),
    "gemini: leaked key": Case(
        GEMINI, 403, google("PERMISSION_DENIED", "Your API key was reported as leaked."), Kind.AUTHENTICATION
    ),
    "gemini: not switched on": Case(
        GEMINI,
        403,
        google("PERMISSION_DENIED", "m", detail("ErrorInfo", reason="SERVICE_DISABLED")),
        Kind.AUTHENTICATION,
    ),
    "gemini: no billing": Case(
        GEMINI,
        403,
        google("PERMISSION_DENIED", "m", detail("ErrorInfo", reason="BILLING_DISABLED")),
        Kind.QUOTA_EXHAUSTED,
    ),
    "gemini: location": Case(
        GEMINI,
        400,
        google("FAILED_PRECONDITION", "User location is not supported for the API use."),
        Kind.AUTHENTICATION,
    ),
    "gemini: free tier": Case(
        GEMINI,
        400,
        google(
            "FAILED_PRECONDITION",
            "Gemini API free tier is not available in your country. Please enable billing on your project.",
        ),
        Kind.AUTHENTICATION,
    ),
    "gemini: a file that is not ready": Case(
        GEMINI,
        400,
        google("FAILED_PRECONDITION", "The File x is not in an ACTIVE state and usage is not allowed."),
        Kind.INVALID_REQUEST,
    ),
    "gemini: somebody else's file": Case(
        GEMINI,
        403,
        google("PERMISSION_DENIED", "You do not have permission to access the File x or it may not exist."),
        Kind.INVALID_REQUEST,
    ),
    "gemini: unauthenticated": Case(GEMINI, 401, google("UNAUTHENTICATED"), Kind.AUTHENTICATION),
    "gemini: no such model": Case(GEMINI, 404, google("NOT_FOUND"), Kind.NOT_FOUND),
    "gemini: per minute": Case(
        GEMINI,
        429,
        google("RESOURCE_EXHAUSTED", "m", PER_MINUTE, detail("RetryInfo", retryDelay="52s"), code=429),
        Kind.RATE_LIMITED,
        52.0,
    ),
    "gemini: per day, whatever the delay says": Case(
        GEMINI,
        429,
        google("RESOURCE_EXHAUSTED", "m", PER_MINUTE, PER_DAY, detail("RetryInfo", retryDelay="0.5s"), code=429),
        Kind.QUOTA_EXHAUSTED,
        0.5,
    ),
    "gemini: per day in the metadata": Case(
        GEMINI,
        429,
        google(
            "RESOURCE_EXHAUSTED",
            "m",
            detail("ErrorInfo", reason="RATE_LIMIT_EXCEEDED", metadata={"quota_limit": "RequestsPerDayPerProject"}),
            code=429,
        ),
        Kind.QUOTA_EXHAUSTED,
    ),
    "gemini: none granted": Case(
        GEMINI,
        429,
        google("RESOURCE_EXHAUSTED", "* Quota exceeded for metric: x, limit: 0, model: y", code=429),
        Kind.QUOTA_EXHAUSTED,
    ),
    "gemini: prepaid": Case(
        GEMINI,
        429,
        google("RESOURCE_EXHAUSTED", "Your prepayment credits are depleted.", code=429),
        Kind.QUOTA_EXHAUSTED,
    ),
    "vertex: a limit without any delay": Case(
        GEMINI,
        429,
        google("RESOURCE_EXHAUSTED", "Resource exhausted. Please try again later.", code=429),
        Kind.RATE_LIMITED,
    ),
    "gemini: in an array": Case(
        GEMINI, 503, orjson.dumps([{"error": google("UNAVAILABLE", code=503)}]), Kind.OVERLOADED
    ),
    "gemini: server": Case(GEMINI, 500, google("INTERNAL", code=500), Kind.SERVER),
    "gemini: not built": Case(GEMINI, 501, google("UNIMPLEMENTED", code=501), Kind.NOT_FOUND),
    "gemini: overloaded": Case(GEMINI, 503, google("UNAVAILABLE", code=503), Kind.OVERLOADED),
    "gemini: deadline": Case(GEMINI, 504, google("DEADLINE_EXCEEDED", code=504), Kind.TIMEOUT),
    # --- somebody in between
    "a page instead of a judgement": Case(CHAT, 404, b"<html>not found</html>", Kind.GARBLED_ANSWER),
    "a page that refuses": Case(GEMINI, 403, b"<html>forbidden</html>", Kind.AUTHENTICATION),
    "a gateway's page": Case(CLAUDE, 502, b"<html>bad gateway</html>", Kind.SERVER),
    "a gateway's page with a hint": Case(CLAUDE, 503, b"down", Kind.OVERLOADED, 120.0, {"retry-after": "120"}),
    "a redirect": Case(CHAT, 302, b"", Kind.REDIRECTED),
    "a redirect with an error in it": Case(CHAT, 307, openai(code="model_not_found"), Kind.REDIRECTED),
}


def read(api: API, status: int, body: bytes, headers: dict[str, str]) -> ToldError:
    return read_error(api, status, headers.items(), body, now_seconds=NOW)


@pytest.mark.parametrize("case", DOCUMENTED.values(), ids=DOCUMENTED)
def test_a_documented_error_is_what_a_careful_reader_takes_it_for(case: Case) -> None:
    told = read(case.api, case.status, case.body, case.headers)
    assert (told.kind, told.status) == (case.kind, case.status)
    assert told.retry_after_seconds == pytest.approx(case.retry_after_seconds)


# --- the simulator's errors


_EVERYWHERE: Final = {
    400: Kind.INVALID_REQUEST,
    401: Kind.AUTHENTICATION,
    402: Kind.QUOTA_EXHAUSTED,
    403: Kind.AUTHENTICATION,
    404: Kind.NOT_FOUND,
    408: Kind.TIMEOUT,
    413: Kind.TOO_LONG,
    429: Kind.RATE_LIMITED,
    500: Kind.SERVER,
    502: Kind.SERVER,
    503: Kind.OVERLOADED,
    504: Kind.TIMEOUT,
    529: Kind.OVERLOADED,
}


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("status", STATUSES)
def test_each_status_that_the_simulator_can_send_is_understood(family: Family, status: int) -> None:
    answer = simulated.failure(family, Faults(status=status))
    assert answer is not None
    told = of_simulated(family, answer)
    assert told.kind is _EVERYWHERE[status]
    if status == 429:
        assert told.retry_after_seconds == pytest.approx(1.0)


@pytest.mark.parametrize("family", Family)
def test_a_spent_quota_is_no_rate_limit(family: Family) -> None:
    answer = simulated.failure(family, Faults(quota="exhausted"))
    assert answer is not None
    assert of_simulated(family, answer).kind is Kind.QUOTA_EXHAUSTED


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda family: simulated.invalid_request(family, "no").answer, Kind.INVALID_REQUEST),
        (lambda family: simulated.unknown_model(family, "x").answer, Kind.NOT_FOUND),
        (lambda family: simulated.wrong_key(family, is_missing=True).answer, Kind.AUTHENTICATION),
        (lambda family: simulated.wrong_key(family, is_missing=False).answer, Kind.AUTHENTICATION),
        (lambda family: simulated.no_such_path(family, "POST", "/x"), Kind.NOT_FOUND),
        (simulated.too_large, Kind.TOO_LONG),
    ],
    ids=["invalid", "model", "missing key", "wrong key", "path", "too large"],
)
def test_what_the_simulator_refuses_by_itself_is_understood(family: Family, make: Any, kind: Kind) -> None:
    assert of_simulated(family, make(family)).kind is kind


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        (Family.OPENAI, Kind.INVALID_REQUEST),
        (Family.ANTHROPIC, Kind.INVALID_REQUEST),
        (Family.GEMINI, Kind.NOT_FOUND),  # Google knows no 405
    ],
)
def test_a_wrong_method_is_the_applications(family: Family, kind: Kind) -> None:
    assert of_simulated(family, simulated.wrong_method(family, "GET", "/x")).kind is kind


@pytest.mark.parametrize(
    ("family", "hint", "seconds"),
    [
        (Family.OPENAI, "0.3", 0.3),
        (Family.ANTHROPIC, "3", 3.0),
        (Family.GEMINI, "0.3", 0.3),
        (Family.OPENAI, "none", None),
        (Family.ANTHROPIC, "none", None),
        (Family.GEMINI, "none", None),
    ],
)
def test_the_simulators_delays_are_read(family: Family, hint: str, seconds: float | None) -> None:
    answer = simulated.failure(family, Faults(status=429, retry_after_seconds=hint))
    assert answer is not None
    assert of_simulated(family, answer).retry_after_seconds == pytest.approx(seconds)


def of_simulated(family: Family, answer: ErrorAnswer) -> ToldError:
    return read(APIS[family], answer.status, orjson.dumps(answer.body), answer.headers)


# --- errors within streams


@pytest.mark.parametrize(
    ("api", "error", "kind"),
    [
        (CHAT, StreamError(500, "server_error", "m"), Kind.SERVER),
        (CHAT, StreamError(429, "insufficient_quota", "m"), Kind.QUOTA_EXHAUSTED),
        (CHAT, StreamError(400, "context_length_exceeded", WINDOW), Kind.TOO_LONG),
        (API.OPENAI_RESPONSES, StreamError(429, "rate_limit_exceeded", "m"), Kind.RATE_LIMITED),
        (API.OPENAI_RESPONSES, StreamError(500, "image_content_policy_violation", "m"), Kind.CONTENT_POLICY),
        (CLAUDE, StreamError(529, "overloaded_error", "Overloaded"), Kind.OVERLOADED),
        (CLAUDE, StreamError(500, "api_error", "m"), Kind.SERVER),
        (GEMINI, StreamError(503, "UNAVAILABLE", "m"), Kind.OVERLOADED),
        (GEMINI, StreamError(429, "RESOURCE_EXHAUSTED", "m"), Kind.RATE_LIMITED),
        (GEMINI, StreamError(500, "INTERNAL", "m"), Kind.SERVER),
    ],
)
def test_an_error_within_a_stream_means_the_same_as_an_answer(api: API, error: StreamError, kind: Kind) -> None:
    assert read_stream_error(api, error).kind is kind


@pytest.mark.parametrize(
    ("family", "is_responses", "status", "kind"),
    [
        (Family.OPENAI, False, 500, Kind.SERVER),
        (Family.OPENAI, True, 500, Kind.SERVER),
        (Family.ANTHROPIC, False, 529, Kind.OVERLOADED),
        (Family.GEMINI, False, 503, Kind.OVERLOADED),
    ],
)
def test_the_simulators_errors_within_streams_are_understood_as_documents_too(
    family: Family, is_responses: bool, status: int, kind: Kind
) -> None:
    _, document = simulated.mid_stream_error(family, is_responses=is_responses, sequence_number=3)
    told = read(APIS[family], status, orjson.dumps(document), {})
    assert told.kind is kind
    assert told.message


@pytest.mark.parametrize("api", API)
def test_the_shape_decides_and_not_the_api(api: API) -> None:
    """Gateways answer for one API with the errors of the provider behind them."""
    shapes = {
        Kind.OVERLOADED: {"type": "error", "error": claude("overloaded_error")},
        Kind.QUOTA_EXHAUSTED: {"error": google("RESOURCE_EXHAUSTED", "m", PER_DAY)},
    }
    for kind, document in shapes.items():
        assert read(api, 429, orjson.dumps(document), {}).kind is kind


def test_an_openai_error_in_an_events_wrapping_is_openais() -> None:
    document = {"type": "error", "error": openai(code="insufficient_quota")}
    assert read(API.OPENAI_RESPONSES, 429, orjson.dumps(document), {}).kind is Kind.QUOTA_EXHAUSTED


# --- recordings


RECORDED: Final = {
    "1d4dd32fb20a": Kind.INVALID_REQUEST,  # a temperature of -1
    "622394ec5f65": Kind.NOT_FOUND,  # a model that is none
    "9e2c3ca48e99": Kind.INVALID_REQUEST,  # -1 dimensions
    "fa179e38f442": Kind.INVALID_REQUEST,  # web search with a model that has none
    "3a55eb1fcccc": Kind.INVALID_REQUEST,  # an effort that the model does not know
    "4227bb071a29": Kind.NOT_FOUND,
    "77d2490e62cd": Kind.NOT_FOUND,
    "df18c66ff204": Kind.NOT_FOUND,
}
_RECORDED_APIS: Final = {"openai": CHAT, "anthropic": CLAUDE, "google": GEMINI}


def recorded_errors(folder: Path) -> Iterator[tuple[API, dict[str, Any]]]:
    for name, api in _RECORDED_APIS.items():
        for line in (folder / f"{name}.jsonl").read_text().splitlines():
            exchange = cast("dict[str, Any]", json.loads(line))
            if exchange["status"] >= 400:
                yield api, exchange


@pytest.mark.needs("recordings")
def test_every_recorded_error_is_what_a_careful_reader_takes_it_for(recordings_directory: Path) -> None:
    found = {}
    for api, one in recorded_errors(recordings_directory):
        told = read(api, one["status"], one["response"].encode(), one["response_headers"])
        assert told.message, one["id"]
        assert told.retry_after_seconds is None, one["id"]
        found[one["id"]] = told.kind
    assert found == RECORDED


# --- whatever comes


def dumped(value: object) -> bytes:
    return json.dumps(value).encode()


_NAMES = st.sampled_from(
    ["error", "type", "code", "message", "status", "details", "@type", "violations", "metadata", "innererror", "reason"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
_HINTS = st.sampled_from(
    [
        "retry-after",
        "retry-after-ms",
        "date",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-tokens",
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ]
)


@given(
    api=st.sampled_from(API),
    status=st.integers(300, 599),
    body=st.one_of(st.binary(max_size=40), _JSON.map(dumped)),
    headers=st.lists(st.tuples(_HINTS, st.text(max_size=30)), max_size=4),
)
def test_no_answer_is_too_odd_to_be_understood(
    api: API, status: int, body: bytes, headers: list[tuple[str, str]]
) -> None:
    told = read_error(api, status, headers, body, now_seconds=NOW)
    assert told.kind in Kind
    assert told.retry_after_seconds is None or 0 <= told.retry_after_seconds <= 86_400
    assert told.code == "" or told.code.isprintable()
    assert " " not in told.code


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (302, Kind.REDIRECTED),
        (400, Kind.INVALID_REQUEST),
        (401, Kind.AUTHENTICATION),
        (402, Kind.QUOTA_EXHAUSTED),
        (403, Kind.AUTHENTICATION),
        (404, Kind.NOT_FOUND),
        (408, Kind.TIMEOUT),
        (409, Kind.INVALID_REQUEST),
        (413, Kind.TOO_LONG),
        (422, Kind.INVALID_REQUEST),
        (429, Kind.RATE_LIMITED),
        (500, Kind.SERVER),
        (502, Kind.SERVER),
        (503, Kind.OVERLOADED),
        (504, Kind.TIMEOUT),
        (529, Kind.OVERLOADED),
        (599, Kind.SERVER),
    ],
)
@pytest.mark.parametrize("api", API)
def test_a_status_speaks_where_a_body_says_nothing(api: API, status: int, kind: Kind) -> None:
    told = read(api, status, b"{}", {})
    assert (told.kind, told.code, told.message) == (kind, "", "")


def test_a_status_that_is_no_word_is_no_status() -> None:
    assert read_error(API.OPENAI_CHAT, 400, (), b'{"status":[]}', now_seconds=NOW).kind is Kind.INVALID_REQUEST
