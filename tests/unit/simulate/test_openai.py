from __future__ import annotations

import base64
import io
import struct
from typing import Any

import aiohttp
import openai
import pytest
from openai.types import CreateEmbeddingResponse, Model, ModerationCreateResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from openai.types.responses.input_token_count_response import InputTokenCountResponse
from pydantic import BaseModel

from tests.unit.simulate.shapes import assert_known_shape, events_of

WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 2}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
CHAT_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": name, "parameters": WEATHER}} for name in ("get_weather", "get_forecast")
]
RESPONSES_TOOLS: list[Any] = [
    {"type": "function", "name": name, "parameters": WEATHER, "strict": True}
    for name in ("get_weather", "get_forecast")
]
PIXEL = "data:image/png;base64,iVBORw0KGgo="


class City(BaseModel):
    name: str
    population: int
    districts: list[str]


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


CHATS: dict[str, dict[str, Any]] = {
    "echo": {"messages": user("Hello!")},
    "two-answers": {"messages": user("Hello!"), "n": 2},
    "parallel-tools": {"messages": user("In parallel, please."), "tools": CHAT_TOOLS, "tool_choice": "required"},
    "schema": {"messages": user("A city"), "response_format": {"type": "json_object"}},
    "reasoning": {"messages": user("Think"), "reasoning_effort": "high"},
    "cut-short": {"messages": user("Hello!"), "max_completion_tokens": 3},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "echo": {"input": "Hello!"},
    "parallel-tools": {"input": "In parallel, please.", "tools": RESPONSES_TOOLS, "tool_choice": "required"},
    "schema": {"input": "A city", "text": {"format": {"type": "json_object"}}},
    "reasoning": {"input": "Think", "reasoning": {"effort": "high"}},
    "shown-reasoning": {
        "input": "Think",
        "reasoning": {"effort": "high", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    },
    "cut-short": {"input": "Hello!", "max_output_tokens": 3},
}


@pytest.mark.parametrize("request_body", CHATS.values(), ids=CHATS.keys())
async def test_a_chat_completion_has_the_shape_that_the_sdk_knows(
    http: aiohttp.ClientSession, request_body: dict[str, Any]
) -> None:
    async with http.post("/v1/chat/completions", json={"model": "gpt-5", **request_body}) as answer:
        assert_known_shape(ChatCompletion, await answer.json(), api="openai")


@pytest.mark.parametrize("request_body", CHATS.values(), ids=CHATS.keys())
async def test_every_chunk_of_a_chat_has_the_shape_that_the_sdk_knows(
    http: aiohttp.ClientSession, request_body: dict[str, Any]
) -> None:
    body = {"model": "gpt-5", "stream": True, "stream_options": {"include_usage": True}, **request_body}
    async with http.post("/v1/chat/completions", json=body) as answer:
        events = events_of(await answer.text())

    assert events[-1] == (None, "[DONE]")
    assert [event["usage"] is None for _, event in events[:-1]] == [True] * (len(events) - 2) + [False]
    for _, event in events[:-1]:
        assert_known_shape(ChatCompletionChunk, event, api="openai")


@pytest.mark.parametrize("request_body", RESPONSES.values(), ids=RESPONSES.keys())
async def test_a_response_has_the_shape_that_the_sdk_knows(
    http: aiohttp.ClientSession, request_body: dict[str, Any]
) -> None:
    async with http.post("/v1/responses", json={"model": "gpt-5", **request_body}) as answer:
        assert_known_shape(Response, await answer.json(), api="openai")


@pytest.mark.parametrize("request_body", RESPONSES.values(), ids=RESPONSES.keys())
async def test_every_event_of_a_response_has_its_name_its_number_and_a_known_shape(
    http: aiohttp.ClientSession, request_body: dict[str, Any]
) -> None:
    async with http.post("/v1/responses", json={"model": "gpt-5", "stream": True, **request_body}) as answer:
        events = events_of(await answer.text())

    assert [data["sequence_number"] for _, data in events] == list(range(len(events)))
    for name, data in events:
        assert name == data["type"]
        assert_known_shape(ResponseStreamEvent, data, api="openai")


async def test_the_smaller_endpoints_have_shapes_that_the_sdk_knows(http: aiohttp.ClientSession) -> None:
    for path, body, kind in (
        ("/v1/embeddings", {"model": "text-embedding-3-small", "input": ["a", "b"]}, CreateEmbeddingResponse),
        ("/v1/responses/input_tokens", {"model": "gpt-5", "input": "Hello!"}, InputTokenCountResponse),
        ("/v1/moderations", {"input": "Hello!"}, ModerationCreateResponse),
    ):
        async with http.post(path, json=body) as answer:
            assert_known_shape(kind, await answer.json(), api="openai")
    async with http.get("/v1/models/gpt-5") as answer:
        assert_known_shape(Model, await answer.json(), api="openai")


async def test_chat_counts_four_characters_as_a_token_and_tells_the_sum(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(model="gpt-5", messages=user("x" * 8))

    assert answer.usage is not None
    assert answer.choices[0].message.content == "gpt-5 (simulated) heard: xxxxxxxx"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 9, 14)


async def test_a_streamed_chat_says_what_the_plain_one_says(openai_client: openai.AsyncOpenAI) -> None:
    plain = await openai_client.chat.completions.create(model="gpt-5", messages=user("Tell me more"))
    async with openai_client.chat.completions.stream(
        model="gpt-5", messages=user("Tell me more"), stream_options={"include_usage": True}
    ) as stream:
        streamed = await stream.get_final_completion()

    assert streamed.choices[0].message.content == plain.choices[0].message.content
    assert streamed.usage == plain.usage


async def test_a_stream_without_the_option_tells_no_usage(openai_client: openai.AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(model="gpt-5", messages=user("Hi"), stream=True)

    assert [chunk.usage async for chunk in stream if chunk.usage] == []


async def test_a_tool_named_in_the_text_is_called_and_its_result_is_read(openai_client: openai.AsyncOpenAI) -> None:
    asked = user("How is the weather?")
    first = await openai_client.chat.completions.create(model="gpt-5", messages=asked, tools=CHAT_TOOLS)
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls"
    assert message.tool_calls is not None
    [call] = message.tool_calls
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city":"example","days":2}')

    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    turn: Any = message.model_dump(exclude_none=True)
    second = await openai_client.chat.completions.create(
        model="gpt-5", messages=[*asked, turn, result], tools=CHAT_TOOLS
    )
    assert "sunny" in (second.choices[0].message.content or "")


async def test_parallel_calls_stream_into_the_same_calls(openai_client: openai.AsyncOpenAI) -> None:
    async with openai_client.chat.completions.stream(
        model="gpt-5", messages=user("Use tools in parallel"), tools=CHAT_TOOLS
    ) as stream:
        answer = await stream.get_final_completion()

    calls = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == ["get_weather", "get_forecast"]


@pytest.mark.parametrize(
    ("choice", "parallel", "expected"),
    [
        ("none", True, []),
        ({"type": "function", "function": {"name": "get_forecast"}}, True, ["get_forecast"]),
        ("required", False, ["get_weather"]),
    ],
    ids=["none", "named", "one-at-a-time"],
)
async def test_the_tool_choice_decides(
    openai_client: openai.AsyncOpenAI, choice: Any, parallel: bool, expected: list[str]
) -> None:
    answer = await openai_client.chat.completions.create(
        model="gpt-5", messages=user("weather"), tools=CHAT_TOOLS, tool_choice=choice, parallel_tool_calls=parallel
    )

    calls: list[Any] = answer.choices[0].message.tool_calls or []
    assert [call.function.name for call in calls] == expected


async def test_structured_outputs_parse_in_both_apis(openai_client: openai.AsyncOpenAI) -> None:
    chat = await openai_client.chat.completions.parse(model="gpt-5", messages=user("A city"), response_format=City)
    response = await openai_client.responses.parse(model="gpt-5", input="A city", text_format=City)

    assert isinstance(chat.choices[0].message.parsed, City)
    assert response.output_parsed == chat.choices[0].message.parsed


async def test_an_image_costs_tokens_and_is_seen(openai_client: openai.AsyncOpenAI) -> None:
    parts: Any = [{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    chat = await openai_client.chat.completions.create(model="gpt-5", messages=[{"role": "user", "content": parts}])
    shown: Any = [{"type": "input_text", "text": "Look"}, {"type": "input_image", "image_url": PIXEL, "detail": "auto"}]
    response = await openai_client.responses.create(model="gpt-5", input=[{"role": "user", "content": shown}])

    assert "1 image" in (chat.choices[0].message.content or "")
    assert "1 image" in response.output_text
    assert chat.usage is not None
    assert response.usage is not None
    assert chat.usage.prompt_tokens == response.usage.input_tokens == 1 + 3 + 85


async def test_a_limit_ends_the_answer_with_the_reason_length(openai_client: openai.AsyncOpenAI) -> None:
    chat = await openai_client.chat.completions.create(model="gpt-5", messages=user("Hello"), max_tokens=3)
    response = await openai_client.responses.create(model="gpt-5", input="Hello", max_output_tokens=3)

    assert chat.usage is not None
    assert (chat.choices[0].finish_reason, chat.usage.completion_tokens) == ("length", 3)
    assert response.incomplete_details is not None
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_a_streamed_response_with_function_calls_ends_as_the_plain_one(openai_client: openai.AsyncOpenAI) -> None:
    async with openai_client.responses.stream(
        model="gpt-5", input="weather and forecast in parallel", tools=RESPONSES_TOOLS
    ) as stream:
        final = await stream.get_final_response()

    assert [item.name for item in final.output if item.type == "function_call"] == ["get_weather", "get_forecast"]


async def test_only_stored_responses_can_be_fetched_and_followed(openai_client: openai.AsyncOpenAI) -> None:
    stored = await openai_client.responses.create(model="gpt-5", input="Hi")
    unstored = await openai_client.responses.create(model="gpt-5", input="Hi", store=False)

    assert (await openai_client.responses.retrieve(stored.id)).output_text == stored.output_text
    await openai_client.responses.create(model="gpt-5", input="And?", previous_response_id=stored.id)
    with pytest.raises(openai.BadRequestError, match="not found"):
        await openai_client.responses.create(model="gpt-5", input="And?", previous_response_id=unstored.id)
    await openai_client.responses.delete(stored.id)
    with pytest.raises(openai.NotFoundError):
        await openai_client.responses.retrieve(stored.id)


async def test_embeddings_are_the_same_numbers_in_both_encodings(openai_client: openai.AsyncOpenAI) -> None:
    asked: dict[str, Any] = {"model": "text-embedding-3-small", "input": ["a", "b"], "dimensions": 8}
    floats = await openai_client.embeddings.create(**asked, encoding_format="float")
    encoded = await openai_client.embeddings.create(**asked, encoding_format="base64")
    usual = await openai_client.embeddings.create(**asked)

    raw: Any = encoded.data[0].embedding
    assert list(struct.unpack("<8f", base64.b64decode(raw))) == floats.data[0].embedding == usual.data[0].embedding
    assert floats.data[0].embedding != floats.data[1].embedding


async def test_embeddings_take_token_ids_and_count_each(openai_client: openai.AsyncOpenAI) -> None:
    one = await openai_client.embeddings.create(model="text-embedding-3-small", input=[1, 2, 3])
    many = await openai_client.embeddings.create(model="text-embedding-3-small", input=[[1, 2], [3]])

    assert (len(one.data), one.usage.prompt_tokens) == (1, 3)
    assert (len(many.data), many.usage.prompt_tokens) == (2, 3)


async def test_models_are_listed_and_described(openai_client: openai.AsyncOpenAI) -> None:
    listed = [model.id async for model in openai_client.models.list()]

    assert "gpt-5" in listed
    assert (await openai_client.models.retrieve("gpt-5")).id == "gpt-5"


async def test_passthrough_paths_take_uploads_and_give_binary_bodies(openai_client: openai.AsyncOpenAI) -> None:
    upload = io.BytesIO(bytes(range(256)) * 10)
    spoken = await openai_client.audio.transcriptions.create(model="whisper-1", file=("a.wav", upload))
    content = await openai_client.files.content("file-1")

    assert spoken.text.startswith("Simulated transcription of ")
    assert len(set(content.content)) == 256


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"{}", 400),
        ("POST", "/v1/chat/completions", b'{"model":"m"}', 400),
        ("POST", "/v1/chat/completions", b'{"model":"m","messages":[5]}', 400),
        ("POST", "/v1/chat/completions", b'{"model":"missing-1","messages":[{}]}', 404),
        ("GET", "/v1/chat/completions", b"", 405),
        ("POST", "/v1/nothing", b"{}", 404),
        ("POST", "/v1/embeddings", b'{"model":"m","input":[]}', 400),
        ("POST", "/v1/embeddings", b'{"model":"m","input":"a","dimensions":-1}', 400),
        ("POST", "/v1/responses", b'{"model":"m"}', 400),
    ],
    ids=str,
)
async def test_what_openai_would_refuse_is_refused_in_its_words(
    http: aiohttp.ClientSession, method: str, path: str, body: bytes, status: int
) -> None:
    async with http.request(method, path, data=body) as answer:
        told = await answer.json()

    assert (answer.status, set(told["error"])) == (status, {"message", "type", "param", "code"})


async def test_a_prefix_before_the_version_is_ignored(http: aiohttp.ClientSession) -> None:
    body = {"model": "gpt-5", "messages": user("Hi")}
    async with http.post("/openai/v1/chat/completions", json=body) as answer:
        assert answer.status == 200
