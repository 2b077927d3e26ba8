"""Calls between languages: the application asks in one, the provider answers in another.

Translated answers are not compared to the byte: they are looked through for all of the text and their API's last words.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tests.bench.payloads import ANSWER, EVENTS, STREAM_EVENTS, UNIQUE_SIZE, Kind


class Language(StrEnum):
    """An API, by its short name."""

    CHAT = "chat"
    RESPONSES = "responses"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Who asks how, and who answers how."""

    client: Language
    provider: Language

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.client} to {self.provider}"

    @property
    def model(self) -> str:
        """The one that leads to this provider."""
        return f"bench-{self.client}-{self.provider}"


TRANSLATED: Final = (
    Pair(client=Language.CHAT, provider=Language.ANTHROPIC),
    Pair(client=Language.CHAT, provider=Language.GEMINI),
    Pair(client=Language.ANTHROPIC, provider=Language.CHAT),
    Pair(client=Language.RESPONSES, provider=Language.CHAT),
)
PROVIDERS: Final = (Language.CHAT, Language.ANTHROPIC, Language.GEMINI)
PAIRS: Final[Mapping[str, Pair]] = {
    pair.name: pair for pair in (*TRANSLATED, *(Pair(client=one, provider=one) for one in PROVIDERS))
}
"""By name: those that are translated, and each provider's own language, which is what it alone can do."""

_WORDS: Final = tuple(f" word{number:02d}" for number in range(STREAM_EVENTS - 4))
_TEXT: Final = str(json.loads(ANSWER)["choices"][0]["message"]["content"])
_LAST_WORDS: Final = {
    (Language.CHAT, Kind.PLAIN): b'"finish_reason":"stop"',
    (Language.CHAT, Kind.STREAM): b"data: [DONE]\n\n",
    (Language.RESPONSES, Kind.PLAIN): b'"status":"completed"',
    (Language.RESPONSES, Kind.STREAM): b'"type":"response.completed"',
    (Language.ANTHROPIC, Kind.PLAIN): b'"stop_reason":"end_turn"',
    (Language.ANTHROPIC, Kind.STREAM): b'"type":"message_stop"',
    (Language.GEMINI, Kind.PLAIN): b'"finishReason":"STOP"',
    (Language.GEMINI, Kind.STREAM): b'"finishReason":"STOP"',
}


def _compact(document: object) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


# --- what the application sends and takes


def request_parts(pair: Pair, kind: Kind, *, port: int) -> tuple[bytes, bytes]:
    """The request in two halves, with room for `UNIQUE_SIZE` bytes between them."""
    marker = "#" * UNIQUE_SIZE
    path, document = _asked(pair, f"Hello {marker}", stream=kind is Kind.STREAM)
    content = _compact(document)
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: */*\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer bench\r\nanthropic-version: 2023-06-01\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    before, _, after = (head.encode() + content).partition(marker.encode())
    return before, after


def _asked(pair: Pair, text: str, *, stream: bool) -> tuple[str, dict[str, Any]]:
    message = [{"role": "user", "content": text}]
    streamed: dict[str, Any] = {"stream": True} if stream else {}
    match pair.client:
        case Language.CHAT:
            usage = {"stream_options": {"include_usage": True}} if stream else {}
            return "/v1/chat/completions", {"model": pair.model, "messages": message, **streamed, **usage}
        case Language.RESPONSES:
            return "/v1/responses", {"model": pair.model, "input": text, **streamed}
        case Language.ANTHROPIC:
            return "/v1/messages", {"model": pair.model, "max_tokens": 1024, "messages": message, **streamed}
        case Language.GEMINI:
            verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
            return f"/v1beta/models/{pair.model}:{verb}", {"contents": [{"role": "user", "parts": [{"text": text}]}]}


def is_right(language: Language, kind: Kind, body: bytes) -> bool:
    """True for an answer with all of the text, and complete by its API's own mark."""
    if _LAST_WORDS[language, kind] not in body:
        return False
    return _TEXT.encode() in body if kind is Kind.PLAIN else all(word.encode() in body for word in _WORDS)


# --- what the provider sends


def _message() -> dict[str, Any]:
    usage = {"input_tokens": 19, "output_tokens": 48}
    head = {"id": "msg_bench", "type": "message", "role": "assistant", "model": "bench", "stop_sequence": None}
    return {**head, "content": [{"type": "text", "text": _TEXT}], "stop_reason": "end_turn", "usage": usage}


def _message_events() -> tuple[bytes, ...]:
    def event(kind: str, **members: Any) -> bytes:
        return f"event: {kind}\ndata: ".encode() + _compact({"type": kind, **members}) + b"\n\n"

    opening = _message() | {"content": [], "stop_reason": None, "usage": {"input_tokens": 19, "output_tokens": 1}}
    words = (event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in _WORDS)
    return (
        event("message_start", message=opening),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *words,
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage={"output_tokens": 48}),
        event("message_stop"),
    )


def _generated(text: str, **candidate: Any) -> dict[str, Any]:
    content = {"parts": [{"text": text}], "role": "model"}
    usage = {"promptTokenCount": 19, "candidatesTokenCount": 48, "totalTokenCount": 67}
    head = {"modelVersion": "bench", "responseId": "bench"}
    return {"candidates": [{"content": content, "index": 0, **candidate}], "usageMetadata": usage, **head}


def _generated_events() -> tuple[bytes, ...]:
    *words, last = _WORDS
    documents = (*(_generated(word) for word in words), _generated(last, finishReason="STOP"))
    return tuple(b"data: " + _compact(document) + b"\r\n\r\n" for document in documents)


ANSWERS: Final[Mapping[Language, bytes]] = {
    Language.CHAT: ANSWER,
    Language.ANTHROPIC: _compact(_message()),
    Language.GEMINI: _compact(_generated(_TEXT, finishReason="STOP")),
}
STREAMS: Final[Mapping[Language, tuple[bytes, ...]]] = {
    Language.CHAT: EVENTS,
    Language.ANTHROPIC: _message_events(),
    Language.GEMINI: _generated_events(),
}


def asked_in(head: bytes, body: bytes) -> tuple[Language, Kind]:
    """Language and kind of a request that reached the provider; `head` is in lower case."""
    path = head[: head.find(b" http/")]
    if b"generatecontent" in path:
        return Language.GEMINI, Kind.STREAM if b":stream" in path else Kind.PLAIN
    language = Language.ANTHROPIC if b"/messages" in path else Language.CHAT
    return language, Kind.STREAM if b'"stream":true' in body else Kind.PLAIN
