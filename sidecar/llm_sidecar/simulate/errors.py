"""Each provider's own error bodies, statuses and headers, as their APIs and recordings tell them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from llm_sidecar.simulate.answer import JSONObject
    from llm_sidecar.simulate.faults import Faults


class Family(StrEnum):
    """Whose API it is: decides the shape of errors and headers."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorAnswer:
    """An error as it goes over the wire."""

    status: int
    body: JSONObject
    headers: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """Met when a provider would not take the request; carries what it would say."""

    def __init__(self, answer: ErrorAnswer) -> None:
        super().__init__(answer.status)
        self.answer = answer


_OPENAI: Final[dict[int, tuple[str, str, str | int | None]]] = {
    400: ("Invalid value for the request.", "invalid_request_error", "invalid_value"),
    401: (
        "Incorrect API key provided: ****. You can find your API key at https://platform.openai.com/account/api-keys.",
        "invalid_request_error",
        "invalid_api_key",
    ),
    402: ("Billing hard limit has been reached.", "invalid_request_error", "billing_hard_limit_reached"),
    403: (
        "Country, region, or territory not supported",
        "request_forbidden",
        "unsupported_country_region_territory",
    ),
    404: ("The model does not exist or you do not have access to it.", "invalid_request_error", "model_not_found"),
    408: ("Request timed out.", "invalid_request_error", "request_timeout"),
    413: ("Request body is too large.", "invalid_request_error", "request_too_large"),
    429: (
        "Rate limit reached in organization org-simulated on requests per min (RPM): Limit 500, Used 500, Requested 1.",
        "requests",
        "rate_limit_exceeded",
    ),
    500: ("The server had an error while processing your request. Sorry about that!", "server_error", None),
    502: ("Bad gateway.", "cf_bad_gateway", 502),
    503: (
        "The server is currently overloaded with other requests. Sorry about that! Please retry your request.",
        "service_unavailable_error",
        "server_is_overloaded",
    ),
    504: ("Gateway timeout.", "cf_gateway_timeout", 504),
    529: ("The engine is currently overloaded, please try again later.", "server_error", "engine_overloaded"),
}
_ANTHROPIC: Final[dict[int, tuple[str, str]]] = {
    400: ("invalid_request_error", "The request is not valid."),
    401: ("authentication_error", "invalid x-api-key"),
    402: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    403: ("permission_error", "Your API key does not have permission to use the specified resource."),
    404: ("not_found_error", "Not found"),
    408: ("timeout_error", "Request timed out"),
    413: ("request_too_large", "Request exceeds the maximum size"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit of 50 requests per minute."),
    500: ("api_error", "Internal server error"),
    502: ("api_error", "Bad gateway"),
    503: ("api_error", "Service unavailable"),
    504: ("timeout_error", "Gateway timeout"),
    529: ("overloaded_error", "Overloaded"),
}
_GEMINI: Final[dict[int, tuple[str, str]]] = {
    400: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    401: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    402: ("FAILED_PRECONDITION", "Billing is not enabled for this project."),
    403: ("PERMISSION_DENIED", "The caller does not have permission"),
    404: ("NOT_FOUND", "Requested entity was not found."),
    408: ("DEADLINE_EXCEEDED", "The request timed out."),
    413: ("INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes."),
    429: ("RESOURCE_EXHAUSTED", "You exceeded your current quota, please check your plan and billing details."),
    500: ("INTERNAL", "An internal error has occurred. Please retry."),
    502: ("UNAVAILABLE", "Bad gateway."),
    503: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
    504: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    529: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
}
_HINTED_STATUSES: Final = (429, 503, 529)
_DEFAULT_RETRY_AFTER_SECONDS: Final = 1.0


def openai_error(
    status: int, message: str, *, code: str | int | None = None, param: str | None = None, kind: str | None = None
) -> ErrorAnswer:
    """Return OpenAI's error shape."""
    error = {"message": message, "type": kind or "invalid_request_error", "param": param, "code": code}
    return ErrorAnswer(status=status, body={"error": error})


def anthropic_error(status: int, message: str, *, kind: str | None = None) -> ErrorAnswer:
    """Return Anthropic's error shape; the request id joins it on the way out."""
    return ErrorAnswer(
        status=status,
        body={"type": "error", "error": {"type": kind or _ANTHROPIC[status][0], "message": message}},
    )


def gemini_error(status: int, message: str, *, details: list[JSONObject] | None = None) -> ErrorAnswer:
    """Return Google's error shape."""
    error: JSONObject = {"code": status, "message": message, "status": _GEMINI[status][0]}
    return ErrorAnswer(status=status, body={"error": {**error, "details": details} if details else error})


def invalid_request(family: Family, message: str, *, param: str | None = None, code: str | None = None) -> Refusal:
    """Return a 400 in the family's shape."""
    if family is Family.OPENAI:
        return Refusal(openai_error(400, message, param=param, code=code))
    return Refusal(anthropic_error(400, message) if family is Family.ANTHROPIC else gemini_error(400, message))


def unknown_model(family: Family, model: str, *, method: str = "generateContent", version: str = "v1beta") -> Refusal:
    """Return the 404 of a model that does not exist."""
    if family is Family.OPENAI:
        message = f"The model `{model}` does not exist or you do not have access to it."
        return Refusal(openai_error(404, message, code="model_not_found"))
    if family is Family.ANTHROPIC:
        return Refusal(anthropic_error(404, f"model: {model}"))
    message = (
        f"models/{model} is not found for API version {version}, or is not supported for {method}. Call "
        "ModelService.ListModels to see the list of available models and their supported methods."
    )
    return Refusal(gemini_error(404, message))


def wrong_key(family: Family, *, is_missing: bool) -> Refusal:
    """Return what the provider says to a missing or a wrong key."""
    if family is Family.OPENAI:
        if not is_missing:
            message, kind, code = _OPENAI[401]
            return Refusal(openai_error(401, message, code=code, kind=kind))
        message = "You didn't provide an API key. Provide it in an Authorization header using Bearer auth."
        return Refusal(openai_error(401, message))
    if family is Family.ANTHROPIC:
        return Refusal(anthropic_error(401, "x-api-key header is required" if is_missing else "invalid x-api-key"))
    if is_missing:
        message = (
            "Method doesn't allow unregistered callers. Please use API Key or other form of API consumer identity."
        )
        return Refusal(gemini_error(403, message))
    message = "API key not valid. Please pass a valid API key."
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": "API_KEY_INVALID",
        "domain": "googleapis.com",
        "metadata": {"service": "generativelanguage.googleapis.com"},
    }
    localized = {"@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en-US", "message": message}
    return Refusal(gemini_error(400, message, details=[info, localized]))


