"""What the providers' own SDKs think of a document or a stream that was written for their applications or providers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import anthropic
import httpx2
import openai
from anthropic.types import Message, RawMessageStreamEvent
from anthropic.types.message_create_params import MessageCreateParams
from google.genai import types as google_types
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParams
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParams
from pydantic import TypeAdapter

from llm_sidecar.contract.names import API
from tests.unit.translation.gemini import google_sdk

_REQUESTS: Final[Mapping[API, TypeAdapter[Any]]] = {
    API.OPENAI_CHAT: TypeAdapter(CompletionCreateParams),
    API.OPENAI_RESPONSES: TypeAdapter(ResponseCreateParams),
    API.ANTHROPIC_MESSAGES: TypeAdapter(MessageCreateParams),
}
_ANSWERS: Final[Mapping[API, TypeAdapter[Any]]] = {
    API.OPENAI_CHAT: TypeAdapter(ChatCompletion),
    API.OPENAI_RESPONSES: TypeAdapter(Response),
    API.ANTHROPIC_MESSAGES: TypeAdapter(Message),
}
_EVENTS: Final[Mapping[API, TypeAdapter[Any]]] = {
    API.OPENAI_CHAT: TypeAdapter(ChatCompletionChunk),
    API.OPENAI_RESPONSES: TypeAdapter(ResponseStreamEvent),
    API.ANTHROPIC_MESSAGES: TypeAdapter(RawMessageStreamEvent),
}
_GOOGLE_FIELDS: Final[Mapping[str, Any]] = {
    "systemInstruction": google_types.Content,
    "toolConfig": google_types.ToolConfig,
    "generationConfig": google_types.GenerationConfig,
}


def takes_request(api: API, document: Mapping[str, Any]) -> None:
    """Assert that the SDK knows every field of a request that means something to it."""
    if api is not API.GEMINI:
        _consume(_REQUESTS[api].validate_python(document))
        return
    for content in document["contents"]:
        google_types.Content.model_validate(content)
    for tool in document.get("tools", []):
        google_types.Tool.model_validate(tool)
    for name, kind in _GOOGLE_FIELDS.items():
        kind.model_validate(document.get(name, {}))


def takes_answer(api: API, document: Mapping[str, Any]) -> None:
    """Assert that the SDK's types hold an answer, strictly."""
    if api is API.GEMINI:
        google_sdk.reads_answer(document)
        google_types.GenerateContentResponse.model_validate(document)
    else:
        _ANSWERS[api].validate_json(json.dumps(document), strict=True)


def takes_stream(api: API, stream: bytes) -> None:
    """Assert that each event is of the SDK's types, strictly, and that the SDK's own reader comes to its end."""
    if api is API.GEMINI:
        google_sdk.reads_stream(stream)
        return
    for data in _data(stream):
        _EVENTS[api].validate_json(data, strict=True)
    _READERS[api](stream)


def _data(stream: bytes) -> Iterator[bytes]:
    for line in stream.split(b"\n"):
        if line.startswith(b"data: ") and line != b"data: [DONE]":
            yield line.removeprefix(b"data: ")


def _transport(stream: bytes) -> httpx2.MockTransport:
    answer = httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=stream)
    return httpx2.MockTransport(lambda _: answer)


def _read_chat(stream: bytes) -> None:
    with _openai(stream) as client:
        chunks = list(client.chat.completions.create(model="m", messages=[], stream=True))
    assert chunks


def _read_responses(stream: bytes) -> None:
    with _openai(stream) as client:
        kinds = [event.type for event in client.responses.create(model="m", input="Hi", stream=True)]
    assert kinds[0] == "response.created"
    assert kinds[-1] in {"response.completed", "response.incomplete"}


def _openai(stream: bytes) -> openai.OpenAI:
    return openai.OpenAI(
        api_key="none",
        base_url="http://provider.invalid/v1",
        http_client=openai.DefaultHttpxClient(transport=_transport(stream)),
    )


def _read_anthropic(stream: bytes) -> None:
    with (
        anthropic.Anthropic(
            api_key="none", max_retries=0, http_client=httpx2.Client(transport=_transport(stream))
        ) as client,
        client.messages.stream(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}]) as told,
    ):
        assert told.get_final_message().stop_reason is not None


_READERS: Final = {
    API.OPENAI_CHAT: _read_chat,
    API.OPENAI_RESPONSES: _read_responses,
    API.ANTHROPIC_MESSAGES: _read_anthropic,
}


def _consume(value: Any) -> None:
    """Validation of what the SDK's types call iterable happens only while it is read."""
    if isinstance(value, Mapping):
        for member in value.values():
            _consume(member)
    elif isinstance(value, Iterable) and not isinstance(value, str | bytes):
        for member in value:
            _consume(member)
