"""Our own answers: errors in the shape of the API that was called, and the headers that go with every answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from multidict import CIMultiDict

from llm_sidecar.contract.names import API, ResponseHeader
from llm_sidecar.errors import MethodNotAllowed, SidecarError
from llm_sidecar.formats.base import Call
from llm_sidecar.formats.recognise import Family, Recognised
from llm_sidecar.formats.registry import FORMATS

if TYPE_CHECKING:
    from llm_sidecar.providers.base import Headers
    from llm_sidecar.record import RequestRecord

_FAMILY_API = {Family.OPENAI: API.OPENAI_CHAT, Family.ANTHROPIC: API.ANTHROPIC_MESSAGES, Family.GEMINI: API.GEMINI}
_API_FAMILY = {
    API.OPENAI_CHAT: Family.OPENAI,
    API.OPENAI_RESPONSES: Family.OPENAI,
    API.OPENAI_EMBEDDINGS: Family.OPENAI,
    API.ANTHROPIC_MESSAGES: Family.ANTHROPIC,
    API.GEMINI: Family.GEMINI,
}


def family_of(recognised: Recognised) -> Family:
    """Whose shape an error takes."""
    return _API_FAMILY[recognised.api] if isinstance(recognised, Call) else recognised.family


def error_reply(error: SidecarError, family: Family, record: RequestRecord, *, in_array: bool = False) -> web.Response:
    """Our own error for the application; `in_array`: as the only element of one, like that API's answers."""
    record.status, record.error_code = error.status, error.code
    api = record.api or _FAMILY_API[family]
    details = error.details
    retry_after_seconds = 0
    if error.retry_after_milliseconds is not None:
        retry_after_seconds = -(-error.retry_after_milliseconds // 1000)
        details = {**details, "retry_after_seconds": retry_after_seconds}  # Google's clients look there only
    body = FORMATS[api].error_body(error.status, error.code, error.message, details)
    if in_array:
        body = b"[%b]" % body
    reply = web.Response(status=error.status, body=body, content_type="application/json")
    headers = reply.headers
    headers[ResponseHeader.REFUSED_BY] = "llm-sidecar"
    if error.retry_after_milliseconds is not None:
        headers["retry-after"] = str(retry_after_seconds)
        headers["retry-after-ms"] = str(error.retry_after_milliseconds)
    if error.should_retry is not None:
        headers["x-should-retry"] = "true" if error.should_retry else "false"
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = error.allowed
    _add_own(headers, record)
    return reply


def answer_headers(provider_headers: Headers, record: RequestRecord) -> CIMultiDict[str]:
    """The headers of a relayed answer."""
    headers = CIMultiDict(provider_headers)
    _add_own(headers, record)
    return headers


def _add_own(headers: CIMultiDict[str], record: RequestRecord) -> None:
    headers.setdefault("server", "llm-sidecar")  # or aiohttp would tell its version and Python's
    headers[ResponseHeader.REQUEST_ID] = record.request_id
    if record.attempts:
        headers[ResponseHeader.ATTEMPTS] = str(len(record.attempts))
    if record.answered_by is not None:
        headers[ResponseHeader.PROVIDER], headers[ResponseHeader.MODEL] = record.answered_by
    if record.cache is not None:
        headers[ResponseHeader.CACHE] = record.cache
    if record.downgraded_from:
        headers[ResponseHeader.DOWNGRADED_FROM] = record.downgraded_from
    if record.output_clamped_tokens:
        headers[ResponseHeader.OUTPUT_CLAMPED] = str(record.output_clamped_tokens)
    if record.dropped:
        headers[ResponseHeader.DROPPED] = ", ".join(record.dropped)
    if record.cost_nano_usd is not None:
        headers[ResponseHeader.COST_USD] = f"{record.cost_nano_usd // 10**9}.{record.cost_nano_usd % 10**9:09d}"
    if record.quota_remaining:
        headers[ResponseHeader.QUOTA_REMAINING] = record.quota_remaining
