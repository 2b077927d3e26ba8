"""The one request, answer and stream of the benchmark, shared by both ends so that each answer can be checked whole."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Final

MODEL: Final = "bench-model"
DELAYED_MODEL: Final = "bench-model-delayed"
"""The upstream holds the first event back when asked for this one. The model is what every proxy passes on as it is."""

FIRST_EVENT_DELAY_SECONDS: Final = 0.05
ANSWER_SIZE: Final = 834
STREAM_EVENTS: Final = 52
UNIQUE_SIZE: Final = 16
CREATED: Final = 1_780_000_000


class Kind(StrEnum):
    """What a request asks for."""

    PLAIN = "plain"
    STREAM = "stream"
    DELAYED = "delayed"


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


USAGE: Final = {"prompt_tokens": 19, "completion_tokens": 48, "total_tokens": 67}


def _answer() -> bytes:
    def document(text: str) -> bytes:
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return _compact(
            {"id": "chatcmpl-bench", "object": "chat.completion", "created": CREATED, "model": MODEL}
            | {"choices": [choice], "usage": USAGE}
        )

    return document("a" * (ANSWER_SIZE - len(document(""))))


def _events() -> tuple[bytes, ...]:
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": CREATED, "model": MODEL}

    def event(delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return b"data: " + _compact(head | {"choices": [choice], "usage": None}) + b"\n\n"

    words = tuple(event({"content": f" word{number:02d}"}) for number in range(STREAM_EVENTS - 4))
    usage = b"data: " + _compact(head | {"choices": [], "usage": USAGE}) + b"\n\n"
    first = event({"role": "assistant", "content": ""})
    return (first, *words, event({}, "stop"), usage, b"data: [DONE]\n\n")


ANSWER: Final = _answer()
EVENTS: Final = _events()
STREAM: Final = b"".join(EVENTS)


def expected_body(kind: Kind) -> bytes:
    """The body that has to arrive, to the byte: the request asks for usage, so that no proxy has to add or strip it."""
    return ANSWER if kind is Kind.PLAIN else STREAM


def request_parts(kind: Kind, *, port: int) -> tuple[bytes, bytes]:
    """The request in two halves; between them belong `UNIQUE_SIZE` bytes that make it like no other."""
    marker = "#" * UNIQUE_SIZE
    body: dict[str, object] = {"model": DELAYED_MODEL if kind is Kind.DELAYED else MODEL}
    if kind is not Kind.PLAIN:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    content = _compact(body | {"messages": [{"role": "user", "content": f"Hello {marker}"}]})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: */*\r\n"
        f"content-type: application/json\r\nauthorization: Bearer bench\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    before, _, after = (head.encode() + content).partition(marker.encode())
    return before, after
