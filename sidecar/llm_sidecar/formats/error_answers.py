"""Reads a provider's error answer: finds out whose shape it has, and lets that language say what it means.

The shape decides, not the API that was called: Google's server for OpenAI's API tells errors as Google does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from llm_sidecar.contract.names import API
from llm_sidecar.formats import anthropic_errors, gemini_errors, openai_errors
from llm_sidecar.formats.base import StreamError
from llm_sidecar.formats.retry_hints import Headers, RetryHeaders
from llm_sidecar.formats.told_error import ToldError, kind_of_foreign, kind_of_status, word

_GEMINI = frozenset({API.GEMINI})
_ANTHROPIC = frozenset({API.ANTHROPIC_MESSAGES})


def read_error(api: API, status: int, headers: Headers, body: bytes, *, now_seconds: float) -> ToldError:
    """What an answer with a status of 300 or more means; `now_seconds` since 1970, for dates among its hints."""
    hints = RetryHeaders(headers, now_seconds=now_seconds)
    document = _document(body)
    if document is None:
        return ToldError(status, kind_of_foreign(status), retry_after_seconds=hints.retry_after_seconds())
    return _read(api, _error_object(document), status, hints, outer=document)


def read_stream_error(api: API, error: StreamError) -> ToldError:
    """What an error within a stream means."""
    told: dict[str, Any] = {"message": error.message}
    told["status" if api in _GEMINI else "type"] = error.code
    return _read(api, told, error.status, RetryHeaders((), now_seconds=0), outer={})


def _read(
    api: API, error: Mapping[str, Any], status: int, hints: RetryHeaders, *, outer: Mapping[str, Any]
) -> ToldError:
    if 300 <= status < 400:
        return ToldError(status, kind_of_status(status))
    # OpenAI's errors have a `code` where Anthropic's have none, also where both are wrapped alike (events of streams).
    is_anthropic = outer.get("type") == "error" and outer.get("error") is error and "code" not in error
    if word(error.get("status")) in gemini_errors.CANONICAL or (api in _GEMINI and not is_anthropic):
        return gemini_errors.read_error(error, status, hints)
    if is_anthropic or api in _ANTHROPIC:
        return anthropic_errors.read_error(error, status, hints)
    return openai_errors.read_error(error, status, hints)


def _document(body: bytes) -> dict[str, Any] | None:
    """The answer's JSON object; Google wraps it in an array of one where an array was asked for."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    if isinstance(document, list):
        document = document[0] if document else {}
    return document if isinstance(document, dict) else None


def _error_object(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """The inner object. Small servers send a bare string, or the fields without anything around them."""
    error = document.get("error")
    if isinstance(error, dict):
        return error
    return {"message": error} if isinstance(error, str) else document