def no_such_path(family: Family, method: str, path: str) -> ErrorAnswer:
    """Return the 404 of a path that the API does not have."""
    if family is Family.OPENAI:
        return openai_error(404, f"Invalid URL ({method} {path})")
    return anthropic_error(404, "Not found") if family is Family.ANTHROPIC else gemini_error(404, _GEMINI[404][1])


def wrong_method(family: Family, method: str, path: str) -> ErrorAnswer:
    """Return the 405 of a path that takes another method."""
    if family is Family.OPENAI:
        hint = "(HINT: Perhaps you meant to use a different HTTP method?)"
        return openai_error(405, f"Not allowed to {method} on {path}. {hint}", code="method_not_supported")
    if family is Family.ANTHROPIC:
        return anthropic_error(405, "Method Not Allowed", kind="invalid_request_error")
    return gemini_error(404, _GEMINI[404][1])


def too_large(family: Family) -> ErrorAnswer:
    """Return the 413 of a body over the limit."""
    if family is Family.OPENAI:
        message, kind, code = _OPENAI[413]
        return openai_error(413, message, kind=kind, code=code)
    if family is Family.ANTHROPIC:
        return anthropic_error(413, _ANTHROPIC[413][1])
    return gemini_error(413, _GEMINI[413][1])


def failure(family: Family, faults: Faults) -> ErrorAnswer | None:
    """Return the error that the faults ask for, if they ask for one instead of an answer."""
    if faults.quota is not None:
        return _exhausted(family)
    if faults.status is None:
        return None
    wait_seconds = _wait_seconds(faults)
    if family is Family.OPENAI:
        return _openai_failure(faults.status, wait_seconds)
    if family is Family.ANTHROPIC:
        return _anthropic_failure(faults.status, wait_seconds)
    return _gemini_failure(faults.status, wait_seconds)


