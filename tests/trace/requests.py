"""One request of the trace, and its body as the SDK of its API sends it.

Every prompt begins with a mark of its own, which the simulator repeats: so each answer shows that it is the one to this
request. What differs between two bodies of the same `meaning` is delivery alone: stream or plain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import orjson

CHARACTERS_PER_TOKEN: Final = 4
TOKENS_PER_MESSAGE: Final = 3
ITEM_TOKENS: Final = 100
ITEM_CHARACTERS: Final = ITEM_TOKENS * CHARACTERS_PER_TOKEN
"""Every item of a batch is as long: so the usage that an answer tells is the number of items that were paid for."""
ANSWER_BYTES: Final = 800
"""Of text, which the simulator is told to answer at least."""
MAX_OUTPUT_TOKENS: Final = 1024


class Kind(StrEnum):
    """What a request is: the rows of the tables."""

    CHAT = "chat"
    STREAM = "chat, stream"
    AGENT = "agent"
    EMBEDDINGS = "embeddings"
    COUNT = "token count"


class Family(StrEnum):
    """Whose API is spoken."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


MODELS: Final[Mapping[Family, str]] = {
    Family.OPENAI: "gpt-5-mini",
    Family.ANTHROPIC: "claude-haiku-4-5",
    Family.GEMINI: "gemini-2.5-flash",
}
EMBEDDING_MODEL: Final = "text-embedding-3-small"

_STAINLESS: Final = {
    "accept": "application/json",
    "content-type": "application/json",
    "x-stainless-lang": "python",
    "x-stainless-async": "async:asyncio",
    "x-stainless-runtime": "CPython",
    "x-stainless-retry-count": "0",
    "x-stainless-read-timeout": "600",
}
HEADERS: Final[Mapping[Family, Mapping[str, str]]] = {
    Family.OPENAI: _STAINLESS | {"authorization": "Bearer trace", "user-agent": "AsyncOpenAI/Python 3.0.0"},
    Family.ANTHROPIC: _STAINLESS
    | {"x-api-key": "trace", "anthropic-version": "2023-06-01", "user-agent": "AsyncAnthropic/Python 2.0.0"},
    Family.GEMINI: {
        "content-type": "application/json",
        "x-goog-api-key": "trace",
        "x-goog-api-client": "google-genai-sdk/3.0.0 gl-python/3.11",
        "user-agent": "google-genai-sdk/3.0.0 gl-python/3.11",
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What is sent, and what its answer must hold."""

    kind: Kind
    family: Family
    path: str
    body: bytes
    meanings: tuple[str, ...]
    """Equal where a cache may give the same answer: one for a request, one for each item of a batch."""
    stream: bool = False
    deterministic: bool = False
    """It says temperature 0."""
    text: str = ""
    """The answer contains this."""
    tool: str = ""
    """The answer calls this tool."""
    tokens: int = 0
    """The answer tells this count."""
    items: tuple[str, ...] = ()
    """The answer has a vector for each of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A question to a model, in no API's words yet."""

    family: Family
    mark: str
    system: str
    text: str
    deterministic: bool = False


def tokens_of(characters: int) -> int:
    """Of one message, as the simulator counts."""
    return -(-characters // CHARACTERS_PER_TOKEN) + TOKENS_PER_MESSAGE


def chat(prompt: Prompt, *, stream: bool) -> Request:
    """A question with its system prompt, over the API of its family."""
    path, body = _CHATS[prompt.family](prompt, stream)
    return Request(
        kind=Kind.STREAM if stream else Kind.CHAT,
        family=prompt.family,
        path=path,
        body=orjson.dumps(body),
        meanings=(f"chat {prompt.mark}",),
        stream=stream,
        deterministic=prompt.deterministic,
        text=f"{MODELS[prompt.family]} (simulated) heard: {prompt.mark} ",
    )


def _openai(prompt: Prompt, stream: bool) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.text}]
    body: dict[str, Any] = {"messages": messages, "model": MODELS[Family.OPENAI]}
    body |= {"temperature": 0} if prompt.deterministic else {}
    body |= {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    return "/v1/chat/completions", body


def _anthropic(prompt: Prompt, stream: bool) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "user", "content": prompt.text}]
    body: dict[str, Any] = {"max_tokens": MAX_OUTPUT_TOKENS, "messages": messages, "model": MODELS[Family.ANTHROPIC]}
    body |= {"system": prompt.system}
    body |= {"temperature": 0.0} if prompt.deterministic else {}
    return "/v1/messages", body | ({"stream": True} if stream else {})


def _gemini(prompt: Prompt, stream: bool) -> tuple[str, dict[str, Any]]:
    verb = "streamGenerateContent?alt=sse" if stream else "generateContent"
    configuration = {"temperature": 0.0} if prompt.deterministic else {}
    body = {
        "contents": [{"parts": [{"text": prompt.text}], "role": "user"}],
        "systemInstruction": {"parts": [{"text": prompt.system}], "role": "user"},
        "generationConfig": {**configuration, "maxOutputTokens": MAX_OUTPUT_TOKENS},
    }
    return f"/v1/models/{MODELS[Family.GEMINI]}:{verb}", body


_CHATS: Final = {Family.OPENAI: _openai, Family.ANTHROPIC: _anthropic, Family.GEMINI: _gemini}


def embeddings(items: tuple[str, ...], *, meanings: tuple[str, ...]) -> Request:
    """A batch, encoded as OpenAI's SDK asks for it."""
    return Request(
        kind=Kind.EMBEDDINGS,
        family=Family.OPENAI,
        path="/v1/embeddings",
        body=orjson.dumps({"input": items, "model": EMBEDDING_MODEL, "encoding_format": "base64"}),
        meanings=meanings,
        items=items,
    )


def token_count(prompt: Prompt) -> Request:
    """How long would this be? Asked of the API of its family."""
    model, characters = MODELS[prompt.family], len(prompt.text)
    path: str
    body: dict[str, Any]
    match prompt.family:
        case Family.OPENAI:
            path, body = "/v1/responses/input_tokens", {"input": prompt.text, "model": model}
        case Family.ANTHROPIC:
            characters += len(prompt.system)
            path = "/v1/messages/count_tokens"
            body = {"messages": [{"role": "user", "content": prompt.text}], "model": model, "system": prompt.system}
        case Family.GEMINI:
            path = f"/v1/models/{model}:countTokens"
            body = {"contents": [{"parts": [{"text": prompt.text}], "role": "user"}]}
    return Request(
        kind=Kind.COUNT,
        family=prompt.family,
        path=path,
        body=orjson.dumps(body),
        meanings=(f"count {prompt.mark}",),
        tokens=tokens_of(characters),
    )
