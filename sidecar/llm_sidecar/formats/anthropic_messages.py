"""Anthropic messages, and the token count of the same request."""

# ruff: noqa: ARG002 - an implementation keeps the signature of its protocol

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import orjson

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats.base import Call, ParsedRequest, Splice, StreamError, StreamObserver, Usage
from llm_sidecar.formats.estimate import input_tokens
from llm_sidecar.formats.fields import (
    count,
    is_zero,
    load_mapping,
    mapping,
    mappings,
    nested_mappings,
    required_model,
    text,
)
from llm_sidecar.formats.json_body import parse_object, replace_model
from llm_sidecar.formats.sse import EventStreamObserver

# No sets: what is looked for in them is anybody's JSON, and an object has no hash.
_NORMAL_ENDS: Final = ("end_turn", "stop_sequence", "tool_use")
_THOUGHTS: Final = ("thinking", "redacted_thinking")
_CLIENT_TOOLS: Final = (None, "custom")
_PREDEFINED_CLIENT_TOOL: Final = re.compile(r"(?:bash|text_editor|computer|memory)_[0-9]{8}")
"""The provider knows how they are used; the application carries them out."""

_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_STATUSES: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}


class AnthropicMessages:
    """`POST /v1/messages` and `/v1/messages/count_tokens`."""

    api: API = API.ANTHROPIC_MESSAGES

    def parse_request(self, call: Call, body: bytes) -> ParsedRequest:
        """Read a request; see `Format`."""
        document = parse_object(body)
        counts_only = call.type is RequestType.TOKEN_COUNT
        repeatable = counts_only or _is_repeatable(document)
        return ParsedRequest(
            call=call,
            body=body,
            document=document,
            model=required_model(document),
            stream=not counts_only and document.get("stream") is True,
            max_output_tokens=0 if counts_only else count(document, "max_tokens"),
            input_tokens_estimate=0 if counts_only else input_tokens(body),
            stateful=_is_stateful(document, body),
            deterministic=counts_only or (repeatable and is_zero(document.get("temperature"))),
            repeatable=repeatable,
        )

    def splices(self, request: ParsedRequest, *, model: str | None, ask_for_usage: bool) -> list[Splice]:
        """The model's name only: streams of this API always tell their usage."""
        return replace_model(request, model)

    def upstream_path(self, call: Call, model: str | None) -> str:
        """The path as it is: the model stands in the body."""
        return call.path

    def usage(self, call: Call, answer: bytes) -> Usage | None:
        """From the answer's `usage`; a count spends nothing."""
        document = load_mapping(answer) or {}
        if call.type is RequestType.TOKEN_COUNT:
            return Usage(input_tokens=0, output_tokens=0) if count(document, "input_tokens") is not None else None
        usage = document.get("usage")
        return merged_usage(Usage(), usage) if isinstance(usage, dict) else None

    def is_complete(self, call: Call, answer: bytes) -> bool:
        """True if the turn ended by itself and says something; a refusal or a pause is no answer to keep."""
        document = load_mapping(answer) or {}
        if document.get("error") is not None:
            return False
        if call.type is RequestType.TOKEN_COUNT:
            return count(document, "input_tokens") is not None
        return (
            document.get("type") == "message"
            and document.get("stop_reason") in _NORMAL_ENDS
            and any(map(_says_something, mappings(document, "content")))
        )

    def observe_stream(self, request: ParsedRequest, *, hide_usage: bool, max_frame_bytes: int) -> StreamObserver:
        """Follow a stream; usage is a part of its frames and never hidden."""
        return _MessagesObserver(max_frame_bytes=max_frame_bytes)

    def error_body(self, status: int, code: str, message: str, details: Mapping[str, Any]) -> bytes:
        """`{"type": "error", "error": {type, message, details}, "request_id"}`.

        The code stands in `error.details.error_code`, where the SDK looks for one (`APIStatusError.error_code`).
        """
        return orjson.dumps(_error(status, code, message, details))

    def stream_error(self, request: ParsedRequest, status: int, code: str, message: str) -> bytes:
        """An `error` event, at which the SDK raises."""
        return error_event(status, code, message)