def mid_stream_error(family: Family, *, is_responses: bool, sequence_number: int) -> tuple[str | None, JSONObject]:
    """Return event name and data of the error that the API sends after a 200."""
    if family is Family.ANTHROPIC:
        return "error", anthropic_error(529, "Overloaded").body
    if family is Family.GEMINI:
        return None, gemini_error(503, _GEMINI[503][1]).body
    message, kind, code = _OPENAI[500]
    if is_responses:
        flat = {"type": "error", "code": "server_error", "message": message, "param": None}
        return "error", {**flat, "sequence_number": sequence_number}
    return None, openai_error(500, message, kind=kind, code=code).body


def _wait_seconds(faults: Faults) -> float | None:
    if faults.retry_after_seconds == "none":
        return None
    if faults.retry_after_seconds is not None:
        return float(faults.retry_after_seconds)
    return _DEFAULT_RETRY_AFTER_SECONDS if faults.status in _HINTED_STATUSES else None


def _openai_failure(status: int, wait_seconds: float | None) -> ErrorAnswer:
    message, kind, code = _OPENAI[status]
    headers = {}
    if wait_seconds is not None:
        headers = {"retry-after": str(math.ceil(wait_seconds)), "retry-after-ms": str(round(wait_seconds * 1000))}
        if status == 429:
            message += f" Please try again in {wait_seconds:g}s."
            headers |= {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": f"{wait_seconds:g}s"}
    return ErrorAnswer(
        status=status,
        body=openai_error(status, message, kind=kind, code=code).body,
        headers=headers,
    )


def _anthropic_failure(status: int, wait_seconds: float | None) -> ErrorAnswer:
    _, message = _ANTHROPIC[status]
    headers = {}
    if wait_seconds is not None:
        headers = {"retry-after": str(math.ceil(wait_seconds))}
        if status == 429:
            reset = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=math.ceil(wait_seconds))
            headers |= {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": reset.isoformat().replace("+00:00", "Z"),
            }
    return ErrorAnswer(status=status, body=anthropic_error(status, message).body, headers=headers)


def _gemini_failure(status: int, wait_seconds: float | None) -> ErrorAnswer:
    details: list[JSONObject] = []
    if status == 429:
        details.append(_quota_failure("GenerateRequestsPerMinutePerProjectPerModel"))
        if wait_seconds is not None:
            details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": f"{wait_seconds:g}s"})
    return gemini_error(status, _GEMINI[status][1], details=details)


def _quota_failure(quota_id: str) -> JSONObject:
    metric = "generativelanguage.googleapis.com/generate_content_requests"
    violation = {"quotaMetric": metric, "quotaId": quota_id, "quotaValue": "10"}
    return {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [violation]}


def _exhausted(family: Family) -> ErrorAnswer:
    if family is Family.OPENAI:
        message = "You exceeded your current quota, please check your plan and billing details."
        return openai_error(429, message, kind="insufficient_quota", code="insufficient_quota")
    if family is Family.ANTHROPIC:
        answer = anthropic_error(429, "You have reached your specified API usage limits.")
        answer.body["error"]["details"] = {"error_code": "enforced_spend_limit_reached"}
        return answer
    return gemini_error(429, _GEMINI[429][1], details=[_quota_failure("GenerateRequestsPerDayPerProjectPerModel")])
