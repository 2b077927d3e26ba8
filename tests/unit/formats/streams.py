"""Plays a stream to an observer in pieces, and checks what must hold however it was split."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from llm_sidecar.formats.base import Call, ParsedRequest, StreamObserver
from llm_sidecar.formats.recognise import recognise
from llm_sidecar.formats.registry import FORMATS

MAX_FRAME_BYTES = 1 << 20

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
GEMINI_EVENTS = "/v1beta/models/m:streamGenerateContent?alt=sse"
GEMINI_ARRAY = "/v1beta/models/m:streamGenerateContent"


def call_of(target: str) -> Call:
    path, _, query = target.partition("?")
    call = recognise("POST", path, query, {})
    assert isinstance(call, Call)
    return call


def request_of(target: str, **members: Any) -> ParsedRequest:
    call = call_of(target)
    document = members if call.model else {"model": "m", "stream": True, **members}
    return FORMATS[call.api].parse_request(call, json.dumps(document).encode())


def observer_of(target: str, *, hide_usage: bool = False, max_frame_bytes: int = MAX_FRAME_BYTES) -> StreamObserver:
    request = request_of(target)
    wire_format = FORMATS[request.call.api]
    return wire_format.observe_stream(request, hide_usage=hide_usage, max_frame_bytes=max_frame_bytes)


def play(observer: StreamObserver, chunks: Sequence[bytes]) -> bytes:
    return b"".join([*(observer.feed(chunk) for chunk in chunks), observer.finish()])


def split_at(stream: bytes, cuts: Sequence[int]) -> list[bytes]:
    edges = [0, *sorted(cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


def committed_and_ended(observer: StreamObserver) -> tuple[bool, bool]:
    return observer.committed, observer.ended


def facts(observer: StreamObserver) -> tuple[object, ...]:
    return observer.committed, observer.ended, observer.error, observer.usage, observer.content_bytes


def events(*documents: object, names: bool = False, end: str = "\n\n") -> bytes:
    parts = []
    for document in documents:
        name = f"event: {document['type']}{end[: len(end) // 2]}" if names and isinstance(document, dict) else ""
        data = document if isinstance(document, str) else json.dumps(document, ensure_ascii=False)
        parts.append(f"{name}data: {data}{end}")
    return "".join(parts).encode()
