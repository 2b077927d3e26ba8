"""Google's Gemini API: generation, token counts and embeddings; streams as events or as one JSON array."""

# ruff: noqa: ARG002 - an implementation keeps the signature of its protocol

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final
from urllib.parse import quote

import orjson

from llm_sidecar.contract.names import API, API_GROUP, RequestType
from llm_sidecar.formats.base import Call, MalformedRequest, ParsedRequest, Splice, StreamError, StreamObserver, Usage
from llm_sidecar.formats.estimate import input_tokens
from llm_sidecar.formats.fields import count, is_zero, load_mapping, mapping, mappings, nested_mappings, text
from llm_sidecar.formats.json_array import ArrayPosition, JsonArrayObserver
from llm_sidecar.formats.json_body import Member, elements, members, parse_object
from llm_sidecar.formats.sse import EventStreamObserver

_MODEL_IN_PATH: Final = re.compile(r"/models/[^/:]+")
_MODELS_PREFIX: Final = "models/"
_NESTED_REQUESTS: Final = ("generateContentRequest", "generate_content_request")
_CLIENT_TOOLS: Final = frozenset({"functionDeclarations", "function_declarations"})
_CONTENT: Final = re.compile(rb'"text"\s*+:\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)

_NO_ANSWER: Final = frozenset({"thought", "thoughtSignature"})

_STATUS_NAMES: Final[Mapping[int, str]] = {
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ABORTED",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    501: "UNIMPLEMENTED",
    504: "DEADLINE_EXCEEDED",
}
_STATUSES: Final[Mapping[str, int]] = {
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "UNAVAILABLE": 503,
    **{name: status for status, name in _STATUS_NAMES.items()},
}


class Gemini:
    """`POST /v1[beta]/models/M:VERB`. Names of fields come in camelCase or, as protobuf allows, in snake_case."""

    api: API = API.GEMINI

    def parse_request(self, call: Call, body: bytes) -> ParsedRequest:
        """Read a request; see `Format`. The path names the model, and a body that names another is refused."""
        document = parse_object(body)
        model = call.model or ""
        for named in _named_models(document):
            if named.removeprefix(_MODELS_PREFIX) != model:
                # Which of the two a provider obeys is not ours to guess: limits were checked for the path's one.
                raise MalformedRequest("The request's path and its body name different models. Name the same one.")
        generates = call.type is RequestType.GENERATION
        config = mapping(document, "generationConfig", "generation_config")
        repeatable = not generates or _is_repeatable(document, config)
        return ParsedRequest(
            call=call,
            body=body,
            document=document,
            model=model,
            stream=call.stream is True,
            max_output_tokens=_max_output_tokens(document) if generates else 0,
            input_tokens_estimate=0 if call.type is RequestType.TOKEN_COUNT else input_tokens(body),
            stateful=_is_stateful(document, body),
            deterministic=not generates or (repeatable and is_zero(config.get("temperature"))),
            repeatable=repeatable,
        )

    def splices(self, request: ParsedRequest, *, model: str | None, ask_for_usage: bool) -> list[Splice]:
        """The model's name where the body repeats it; streams of this API always tell their usage."""
        if model is None or model == request.model or not any(_named_models(request.document)):
            return []
        return sorted(_replace_models(request.body, model), key=lambda splice: splice.start)

    def upstream_path(self, call: Call, model: str | None) -> str:
        """The path, with the model in it replaced."""
        if model is None or model == call.model:
            return call.path
        return _MODEL_IN_PATH.sub(lambda _: f"/models/{quote(model, safe='')}", call.path, count=1)

    def usage(self, call: Call, answer: bytes) -> Usage | None:
        """From the answer's `usageMetadata`; a count spends nothing, an embedding has no output."""
        document = load_mapping(answer) or {}
        if call.type is RequestType.TOKEN_COUNT:
            return Usage(input_tokens=0, output_tokens=0) if count(document, "totalTokens") is not None else None
        usage = document.get("usageMetadata")
        if not isinstance(usage, dict):
            return None
        if call.type is RequestType.EMBEDDINGS:
            return Usage(input_tokens=count(usage, "promptTokenCount"), output_tokens=0)
        return read_usage(usage)

    def is_complete(self, call: Call, answer: bytes) -> bool:
        """True if every candidate stopped by itself and says something; no error, no blocked prompt."""
        document = load_mapping(answer) or {}
        if document.get("error") is not None:
            return False
        if call.type is RequestType.TOKEN_COUNT:
            return count(document, "totalTokens") is not None
        if call.type is RequestType.EMBEDDINGS:
            vectors = document.get("embeddings") or [document.get("embedding")]
            return isinstance(vectors, list) and all(isinstance(one, dict) and one.get("values") for one in vectors)
        candidates = mappings(document, "candidates")
        blocked = mapping(document, "promptFeedback").get("blockReason")
        return not blocked and bool(candidates) and all(map(_is_whole, candidates))

    def observe_stream(self, request: ParsedRequest, *, hide_usage: bool, max_frame_bytes: int) -> StreamObserver:
        """Follow a stream of either kind; usage is a part of its frames and never hidden."""
        if request.call.stream_is_json_array:
            return _GeminiArrayObserver(max_frame_bytes=max_frame_bytes)
        return _GeminiEventObserver(max_frame_bytes=max_frame_bytes)

    def error_body(self, status: int, code: str, message: str, details: Mapping[str, Any]) -> bytes:
        """`{"error": {code, message, status, details}}`, our code as the `reason` of an `ErrorInfo`.

        A `retry_after_seconds` among the details becomes a `RetryInfo`: Google's clients look there, not at headers.
        """
        return orjson.dumps(error_document(status, code, message, details))

    def stream_error(self, request: ParsedRequest, status: int, code: str, message: str) -> bytes:
        """An error as the next frame, or as the last element of an array in which elements were relayed before."""
        if request.call.stream_is_json_array:
            return last_element(status, code, message)
        return error_frame(status, code, message)


class _Chunks:
    """What one `GenerateContentResponse` of a stream means, however it was framed.

    The end is the finish reason of every candidate seen (or a blocked prompt): this API has no other marker.
    """

    committed: bool
    ended: bool
    error: StreamError | None
    usage: Usage | None
    _unfinished: dict[int, bool]

    def _read(self, event: bytes, document: dict[str, Any]) -> bool:
        if document.get("error"):
            self.error = read_error(document["error"])
            return True
        usage = document.get("usageMetadata")
        if isinstance(usage, dict):
            self.usage = read_usage(usage)
        if mapping(document, "promptFeedback").get("blockReason"):
            self.committed = self.ended = True
        for candidate in mappings(document, "candidates"):
            finished = bool(candidate.get("finishReason"))
            self._unfinished[count(candidate, "index") or 0] = not finished
            self.committed = self.committed or finished or _has_content(candidate)
        if self._unfinished:
            self.ended = not any(self._unfinished.values())
        return True


class _GeminiEventObserver(_Chunks, EventStreamObserver):
    """Frames with `data:` alone. Neither a comment nor an `event:` line may reach Google's SDK: it breaks."""

    __slots__ = ("_unfinished",)

    # `index`: a further candidate has begun, and must finish too.
    _words: ClassVar = (b'"usageMetadata"', b'"finishReason"', b'"index"', b'"error"', b'"promptFeedback"')
    _content: ClassVar = _CONTENT

    def __init__(self, *, max_frame_bytes: int) -> None:
        super().__init__(max_frame_bytes=max_frame_bytes)
        self._unfinished = {}

    def _error_event(self, status: int, code: str, message: str) -> bytes:
        return error_frame(status, code, message)


class _GeminiArrayObserver(_Chunks, JsonArrayObserver):
    """Elements of one array, which must also be closed before the stream is complete."""

    __slots__ = ("_unfinished",)

    _content: ClassVar = _CONTENT

    def __init__(self, *, max_frame_bytes: int) -> None:
        super().__init__(max_frame_bytes=max_frame_bytes)
        self._unfinished = {}

    def _read(self, event: bytes, document: dict[str, Any]) -> bool:
        super()._read(event, document)
        self.ended = False
        return True

    def _on_close(self) -> None:
        self.ended = self.committed and not any(self._unfinished.values())

    def error_tail(self, status: int, code: str, message: str) -> bytes:
        """An error as the array's last element; nothing once the array is closed."""
        match self.position:
            case ArrayPosition.CLOSED:
                return b""
            case ArrayPosition.INSIDE:
                return last_element(status, code, message)
            case ArrayPosition.BEFORE_FIRST:
                return b"[%b]" % orjson.dumps(error_document(status, code, message, {}))


def _is_whole(candidate: Mapping[str, Any]) -> bool:
    """An empty answer with `STOP` is a known fault of this API; thoughts are no answer."""
    parts = mappings(mapping(candidate, "content"), "parts")
    return candidate.get("finishReason") == "STOP" and any(
        value and name not in _NO_ANSWER for part in parts if not part.get("thought") for name, value in part.items()
    )


def _has_content(candidate: Mapping[str, Any]) -> bool:
    parts = mappings(mapping(candidate, "content"), "parts")
    return any(value for part in parts for name, value in part.items() if name != "thought")


def read_usage(told: Mapping[str, Any]) -> Usage:
    """Prompt includes the cached tokens; candidates exclude the thoughts; what tools read is input as well."""
    prompt = count(told, "promptTokenCount")
    cached = count(told, "cachedContentTokenCount")
    tool_use = count(told, "toolUsePromptTokenCount")
    candidates = count(told, "candidatesTokenCount")
    thoughts = count(told, "thoughtsTokenCount")
    total = count(told, "totalTokenCount")
    output: int | None
    if candidates is None and thoughts is None:
        # Protobuf leaves zeros out of JSON: with a total told, "no output" is known, not unknown.
        output = None if total is None else max(0, total - (prompt or 0) - (tool_use or 0))
    else:
        output = (candidates or 0) + (thoughts or 0)
    return Usage(
        input_tokens=None if prompt is None else max(0, prompt - (cached or 0)) + (tool_use or 0),
        cache_read_tokens=cached,
        output_tokens=output,
        reasoning_tokens=thoughts,
    )


def read_error(error: object) -> StreamError:
    """What `error` says, whatever it is."""
    if not isinstance(error, dict):
        return StreamError(500, "INTERNAL", error if isinstance(error, str) else "")
    name = text(error, "status") or "INTERNAL"
    code = count(error, "code")
    status = code if code is not None and 400 <= code <= 599 else _STATUSES.get(name, 500)
    return StreamError(status, name, text(error, "message") or "")


def error_document(status: int, code: str, message: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """See `Gemini.error_body`."""
    name = _STATUS_NAMES.get(status) or ("INVALID_ARGUMENT" if status < 500 else "UNAVAILABLE")
    reason = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": code,
        "domain": API_GROUP,
        "metadata": {
            key: value if isinstance(value, str) else orjson.dumps(value).decode() for key, value in details.items()
        },
    }
    all_details: list[dict[str, Any]] = [reason]
    if "retry_after_seconds" in details:
        delay = f"{details['retry_after_seconds']}s"
        all_details.append({"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay})
    return {"error": {"code": status, "message": message, "status": name, "details": all_details}}


def error_frame(status: int, code: str, message: str) -> bytes:
    """An error as the next event of a stream."""
    return b"data: %b\r\n\r\n" % orjson.dumps(error_document(status, code, message, {}))


def last_element(status: int, code: str, message: str) -> bytes:
    """An error as a further element of an array, and the array's end."""
    return b",\r\n%b]" % orjson.dumps(error_document(status, code, message, {}))


def _named_models(document: Mapping[str, Any]) -> Iterator[str]:
    """Every place in a body that repeats the model of the path."""
    holders: list[Mapping[str, Any]] = [document, *mappings(document, "requests")]
    holders += [mapping(document, name) for name in _NESTED_REQUESTS]
    for holder in holders:
        model = text(holder, "model")
        if model is not None:
            yield model


def _replace_models(body: bytes, model: str) -> Iterator[Splice]:
    top_level = members(body)
    yield from _replace_model(body, top_level, model)
    for member in top_level:
        if member.key in _NESTED_REQUESTS and body.startswith(b"{", member.start):
            yield from _replace_model(body, members(body, member.start), model)
        elif member.key == "requests" and body.startswith(b"[", member.start):
            for start, _ in elements(body, member.start):
                if body.startswith(b"{", start):
                    yield from _replace_model(body, members(body, start), model)


def _replace_model(body: bytes, holder: list[Member], model: str) -> Iterator[Splice]:
    for member in holder:
        if member.key == "model" and body.startswith(b'"', member.start):
            prefix = _MODELS_PREFIX if body.startswith(b'"models/', member.start) else ""
            yield Splice(member.start, member.end, orjson.dumps(prefix + model))


def _max_output_tokens(document: Mapping[str, Any]) -> int | None:
    config = mapping(document, "generationConfig", "generation_config")
    limit = count(config, "maxOutputTokens", "max_output_tokens")
    return None if limit is None else limit * max(1, count(config, "candidateCount", "candidate_count") or 1)


def _is_stateful(document: Mapping[str, Any], body: bytes) -> bool:
    if document.get("cachedContent") or document.get("cached_content"):
        return True
    if any("fileSearch" in tool or "file_search" in tool for tool in mappings(document, "tools")):
        return True
    # An uploaded file belongs to the key that uploaded it; a public address (a video's, say) does not.
    return (b'"fileData"' in body or b'"file_data"' in body) and any(
        "/files/" in (text(data, "fileUri") or text(data, "file_uri") or "")
        for item in nested_mappings(document.get("contents"))
        for data in (mapping(item, "fileData", "file_data"),)
    )


def _is_repeatable(document: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    choices = config.get("candidateCount", config.get("candidate_count"))
    return choices in (None, 1) and all(name in _CLIENT_TOOLS for tool in mappings(document, "tools") for name in tool)
