"""OpenAI embeddings: no stream, no output tokens, the same answer for the same input."""

# ruff: noqa: ARG002 - an implementation keeps the signature of its protocol

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from llm_sidecar.contract.names import API
from llm_sidecar.formats import openai_errors
from llm_sidecar.formats.base import Call, ParsedRequest, Splice, StreamObserver, Usage
from llm_sidecar.formats.estimate import text_tokens
from llm_sidecar.formats.fields import load_mapping, required_model
from llm_sidecar.formats.json_body import parse_object, replace_model
from llm_sidecar.formats.openai_usage import chat_usage
from llm_sidecar.formats.sse import EventStreamObserver


class OpenAIEmbeddings:
    """`POST /v1/embeddings`."""

    api: API = API.OPENAI_EMBEDDINGS

    def parse_request(self, call: Call, body: bytes) -> ParsedRequest:
        """Read a request; see `Format`."""
        document = parse_object(body)
        return ParsedRequest(
            call=call,
            body=body,
            document=document,
            model=required_model(document),
            stream=False,
            max_output_tokens=0,
            input_tokens_estimate=_input_tokens(document.get("input"), body),
            stateful=False,
            deterministic=True,
        )

    def splices(self, request: ParsedRequest, *, model: str | None, ask_for_usage: bool) -> list[Splice]:
        """The model's name only."""
        return replace_model(request, model)

    def upstream_path(self, call: Call, model: str | None) -> str:
        """The path as it is: the model stands in the body."""
        return call.path

    def usage(self, call: Call, answer: bytes) -> Usage | None:
        """From the answer's `usage`, which tells input alone: the output is none, not unknown."""
        usage = (load_mapping(answer) or {}).get("usage")
        if not isinstance(usage, dict):
            return None
        told = chat_usage(usage)
        return Usage(
            input_tokens=told.input_tokens,
            cache_read_tokens=told.cache_read_tokens,
            cache_write_tokens=told.cache_write_tokens,
            output_tokens=told.output_tokens or 0,
        )

    def is_complete(self, call: Call, answer: bytes) -> bool:
        """True if there are vectors, and nothing else in their place: some servers say null where they failed."""
        document = load_mapping(answer) or {}
        data = document.get("data")
        if document.get("error") is not None or not isinstance(data, list):
            return False
        return bool(data) and all(isinstance(one, dict) and one.get("embedding") for one in data)

    def observe_stream(self, request: ParsedRequest, *, hide_usage: bool, max_frame_bytes: int) -> StreamObserver:
        """Relay what a server streams although this API has no streams: nothing in it is known."""
        return _UnknownStreamObserver(max_frame_bytes=max_frame_bytes)

    def error_body(self, status: int, code: str, message: str, details: Mapping[str, Any]) -> bytes:
        """`{"error": {message, type, param, code}}`."""
        return openai_errors.error_body(status, code, message, details)

    def stream_error(self, request: ParsedRequest, status: int, code: str, message: str) -> bytes:
        """A data frame with a top-level `error`."""
        return b"data: %b\n\n" % openai_errors.error_body(status, code, message, {})


class _UnknownStreamObserver(EventStreamObserver):
    """Never committed, never ended: whatever came is no embedding."""

    __slots__ = ()

    _words: ClassVar = ()
    _content: ClassVar = re.compile(rb"(?!)")

    def _read(self, event: bytes, document: dict[str, Any]) -> bool:
        if document.get("error"):
            self.error = openai_errors.read_stream_error(document["error"])
        return True

    def _error_event(self, status: int, code: str, message: str) -> bytes:
        return b"data: %b\n\n" % openai_errors.error_body(status, code, message, {})


def _input_tokens(given: object, body: bytes) -> int:
    """Text by its size; where the application sent token ids itself, their number is exact."""
    if isinstance(given, list) and given:
        if all(type(item) is int for item in given):
            return len(given)
        if all(isinstance(item, list) for item in given):
            return sum(len(item) for item in given)
    return text_tokens(len(body))