class _MessagesObserver(EventStreamObserver):
    """Ends with `message_stop`. Usage begins in `message_start` and grows: an explicit later value wins."""

    __slots__ = ()

    _words: ClassVar = (b'"usage"', b"message_stop", b'"error"')
    _content: ClassVar = re.compile(
        rb'"(?:text|partial_json|thinking)"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL
    )

    def _read(self, event: bytes, document: dict[str, Any]) -> bool:
        kind = text(document, "type") or event.decode("ascii", "replace")
        if kind == "message_start":
            self._take_usage(mapping(document, "message"))
        elif kind == "content_block_start":
            self.committed = self.committed or _begins_with_content(mapping(document, "content_block"))
        elif kind == "content_block_delta":
            self.committed = True
        elif kind == "message_delta":
            self._take_usage(document)
            self.committed = True
        elif kind == "message_stop":
            self.committed = self.ended = True
        elif kind == "error":
            self.error = read_error(mapping(document, "error"))
        return True

    def _take_usage(self, holder: Mapping[str, Any]) -> None:
        usage = holder.get("usage")
        if isinstance(usage, dict):
            self.usage = merged_usage(self.usage or Usage(), usage)

    def _error_event(self, status: int, code: str, message: str) -> bytes:
        return error_event(status, code, message)


def _begins_with_content(block: Mapping[str, Any]) -> bool:
    """Text and thinking begin empty; a tool call has its name, a server's tool result its all, in the first event."""
    if block.get("type") in ("text", "thinking"):
        return bool(block.get("text") or block.get("thinking"))
    return bool(block)


def _says_something(block: Mapping[str, Any]) -> bool:
    """Beside what was thought. This API answers with no block at all where it takes the turn for over."""
    kind = block.get("type")
    return bool(block.get("text")) if kind == "text" else kind not in _THOUGHTS


def merged_usage(before: Usage, told: Mapping[str, Any]) -> Usage:
    """Usage of this API is additive: its input does not include the cached tokens."""

    def later(value: int | None, earlier: int | None) -> int | None:
        return earlier if value is None else value

    return Usage(
        input_tokens=later(count(told, "input_tokens"), before.input_tokens),
        cache_read_tokens=later(count(told, "cache_read_input_tokens"), before.cache_read_tokens),
        cache_write_tokens=later(count(told, "cache_creation_input_tokens"), before.cache_write_tokens),
        output_tokens=later(count(told, "output_tokens"), before.output_tokens),
        reasoning_tokens=later(
            count(mapping(told, "output_tokens_details"), "thinking_tokens"), before.reasoning_tokens
        ),
    )


def read_error(error: Mapping[str, Any]) -> StreamError:
    """The `error` of an error event."""
    kind = text(error, "type") or "api_error"
    return StreamError(_STATUSES.get(kind, 500), kind, text(error, "message") or "")


def _error(status: int, code: str, message: str, details: Mapping[str, Any]) -> dict[str, Any]:
    kind = _TYPES.get(status) or ("invalid_request_error" if status < 500 else "api_error")
    rest = {name: value for name, value in details.items() if name != "request_id"}
    error = {"type": kind, "message": message, "details": {"error_code": code, **rest}}
    request_id = {"request_id": details["request_id"]} if "request_id" in details else {}
    return {"type": "error", "error": error, **request_id}


def error_event(status: int, code: str, message: str) -> bytes:
    """The event at which the SDK raises."""
    return b"event: error\ndata: %b\n\n" % orjson.dumps(_error(status, code, message, {}))


def _is_stateful(document: Mapping[str, Any], body: bytes) -> bool:
    if document.get("container"):
        return True
    # Only where a file is meant: the input of a tool call may well have a member called `file_id`.
    return b'"file_id"' in body and any(
        item.get("type") in ("file", "container_upload") and item.get("file_id")
        for item in nested_mappings([document.get("messages"), document.get("system")])
    )


def _is_repeatable(document: Mapping[str, Any]) -> bool:
    return not document.get("mcp_servers") and all(
        (kind := tool.get("type")) in _CLIENT_TOOLS
        or (isinstance(kind, str) and _PREDEFINED_CLIENT_TOOL.fullmatch(kind) is not None)
        for tool in mappings(document, "tools")
    )
