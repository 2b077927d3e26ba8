"""OpenAI chat completions: the wire language that most other servers speak as well."""

# ruff: noqa: ARG002 - an implementation keeps the signature of its protocol

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from llm_sidecar.contract.names import API
from llm_sidecar.formats import openai_errors
from llm_sidecar.formats.base import Call, ParsedRequest, Splice, StreamObserver, Usage
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
from llm_sidecar.formats.json_body import insert_member, member, members, parse_object, replace_model
from llm_sidecar.formats.openai_usage import chat_usage
from llm_sidecar.formats.sse import EventStreamObserver

_ASK_FOR_USAGE: Final = b'{"include_usage":true}'
# No sets: what is looked for in them is anybody's JSON, and an object has no hash.
_NORMAL_ENDS: Final = ("stop", "tool_calls", "function_call")
_CLIENT_TOOLS: Final = ("function", "custom")
_ANSWERS: Final = ("content", "tool_calls", "function_call", "audio")


class OpenAIChat:
    """`POST /v1/chat/completions`."""

    api: API = API.OPENAI_CHAT

    def parse_request(self, call: Call, body: bytes) -> ParsedRequest:
        """Read a request; see `Format`."""
        document = parse_object(body)
        repeatable = _is_repeatable(document)
        return ParsedRequest(
            call=call,
            body=body,
            document=document,
            model=required_model(document),
            stream=document.get("stream") is True,
            max_output_tokens=_max_output_tokens(document),
            input_tokens_estimate=input_tokens(body),
            stateful=_is_stateful(document, body),
            deterministic=repeatable and is_zero(document.get("temperature")),
            repeatable=repeatable,
        )

    def splices(self, request: ParsedRequest, *, model: str | None, ask_for_usage: bool) -> list[Splice]:
        """The model's name, and `stream_options.include_usage` for a stream that does not ask for it."""
        changes = replace_model(request, model)
        if ask_for_usage and request.stream and not _asks_for_usage(request.document):
            changes += _ask_for_usage(request)
        return sorted(changes, key=lambda splice: splice.start)

    def upstream_path(self, call: Call, model: str | None) -> str:
        """The path as it is: the model stands in the body."""
        return call.path

    def usage(self, call: Call, answer: bytes) -> Usage | None:
        """From the answer's `usage`."""
        document = load_mapping(answer) or {}
        return chat_usage(document["usage"]) if isinstance(document.get("usage"), dict) else None

    def is_complete(self, call: Call, answer: bytes) -> bool:
        """True if every choice ended by itself and says something, without an error or a refusal."""
        document = load_mapping(answer) or {}
        choices = mappings(document, "choices")
        return document.get("error") is None and bool(choices) and all(map(_is_whole, choices))

    def observe_stream(self, request: ParsedRequest, *, hide_usage: bool, max_frame_bytes: int) -> StreamObserver:
        """Follow a stream. Usage that the application asked for itself is never hidden."""
        hide = hide_usage and not _asks_for_usage(request.document)
        return _ChatObserver(hide_usage=hide, max_frame_bytes=max_frame_bytes)

    def error_body(self, status: int, code: str, message: str, details: Mapping[str, Any]) -> bytes:
        """`{"error": {message, type, param, code}}`."""
        return openai_errors.error_body(status, code, message, details)

    def stream_error(self, request: ParsedRequest, status: int, code: str, message: str) -> bytes:
        """A data frame with a top-level `error`, at which the SDK raises."""
        return _error_frame(status, code, message)


