"""Streams of the three APIs, frame by frame."""

from __future__ import annotations

from typing import Any, Final

import orjson


def sse(data: dict[str, Any] | bytes, event: str = "") -> bytes:
    """One event."""
    named = f"event: {event}\n".encode() if event else b""
    return named + b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


def _chat(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return sse({"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]})


OPENING: Final = _chat({"role": "assistant", "content": ""})
CHAT_CONTENT: Final = (OPENING, _chat({"content": "po"}), _chat({"content": "ng"}))
CHAT_USAGE: Final = sse(
    {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
    }
)
CHAT_STREAM: Final = (*CHAT_CONTENT, _chat({}, "stop"), CHAT_USAGE, sse(b"[DONE]"))

RESPONSES_CONTENT: Final = (
    sse({"type": "response.created", "sequence_number": 0, "response": {"id": "r"}}, "response.created"),
    sse(
        {
            "type": "response.output_text.delta",
            "sequence_number": 1,
            "delta": "pong",
            "item_id": "i",
            "output_index": 0,
            "content_index": 0,
        },
        "response.output_text.delta",
    ),
)

MESSAGES_CONTENT: Final = (
    sse(
        {
            "type": "message_start",
            "message": {
                "id": "m",
                "type": "message",
                "role": "assistant",
                "content": [],
                "model": "m",
                "usage": {"input_tokens": 7, "output_tokens": 1},
            },
        },
        "message_start",
    ),
    sse(
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        "content_block_start",
    ),
    sse(
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "pong"}},
        "content_block_delta",
    ),
)

GEMINI_CONTENT: Final = (
    sse({"candidates": [{"content": {"role": "model", "parts": [{"text": "pong"}]}, "index": 0}]}),
)
