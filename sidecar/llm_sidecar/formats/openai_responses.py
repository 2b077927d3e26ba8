"""OpenAI Responses, and the token count of the same request."""

# ruff: noqa: ARG002 - an implementation keeps the signature of its protocol

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import orjson

from llm_sidecar.contract.names import API, RequestType
from llm_sidecar.formats import openai_errors
from llm_sidecar.formats.base import Call, MalformedRequest, ParsedRequest, Splice, StreamObserver, Usage
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
from llm_sidecar.formats.openai_usage import responses_usage
from llm_sidecar.formats.sse import EventStreamObserver

FOREIGN_ANSWER: Final = "resp_llmsidecar_"
"""Begins the ids of answers that were translated into this language."""
# No sets: what is looked for in them is anybody's JSON, and an object has no hash.
_CLIENT_TOOLS: Final = ("function", "custom")
_TERMINAL: Final = frozenset({"response.completed", "response.incomplete"})
# A `.done` counts too: some items (encrypted reasoning, a tool's list) come whole, without a delta before.
_CONTENT_SUFFIXES: Final = (".delta", ".done", ".partial_image")
_SEQUENCE_NUMBER: Final = re.compile(rb'"sequence_number"\s*+:\s*+([0-9]{1,15})')
# Members of an input item, or of a tool, that name a thing which lives in one provider's account.
_REFERENCES: Final = (b'"file_id"', b'"file_ids"', b'"item_reference"', b'"vector_store_ids"')


class OpenAIResponses:
    """`POST /v1/responses` and `/v1/responses/input_tokens`."""

    api: API = API.OPENAI_RESPONSES

    def parse_request(self, call: Call, body: bytes) -> ParsedRequest:
        """Read a request; see `Format`."""
        document = parse_object(body)
        if str(document.get("previous_response_id", "")).startswith(FOREIGN_ANSWER):
            raise MalformedRequest(
                "`previous_response_id` names an answer that another provider gave in OpenAI's place, which nobody "
                "keeps. Send the whole conversation in `input` instead."
            )
        counts_only = call.type is RequestType.TOKEN_COUNT
        repeatable = counts_only or _is_repeatable(document)
        return ParsedRequest(
            call=call,
            body=body,
            document=document,
            model=required_model(document),
            stream=not counts_only and document.get("stream") is True,
            max_output_tokens=0 if counts_only else count(document, "max_output_tokens"),
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
        return responses_usage(document["usage"]) if isinstance(document.get("usage"), dict) else None

    def is_complete(self, call: Call, answer: bytes) -> bool:
        """True for `status: completed` if so is all of its output, which says something; no error, no refusal."""
        document = load_mapping(answer) or {}
        if document.get("error") is not None:
            return False
        if call.type is RequestType.TOKEN_COUNT:
            return count(document, "input_tokens") is not None
        output = mappings(document, "output")
        return (
            document.get("status") == "completed"
            and document.get("incomplete_details") is None
            and all(map(_is_whole, output))
            and any(item.get("type") != "reasoning" for item in output)
        )

    def observe_stream(self, request: ParsedRequest, *, hide_usage: bool, max_frame_bytes: int) -> StreamObserver:
        """Follow a stream; there is no usage frame that could be hidden."""
        return _ResponsesObserver(max_frame_bytes=max_frame_bytes)

    def error_body(self, status: int, code: str, message: str, details: Mapping[str, Any]) -> bytes:
        """`{"error": {message, type, param, code}}`."""
        return openai_errors.error_body(status, code, message, details)

    def stream_error(self, request: ParsedRequest, status: int, code: str, message: str) -> bytes:
        """An `error` event at which the SDK raises; see `error_tail` for its sequence number."""
        return error_event(status, code, message, sequence_number=0)


class _ResponsesObserver(EventStreamObserver):
    """Ends with `response.completed`, `.incomplete` or `.failed`, each of which carries the whole response."""

    __slots__ = ()

    _words: ClassVar = (b'"response.completed"', b'"response.incomplete"', b'"response.failed"', b'"error"')
    _content: ClassVar = re.compile(rb'"delta"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)

    def _read(self, event: bytes, document: dict[str, Any]) -> bool:
        kind = text(document, "type") or event.decode("ascii", "replace")
        if kind == "error":
            # Flat in OpenAI's own streams, nested in those of servers that want the SDK to raise.
            self.error = openai_errors.read_stream_error(mapping(document, "error") or document)
        elif kind == "response.failed":
            self._take_usage(document)
            self.error = openai_errors.read_stream_error(mapping(mapping(document, "response"), "error"))
            self.ended = True
        elif kind in _TERMINAL:
            self._take_usage(document)
            self.committed = self.ended = True
        elif kind.endswith(_CONTENT_SUFFIXES):
            self.committed = True
        elif not kind and document.get("error"):
            self.error = openai_errors.read_stream_error(document["error"])
        return True

    def _take_usage(self, document: Mapping[str, Any]) -> None:
        usage = mapping(document, "response").get("usage")
        if isinstance(usage, dict):
            self.usage = responses_usage(usage)

    def _error_event(self, status: int, code: str, message: str) -> bytes:
        numbers = _SEQUENCE_NUMBER.findall(self._last_block)
        return error_event(status, code, message, sequence_number=int(numbers[-1]) + 1 if numbers else 0)


def _is_whole(item: Mapping[str, Any]) -> bool:
    """One item of the output. Some kinds have no status."""
    if item.get("status") not in (None, "completed"):
        return False
    if item.get("type") != "message":
        return True
    parts = mappings(item, "content")
    return any(part.get("text") for part in parts) and all(part.get("type") != "refusal" for part in parts)


def error_event(status: int, code: str, message: str, *, sequence_number: int) -> bytes:
    """The event at which the SDK raises."""
    # OpenAI's own error event is flat, and the SDK yields that one instead of raising. With a nested `error` it raises;
    # the flat fields beside it serve those who read events by hand.
    document = {
        "type": "error",
        "code": code,
        "message": message,
        "param": None,
        "sequence_number": sequence_number,
        "error": openai_errors.error_object(status, code, message, {}),
    }
    return b"event: error\ndata: %b\n\n" % orjson.dumps(document)


def _is_stateful(document: Mapping[str, Any], body: bytes) -> bool:
    if any(document.get(name) for name in ("previous_response_id", "conversation", "prompt")):
        return True
    if document.get("background") is True or document.get("store") is True:
        return True
    if not any(reference in body for reference in _REFERENCES):
        return False
    # A function's schema may well have a parameter called `file_id`: look at the input and at hosted tools alone.
    hosted_tools = [tool for tool in mappings(document, "tools") if tool.get("type") not in _CLIENT_TOOLS]
    return any(
        item.get("type") == "item_reference"
        or item.get("file_id")
        or item.get("file_ids")
        or item.get("vector_store_ids")
        for item in nested_mappings([document.get("input"), hosted_tools])
    )


def _is_repeatable(document: Mapping[str, Any]) -> bool:
    return all(tool.get("type") in _CLIENT_TOOLS for tool in mappings(document, "tools"))