class _ChatObserver(EventStreamObserver):
    """Ends with `[DONE]`: a `finish_reason` alone is not the end, more choices or the usage may follow."""

    __slots__ = ("_hide_usage",)

    # Of all chunks only those that tell usage name tokens; the others say `"usage": null`.
    _words: ClassVar = (b'_tokens"', b"[DONE]", b'"error"')
    _content: ClassVar = re.compile(
        rb'"(?:content|arguments|refusal|reasoning_content|reasoning)"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL
    )

    def __init__(self, *, hide_usage: bool, max_frame_bytes: int) -> None:
        super().__init__(max_frame_bytes=max_frame_bytes)
        self._hide_usage = hide_usage

    def _on_done(self) -> None:
        # After an error `[DONE]` only says that nothing more will come.
        if self.error is None:
            self.committed = self.ended = True

    def _read(self, event: bytes, document: dict[str, Any]) -> bool:
        if document.get("error"):
            self.error = openai_errors.read_stream_error(document["error"])
            return True
        usage = document.get("usage")
        if isinstance(usage, dict):
            self.usage = chat_usage(usage)
        if not self.committed:
            self.committed = any(_has_content(choice) for choice in mappings(document, "choices"))
        return not (self._hide_usage and isinstance(usage, dict) and document.get("choices") == [])

    def _error_event(self, status: int, code: str, message: str) -> bytes:
        return _error_frame(status, code, message)


def _error_frame(status: int, code: str, message: str) -> bytes:
    return b"data: %b\n\n" % openai_errors.error_body(status, code, message, {})


def _is_whole(choice: Mapping[str, Any]) -> bool:
    """Servers that pass others' answers on put an error into a choice, and some say nothing at all, and `stop`."""
    message = mapping(choice, "message")
    return (
        choice.get("finish_reason") in _NORMAL_ENDS
        and choice.get("error") is None
        and not message.get("refusal")
        and any(_says_something(message.get(name)) for name in _ANSWERS)
    )


def _says_something(told: object) -> bool:
    """Some servers write the content as parts."""
    if isinstance(told, list):
        return any(part.get("type") != "text" or part.get("text") for part in told if isinstance(part, dict))
    return bool(told)


def _has_content(choice: Mapping[str, Any]) -> bool:
    """True for any delta but the opening one, which tells the role and empty fields."""
    if choice.get("finish_reason") is not None:
        return True
    # Whatever the field is called: servers add their own, like `reasoning_content`.
    return any(value for name, value in mapping(choice, "delta").items() if name != "role")


def _max_output_tokens(document: Mapping[str, Any]) -> int | None:
    limit = count(document, "max_completion_tokens", "max_tokens")
    return None if limit is None else limit * max(1, count(document, "n") or 1)


def _is_stateful(document: Mapping[str, Any], body: bytes) -> bool:
    if document.get("store") is True:
        return True
    if b'"file_id"' not in body and b'"audio"' not in body:
        return False
    # Only among the messages: a tool may well have a parameter called `file_id`. Earlier sound is referred to by id.
    return any(
        item.get("file_id") or text(mapping(item, "audio"), "id") for item in nested_mappings(document.get("messages"))
    )


def _is_repeatable(document: Mapping[str, Any]) -> bool:
    return (
        document.get("n") in (None, 1)
        and "web_search_options" not in document
        and "plugins" not in document
        and ("tools" not in document or all(tool.get("type") in _CLIENT_TOOLS for tool in mappings(document, "tools")))
    )


def _asks_for_usage(document: Mapping[str, Any]) -> bool:
    return mapping(document, "stream_options").get("include_usage") is True


def _ask_for_usage(request: ParsedRequest) -> list[Splice]:
    body = request.body
    options = member(body, request.document, "stream_options")
    if options is None:
        return [insert_member(body, 0, "stream_options", _ASK_FOR_USAGE)]
    value = request.document["stream_options"]
    if value is None:
        return [Splice(options.start, options.end, _ASK_FOR_USAGE)]
    if not isinstance(value, dict):
        return []  # The provider will refuse it, in better words than ours.
    told = [found for found in members(body, options.start) if found.key == "include_usage"]
    if not told:
        return [insert_member(body, options.start, "include_usage", b"true")]
    return [Splice(found.start, found.end, b"true") for found in told]
