from __future__ import annotations

from typing import Any

import aiohttp
import anthropic
import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from pydantic import BaseModel

from tests.unit.simulate.shapes import assert_known_shape, events_of

VERSION = {"anthropic-version": "2026-10-21"}
TOOLS: list[Any] = [
    {"name": name, "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}
    for name in ("get_weather", "get_forecast")
]
IMAGE: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}


class City(BaseModel):
    name: str
    population: int


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


REQUESTS: dict[str, dict[str, Any]] = {
    "echo": {"messages": user("Hello!")},
    "thinking": {"messages": user("Hello!"), "thinking": {"type": "enabled", "budget_tokens": 1024}},
    "parallel-tools": {"messages": user("In parallel, please"), "tools": TOOLS, "tool_choice": {"type": "any"}},
    "schema": {
        "messages": user("A city"),
        "output_config": {"format": {"type": "json_schema", "schema": City.model_json_schema()}},
    },
    "cut-short": {"messages": user("Hello!"), "max_tokens": 3},
    "stopped": {"messages": user("Hello!"), "stop_sequences": ["heard"]},
}


@pytest.mark.parametrize("request_body", REQUESTS.values(), ids=REQUESTS.keys())
async def test_a_message_has_the_shape_that_the_sdk_knows(
    http: aiohttp.ClientSession, request_body: dict[str, Any]
) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 2048, **request_body}
    async with http.post("/v1/messages", json=body, headers=VERSION) as answer:
        assert_known_shape(Message, await answer.json(), api="anthropic")


@pytest.mark.parametrize("request_body", REQUESTS.values(), ids=REQUESTS.keys())
async def test_every_event_of_a_message_has_its_name_and_a_known_shape(
    http: aiohttp.ClientSession, request_body: dict[str, Any]
) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 2048, "stream": True, **request_body}
    async with http.post("/v1/messages", json=body, headers=VERSION) as answer:
        events = events_of(await answer.text())

    for name, data in events:
        assert name == data["type"]
        if name != "ping":  # known to the SDK's client, not to its types
            assert_known_shape(RawMessageStreamEvent, data, api="anthropic")
    names = [name for name, _ in events]
    assert (names[0], names[-2:]) == ("message_start", ["message_delta", "message_stop"])
    assert names.count("content_block_start") == names.count("content_block_stop")


async def test_counts_and_models_have_shapes_that_the_sdk_knows(http: aiohttp.ClientSession) -> None:
    body = {"model": "claude-sonnet-4-6", "messages": user("Hello!")}
    async with http.post("/v1/messages/count_tokens", json=body, headers=VERSION) as answer:
        assert_known_shape(MessageTokensCount, await answer.json(), api="anthropic")
    async with http.get("/v1/models/claude-sonnet-4-6", headers=VERSION) as answer:
        assert_known_shape(ModelInfo, await answer.json(), api="anthropic")


@pytest.mark.parametrize("request_body", REQUESTS.values(), ids=REQUESTS.keys())
async def test_a_stream_assembles_into_the_plain_message(
    anthropic_client: anthropic.AsyncAnthropic, request_body: dict[str, Any]
) -> None:
    asked: dict[str, Any] = {"model": "claude-sonnet-4-6", "max_tokens": 2048, **request_body}
    plain = await anthropic_client.messages.create(**asked)
    async with anthropic_client.messages.stream(**asked) as stream:
        streamed = await stream.get_final_message()

    assert streamed.stop_reason == plain.stop_reason
    assert (streamed.usage.input_tokens, streamed.usage.output_tokens) == (
        plain.usage.input_tokens,
        plain.usage.output_tokens,
    )
    assert [_said(block) for block in streamed.content] == [_said(block) for block in plain.content]


def _said(block: Any) -> Any:
    return {"thinking": "thinking", "text": "text", "tool_use": "input"}[block.type], (
        getattr(block, "thinking", None) or getattr(block, "text", None) or getattr(block, "input", None)
    )


async def test_the_count_is_what_the_message_then_costs(anthropic_client: anthropic.AsyncAnthropic) -> None:
    asked: dict[str, Any] = {
        "model": "claude-sonnet-4-6",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Look"}, IMAGE]}],
        "system": "Be brief",
        "tools": TOOLS,
    }
    counted = await anthropic_client.messages.count_tokens(**asked)
    message = await anthropic_client.messages.create(**asked, max_tokens=100)

    assert message.usage.input_tokens == counted.input_tokens
    assert "1 image" in message.content[0].text


async def test_structured_output_parses(anthropic_client: anthropic.AsyncAnthropic) -> None:
    message = await anthropic_client.messages.parse(
        model="claude-sonnet-4-6", max_tokens=500, messages=user("A city"), output_format=City
    )

    assert isinstance(message.parsed_output, City)


async def test_a_forced_tool_is_called_and_its_result_is_read(anthropic_client: anthropic.AsyncAnthropic) -> None:
    first = await anthropic_client.messages.create(
        model="claude-sonnet-4-6",
        max_tokens=500,
        messages=user("Hi"),
        tools=TOOLS,
        tool_choice={"type": "tool", "name": "get_forecast"},
    )
    [call] = first.content
    assert call.type == "tool_use"
    assert (first.stop_reason, call.name, call.input) == ("tool_use", "get_forecast", {"city": "example"})

    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns: Any = [*user("Hi"), {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = await anthropic_client.messages.create(
        model="claude-sonnet-4-6", max_tokens=500, messages=turns, tools=TOOLS
    )
    assert "sunny" in second.content[0].text  # type: ignore[union-attr]


async def test_cached_tokens_stand_beside_the_input(http: aiohttp.ClientSession) -> None:
    body = {"model": "claude-sonnet-4-6", "max_tokens": 50, "messages": user("x" * 40)}
    headers = {**VERSION, "x-llm-simulate": "cached_tokens=4"}
    async with http.post("/v1/messages", json=body, headers=headers) as answer:
        usage = (await answer.json())["usage"]

    assert (usage["input_tokens"], usage["cache_read_input_tokens"]) == (10 + 3 - 4, 4)


async def test_models_are_listed(anthropic_client: anthropic.AsyncAnthropic) -> None:
    assert "claude-haiku-4-5" in [model.id async for model in anthropic_client.models.list()]


@pytest.mark.parametrize(
    ("path", "body", "headers", "status"),
    [
        ("/v1/messages", b"{", VERSION, 400),
        ("/v1/messages", b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":"a"}]}', {}, 400),
        ("/v1/messages", b'{"model":"m","messages":[{"role":"user","content":"a"}]}', VERSION, 400),
        ("/v1/messages", b'{"model":"m","max_tokens":1}', VERSION, 400),
        ("/v1/messages", b'{"max_tokens":1}', VERSION, 400),
        ("/v1/messages/count_tokens", b'{"model":"missing-1","messages":[{}]}', VERSION, 404),
        ("/v1/messages/nothing", b"{}", VERSION, 404),
    ],
    ids=["no-json", "no-version", "no-limit", "no-messages", "no-model", "unknown-model", "unknown-path"],
)
async def test_what_anthropic_would_refuse_is_refused_in_its_words(
    http: aiohttp.ClientSession, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    async with http.post(path, data=body, headers=headers) as answer:
        told = await answer.json()

    assert answer.status == status
    assert (told["type"], set(told["error"])) == ("error", {"type", "message"})
    assert told["request_id"] == answer.headers["request-id"]
