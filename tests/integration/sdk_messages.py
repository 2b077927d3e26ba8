"""What the providers' own SDKs make of an answer: the same message, whether it came plain or as a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

import anthropic
import httpx2
import openai
from openai.lib.streaming.chat import ChatCompletionStreamState

from llm_sidecar.contract.names import API
from tests.unit.translation.gemini import google_sdk

_OF_HELPERS: Final = frozenset({"parsed", "parsed_arguments", "parsed_output", "json_buf", "__json_buf"})
"""What the SDKs' helpers add to the types of the API."""


def message_of_plain(api: API, answer: bytes) -> Any:
    """The message, as plain data."""
    return _PLAIN[api](answer)


def message_of_stream(api: API, stream: bytes) -> Any:
    """The same of a stream, which the SDK reads to its end."""
    return _STREAM[api](stream)


def _told(value: Any) -> Any:
    """Without what says nothing: nulls, empty lists, and what helpers add."""
    if isinstance(value, Mapping):
        kept = {name: _told(each) for name, each in value.items() if name not in _OF_HELPERS}
        return {name: each for name, each in kept.items() if each not in (None, [], {})}
    return [_told(each) for each in value] if isinstance(value, list) else value


def _dumped(model: Any) -> Any:
    return _told(model.model_dump(mode="json", warnings=False))


def _client(answer: bytes) -> httpx2.Client:
    kind = "application/json" if answer.lstrip().startswith(b"{") else "text/event-stream"
    told = httpx2.Response(200, headers={"content-type": kind}, content=answer)
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: told))


def _openai(answer: bytes) -> openai.OpenAI:
    return openai.OpenAI(api_key="none", base_url="http://provider.invalid/v1", http_client=_client(answer))


def _anthropic(answer: bytes) -> anthropic.Anthropic:
    return anthropic.Anthropic(api_key="none", max_retries=0, http_client=_client(answer))


def _chat(answer: bytes) -> Any:
    with _openai(answer) as client:
        return _dumped(client.chat.completions.create(model="m", messages=[]))


def _response(answer: bytes) -> Any:
    with _openai(answer) as client:
        return _dumped(client.responses.create(model="m", input="Hi"))


def _message(answer: bytes) -> Any:
    with _anthropic(answer) as client:
        return _dumped(client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]))


def _chat_stream(stream: bytes) -> Any:
    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    with _openai(stream) as client:
        for chunk in client.chat.completions.create(model="m", messages=[], stream=True):
            state.handle_chunk(chunk)
    made = _dumped(state.get_final_completion())
    for choice in made["choices"]:
        for call in choice["message"].get("tool_calls", []):
            call.pop("index", None)
    made.pop("obfuscation", None)
    return {**made, "object": "chat.completion"}


def _responses_stream(stream: bytes) -> Any:
    with _openai(stream) as client, client.responses.stream(model="m", input="Hi") as told:
        return _dumped(told.get_final_response())


def _messages_stream(stream: bytes) -> Any:
    with (
        _anthropic(stream) as client,
        client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]) as told,
    ):
        return _dumped(told.get_final_message())


def _gemini_stream(stream: bytes) -> Any:
    """Google's SDK puts nothing together: as its chats do, the parts are taken in turn; texts that follow are one."""
    whole: dict[str, Any] = {}
    parts: list[dict[str, Any]] = []
    for chunk in map(_dumped, google_sdk.reads_stream(stream)):
        chunk.pop("sdk_http_response", None)
        candidates = chunk.pop("candidates", [])
        whole |= chunk
        for candidate in candidates:
            parts += candidate.get("content", {}).get("parts", [])
            whole["candidate"] = whole.get("candidate", {}) | {
                name: value for name, value in candidate.items() if name != "content"
            }
    return {**whole, "parts": _joined(parts)}


def _gemini(answer: bytes) -> Any:
    return _gemini_stream(b"data: " + json.dumps(json.loads(answer)).encode() + b"\n\n")


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for part in parts:
        before = joined[-1] if joined else {}
        text = {"text", "thought"} >= part.keys() and "text" in part
        if text and before.keys() == part.keys() and before.get("thought") == part.get("thought"):
            before["text"] += part["text"]
        else:
            joined.append(dict(part))
    return joined


_PLAIN: Final[Mapping[API, Callable[[bytes], Any]]] = {
    API.OPENAI_CHAT: _chat,
    API.OPENAI_RESPONSES: _response,
    API.ANTHROPIC_MESSAGES: _message,
    API.GEMINI: _gemini,
}
_STREAM: Final[Mapping[API, Callable[[bytes], Any]]] = {
    API.OPENAI_CHAT: _chat_stream,
    API.OPENAI_RESPONSES: _responses_stream,
    API.ANTHROPIC_MESSAGES: _messages_stream,
    API.GEMINI: _gemini_stream,
}
